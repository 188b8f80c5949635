"""3x3 convolution with few outputs, two neighbouring pixels at once.

With AVX-512, oneDNN computes outputs in blocks of 16: 6 take the time of 16.  A kernel of 3x4 taps, moved on by two
columns, sees what two neighbouring pixels see and gives the outputs of both, 12 in one block; a third more products, in
half as many blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NARROW", "narrow_conv", "paired", "pairs_pay"]

#: Outputs of a convolution that this is for, at most: half a block.
NARROW = 8


def pairs_pay(x: Tensor, outputs: int) -> bool:
    """Whether two pixels at once are faster for ``x`` ``(B, C, H, W)``; its width must be even."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or outputs > NARROW or x.shape[3] % 2:
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def paired(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """``(out, in, 3, 3)`` and ``(out,)`` to ``(2 out, in, 3, 4)`` and ``(2 out,)``: the left pixel's outputs first."""
    return torch.cat([F.pad(weight, (0, 1)), F.pad(weight, (1, 0))]), torch.cat([bias, bias])


def narrow_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``conv2d(x, w, b, padding=1)`` with ``weight, bias = paired(w, b)``; ``x`` ``(B, in, H, W)``, W even."""
    both = F.conv2d(x, weight, bias, padding=1, stride=(1, 2))  # (B, 2 out, H, W / 2)
    count, outputs, height, width = both.shape
    return both.view(count, 2, outputs // 2, height, width).permute(0, 2, 3, 4, 1).flatten(3)

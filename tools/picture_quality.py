"""A picture as a tensor, and PSNR, as tables of denoisers have them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from synthpipe.files.image_files import read_image
from synthpipe.images import to_float

__all__ = ["picture", "psnr"]


def picture(path: Path) -> Tensor:
    """``(1, 3, H, W)`` in [0, 1]."""
    return to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])


def psnr(x: Tensor, clean: Tensor) -> float:
    """dB, peak 1, over all pixels and channels; ``x`` counts as it is, unclipped; infinite where both are equal."""
    return float(-10 * (x - clean).double().square().mean().log10())

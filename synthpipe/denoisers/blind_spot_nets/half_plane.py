"""Networks that look in one direction only: the result at a row depends on that row and those above it.

Shifted down by ``1 + hole`` rows, such a result does not depend on the ``(2 * hole + 1)^2`` block around its pixel.
The building blocks and the U-Net of Laine, Karras, Lehtinen and Aila (NeurIPS 2019).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["HalfPlaneUNet", "LookingConv", "act", "conv1x1", "head", "shift_down"]

_SLOPE = 0.1


def act(x: Tensor) -> Tensor:
    """LeakyReLU, of slope 0.1 below 0 as in the source, in the memory of ``x``, of any shape."""
    return F.leaky_relu_(x, _SLOPE)


def shift_down(x: Tensor, rows: int) -> Tensor:
    """``(B, C, H, W)`` moved down, zeros above."""
    rows = min(rows, x.shape[2])
    return F.pad(x[:, :, : x.shape[2] - rows], (0, 0, rows, 0))


class LookingConv(nn.Conv2d):
    """A convolution and :func:`act`, padded by zeros to the size of its input, that looks up (or sideways) only.

    Args:
        in_channels: of the input.
        out_channels: of the result.
        rows: of the kernel, all at or above the pixel.
        columns: of the kernel, odd, as many on the left as on the right.
        dilation: between rows, and between columns.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rows: int = 3, columns: int = 3, dilation: tuple[int, int] = (1, 1)
    ) -> None:
        beside = columns // 2 * dilation[1]
        super().__init__(in_channels, out_channels, (rows, columns), padding=(0, beside), dilation=dilation)
        _initialize(self, 2 / (1 + _SLOPE**2))
        self._above = (rows - 1) * dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return act(super().forward(F.pad(x, (0, 0, self._above, 0))))


def conv1x1(in_channels: int, out_channels: int, last: bool = False) -> nn.Conv2d:
    """A 1x1 convolution, initialised for :func:`act` behind it, or for nothing behind it where it is the ``last``."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    _initialize(conv, 1.0 if last else 2 / (1 + _SLOPE**2))
    return conv


def head(widths: Sequence[int], out_channels: int) -> nn.Sequential:
    """1x1 convolutions from ``widths[0]`` channels over the others to ``out_channels``, linear at the end."""
    pairs = ((conv1x1(i, o), nn.LeakyReLU(_SLOPE, inplace=True)) for i, o in itertools.pairwise(widths))
    return nn.Sequential(*itertools.chain.from_iterable(pairs), conv1x1(widths[-1], out_channels, last=True))


def _initialize(conv: nn.Conv2d, gain: float) -> None:
    fan_in = conv.weight[0].numel()
    nn.init.normal_(conv.weight, std=(gain / fan_in) ** 0.5)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


class HalfPlaneUNet(nn.Module):
    """A U-Net that looks up only; sides must be multiples of ``2 ** levels``.

    Going down a level, features move down by a row and are pooled by 2, so that a pooled row reaches no lower than the
    upper of the two rows that it stands for; going up, each is repeated.  Level 0 has two convolutions before pooling
    and the image itself for a skip connection, every other level one and its pooled input.

    Args:
        in_channels: of the image.
        encoder: channels on the way down, from level 0 to the deepest.
        decoder: channels on the way up, from level 0 to the last but the deepest.
    """

    def __init__(self, in_channels: int, encoder: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        assert len(encoder) == len(decoder) + 1
        self.levels = len(decoder)
        self.first = LookingConv(in_channels, encoder[0])
        self.down = nn.ModuleList(LookingConv(i, o) for i, o in itertools.pairwise([encoder[0], *encoder]))
        below = [*decoder[1:], encoder[-1]]
        skipped = [in_channels, *encoder[:-2]]
        self.up = nn.ModuleList(
            nn.Sequential(LookingConv(b + s, o), LookingConv(o, o))
            for b, s, o in zip(below, skipped, decoder, strict=True)
        )

    @property
    def reach(self) -> tuple[int, int]:
        """Rows above and columns on each side that a result may depend on."""
        up = side = 0
        for level in range(self.levels + 1):
            convs = 2 + (level == 0) + (level < self.levels) if level < self.levels else 1
            up, side = up + 2 * convs * 2**level, side + convs * 2**level
        halvings = 2**self.levels - 1  # 1 + 2 + 4 + ...: one row or column of each level but the deepest
        return up + 2 * halvings, side + halvings

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, decoder[0], H, W)``."""
        h: Tensor = self.first(x)
        skips = [x]
        for level, conv in enumerate(self.down):
            h = conv(h)
            if level < self.levels:
                h = F.max_pool2d(shift_down(h, 1), 2)
                skips.append(h)
        for level in reversed(range(self.levels)):
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = self.up[level](torch.cat([h, skips[level]], 1))
        return h

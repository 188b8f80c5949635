"""A residual network at several sizes of the image: it sees far for little work, as noise of cameras asks for.

In the manner of FFDNet (Zhang et al. 2018), which works at half the size, and of DRUNet (Zhang et al. 2021), a U-Net of
residual blocks without normalisation.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["ScaledNet"]

#: The level enters as this many times its value, to be of the order of the image.
_LEVEL_GAIN = 10.0
#: Gain of what ends a block in a new network, so that blocks change little at first.
_FIRST_GAIN = 0.1


class _Block(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="relu")
        with torch.no_grad():
            self.second.weight.mul_(_FIRST_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, h, w)`` -> the same."""
        out: Tensor = x + self.second(F.relu(self.first(x), inplace=True))
        return out


class ScaledNet(nn.Module):
    """The noise of an image, from blocks at 1/2, 1/4, ... of its size on the way down and up again.

    Args:
        channels: of the image, in and out.
        width: channels inside at half the size; smaller sizes have twice as many.
        depth: residual blocks of two 3x3 convolutions at each size, on either way.
        scales: how often the size is halved, at least 1.
        level: false: the level is not looked at.

    Raises:
        ShapeError: settings that make no network.
    """

    def __init__(self, channels: int, width: int, depth: int, scales: int, level: bool = True) -> None:
        super().__init__()
        if channels not in (1, 3) or min(width, depth, scales) < 1:
            raise ShapeError(
                f"ScaledNet: expected channels 1 or 3, width, depth and scales of at least 1, got channels={channels}, "
                f"width={width}, depth={depth}, scales={scales}"
            )
        self._level = level
        self.grid = 2**scales
        #: Pixels that a result looks at on each side.
        self.reach = _reach(depth, scales)
        widths = [width] + [2 * width] * (scales - 1)
        self.head = nn.Conv2d(4 * (channels + level), width, 3, padding=1)
        self.down = nn.ModuleList(_blocks(size, depth) for size in widths)
        self.up = nn.ModuleList(_blocks(size, depth) for size in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(i, o, 2, stride=2) for i, o in itertools.pairwise(widths))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in itertools.pairwise(widths))
        self.out = nn.Conv2d(width, 4 * channels, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(_FIRST_GAIN)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``(B, C, H, W)`` of any size and ``(B,)`` -> ``(B, C, H, W)``."""
        height, width = x.shape[2:]
        h = x - 0.5
        if self._level:
            level = (_LEVEL_GAIN * sigma)[:, None, None, None].expand(-1, 1, height, width)
            h = torch.cat([h, level.to(x.dtype)], 1)
        h = F.pad(h, (0, -width % self.grid, 0, -height % self.grid), mode="replicate")
        h = self.head(F.pixel_unshuffle(h, 2))
        kept = []
        for place, blocks in enumerate(self.down):
            h = blocks(h)
            if place < len(self.shrink):
                kept.append(h)
                h = self.shrink[place](h)
        for place in reversed(range(len(self.up))):
            h = self.up[place](kept[place] + self.widen[place](h))
        return F.pixel_shuffle(self.out(h), 2)[..., :height, :width]


def _blocks(width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(depth)))


def _reach(depth: int, scales: int) -> int:
    """Pixels on each side of a pixel that its result depends on, at most, wherever it lies in the grid."""
    furthest = 0
    for pixel in range(2**scales):
        low, high = pixel // 2 - 1, pixel // 2 + 1
        for _ in range(scales - 1):
            low, high = (low - 2 * depth) // 2, (high + 2 * depth) // 2
        low, high = low - 2 * depth, high + 2 * depth
        for _ in range(scales - 1):
            low, high = 2 * low - 2 * depth, 2 * high + 1 + 2 * depth
        low, high = 2 * (low - 1), 2 * (high + 1) + 1
        furthest = max(furthest, pixel - low, high - pixel)
    return furthest

"""A residual network at several sizes of the image: it sees far for little work, as noise of cameras asks for.

In the manner of FFDNet (Zhang et al. 2018), which works at half the size, and of DRUNet (Zhang et al. 2021), a U-Net of
residual blocks without normalisation and biases.  Without biases a network scales with what it is given (Mohan et al.
2020): twice the contrast and twice the level give twice the noise, so that what is learned at one level holds at all.
It sees an image less its local mean; with the mean in it, no level below 10 of 255 was learned in thousands of steps.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["ScaledNet"]

#: The level enters as this many times its value, to be of the order of the noise in a feature.
_LEVEL_GAIN = 3.0
#: Gains of what ends a block, and of what ends a new network, so that they change little at first.
_BLOCK_GAIN, _OUT_GAIN = 0.3, 0.1
#: Side of the window of the local mean.
_WINDOW = 33


class _Block(nn.Module):
    """``x + conv(relu(conv(x)))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        nn.init.kaiming_normal_(self.first.weight)
        nn.init.kaiming_normal_(self.second.weight)
        with torch.no_grad():
            self.second.weight.mul_(_BLOCK_GAIN)

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
        self.head = _conv(4 * (channels + level), width)
        self.down = nn.ModuleList(_blocks(size, depth) for size in widths)
        self.up = nn.ModuleList(_blocks(size, depth) for size in widths[:-1])
        pairs = list(itertools.pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(large, small, 2, stride=2, bias=False) for large, small in pairs)
        self.widen = nn.ModuleList(nn.ConvTranspose2d(small, large, 2, stride=2, bias=False) for large, small in pairs)
        self.out = _conv(width, 4 * channels)
        for layer in (self.head, *self.shrink, *self.widen, self.out):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        with torch.no_grad():
            self.out.weight.mul_(_OUT_GAIN)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """``(B, C, H, W)`` of any size and ``(B,)`` -> ``(B, C, H, W)``."""
        height, width = x.shape[2:]
        h = x - _local_mean(x)
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


def _local_mean(x: Tensor) -> Tensor:
    """``(B, C, H, W)``, of the part of the window that lies in the image; along columns, then along rows."""
    margin = _WINDOW // 2
    columns = F.avg_pool2d(x, (_WINDOW, 1), 1, (margin, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, _WINDOW), 1, (0, margin), count_include_pad=False)


def _conv(inner: int, outer: int) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, bias=False)


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
    return furthest + _WINDOW // 2

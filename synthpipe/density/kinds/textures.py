"""What tells fine texture of a crisp picture from noise: noise is alike everywhere, in all directions, and normal.

A picture that was reduced or sharpened has as much power at the finest frequencies as weak noise has, in its flattest
blocks too.  But texture comes where larger forms are, has directions, few large coefficients among small ones, and no
colour of its own.

Legend: N tiles, M blocks of 8x8 pixels, F = 64 frequencies of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.density.kinds.spectra import BLOCK, ROUNDING, dct_kernels, flattest_blocks

__all__ = ["TEXTURE_NAMES", "TileTextures"]

#: Lower ends of low, middle and fine frequencies, radius in half cycles per block; the first leaves out the mean.
_LOW, _MIDDLE, _FINE = 0.5, 2.3, 4.3
#: From this radius on power across is compared with power down.
_DIRECTED = 3.3
#: Places in the sorted blocks that are compared with the one in the middle.
_QUANTILES = (0.02, 0.25, 0.75, 0.95)
#: A block's fourth moment over its squared second counts no more than this.
_MOST_PEAKED = 20.0
#: Side of the cells in which channels are compared, pixels, and the share of the cells that count as flattest.
_CELL, _FLAT_CELLS = 6, 0.2
#: Squared grey levels beside which products of channels say nothing; a third of a level is what rounding leaves.
_LEAST_POWER = 0.3
#: The like for covariances of logarithms.
_LEAST_COVARIANCE = 1e-2
_PARTS = ("flat", "half")

#: What :class:`TileTextures` returns, in order.
TEXTURE_NAMES = (
    "fine_follows_low",
    "fine_follows_middle",
    *(f"fine_quantile_{round(100 * share)}" for share in _QUANTILES),
    *(f"{name}_{part}" for name in ("unevenness", "peakedness", "direction") for part in _PARTS),
    *(f"{channels}_alike_{part}" for part in ("all", "flat") for channels in ("red_green", "green_blue")),
    "cells_differ",
)


class TileTextures(nn.Module):
    """All of them, ``(N, len(TEXTURE_NAMES))``, of tiles of at least 64 pixels a side; tensor operations alone."""

    kernels: Tensor
    fine: Tensor
    middle: Tensor
    low: Tensor
    across: Tensor
    down: Tensor
    corners: Tensor

    def __init__(self) -> None:
        super().__init__()
        place = torch.arange(BLOCK)
        rows, columns = (part.flatten() for part in torch.meshgrid(place, place, indexing="ij"))
        radius = torch.hypot(rows.double(), columns.double())
        chosen = {
            "fine": radius > _FINE,
            "middle": (radius > _MIDDLE) & (radius <= _FINE),
            "low": (radius > _LOW) & (radius <= _MIDDLE),
            "across": (radius > _DIRECTED) & (columns > rows + 1),
            "down": (radius > _DIRECTED) & (rows > columns + 1),
        }
        constants = {name: use.nonzero()[:, 0] for name, use in chosen.items()}
        constants["kernels"] = dct_kernels(BLOCK).float()
        # The mixed second difference twice; white noise keeps its standard deviation.
        constants["corners"] = torch.outer(torch.tensor([1.0, -2, 1]), torch.tensor([1.0, -2, 1]))[None, None] / 6
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, tiles: Tensor, luma: Tensor) -> Tensor:
        """Of tiles ``(N, 1 or 3, H, W)`` in [0, 1] and their luma ``(N, 1, H, W)`` on the 0..255 scale."""
        blocks = F.conv2d(luma, self.kernels, stride=BLOCK // 2)
        power = blocks.flatten(2).square()  # (N, F, M)
        means = [power.index_select(1, band).mean(1) for band in (self.fine, self.middle, self.low)]
        fine, middle, low = ((mean + ROUNDING).log() for mean in means)
        count = fine.shape[1]
        ordered = fine.sort(1).values
        spread = [ordered[:, int(share * (count - 1))] - ordered[:, count // 2] for share in _QUANTILES]
        half = power[:, 1:].sum(1).topk(count // 2, 1, largest=False, sorted=False).indices
        in_parts = [
            of_block.gather(1, part).mean(1)
            for of_block in self._of_blocks(power, means[0])
            for part in (flattest_blocks(blocks), half)
        ]
        followed = [_correlation(fine, low), _correlation(fine, middle)]
        return torch.cat([torch.stack([*followed, *spread, *in_parts], 1), self._colours(tiles)], 1)

    def _of_blocks(self, power: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How uneven and peaked the fine part of ``(N, F, M)`` is within each block, how directed; ``(N, M)`` each."""
        fine = power.index_select(1, self.fine)
        uneven = (mean + ROUNDING).log() - (fine + ROUNDING).log().mean(1)
        peaked = (fine.square().mean(1) / (mean + ROUNDING).square()).clamp_max(_MOST_PEAKED)
        across, down = (power.index_select(1, part).mean(1) + ROUNDING for part in (self.across, self.down))
        return uneven, peaked, (across / down).log().abs()

    def _colours(self, tiles: Tensor) -> Tensor:
        """How alike the finest detail of the channels is, in all cells and in the flattest; how much cells differ."""
        channels = 255 * tiles.expand(-1, 3, -1, -1)
        detail = torch.unflatten(F.conv2d(channels.flatten(0, 1)[:, None], self.corners)[:, 0], 0, (-1, 3))
        red, green, blue = detail.unbind(1)
        products = torch.stack([red * green, green * blue, red.square(), green.square(), blue.square()], 1)
        cells = F.avg_pool2d(products, _CELL).flatten(2)  # (N, 5, cells)
        power = cells[:, 2:].sum(1)
        few = power.topk(int(_FLAT_CELLS * power.shape[1]), 1, largest=False, sorted=False).indices
        found = []
        for part in (cells.mean(2), cells.gather(2, few[:, None].expand(-1, cells.shape[1], -1)).mean(2)):
            first, second, *squares = part.unbind(1)
            one, two, three = (square + _LEAST_POWER for square in squares)
            found += [first / (one * two).sqrt(), second / (two * three).sqrt()]
        return torch.stack([*found, (power + _LEAST_POWER).log().std(1)], 1)


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Over the blocks ``(N, M)``, ``(N,)``; 0 where nothing varies."""
    one, other = (values - values.mean(1, keepdim=True) for values in (one, other))
    power = one.square().mean(1) * other.square().mean(1)
    return (one * other).mean(1) / (power + _LEAST_COVARIANCE).sqrt()

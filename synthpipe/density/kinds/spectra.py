"""Power by frequency in blocks of a tile: of the flattest blocks, of the middle ones, and of all.

Noise fills every block, texture does not: the flattest blocks of a tile tell them apart, at each frequency by itself,
so that noise whose pixels are correlated is seen as well as white noise.  Chroma has less texture than luma, so it is
measured too; three octaves are, because coloured noise and blur go on over several.

Legend: N tiles, M blocks of 8x8 pixels, F = 64 frequencies of a block, K bands of frequencies.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BLOCK", "ROUNDING", "SPECTRUM_NAMES", "TileSpectra", "colour_planes", "dct_kernels", "flattest_blocks"]

#: Side of a block, pixels.
BLOCK = 8
#: Squared grey levels, about what rounding to 8 bits leaves in a coefficient.
ROUNDING = 0.08
#: Blocks of this mean or less, or that mean or more, of 255, hide noise: they are the last to pass for flat.
_DARK, _BRIGHT = 6.0, 249.0
#: Share of the blocks that count as flattest.
_FLAT_SHARE = 0.1
#: Upper ends of the rings of frequencies, as the radius in half cycles per block.
_RINGS = (1.2, 2.3, 3.3, 4.3, 5.3, 6.3, 7.3, 99.0)
_STATISTICS = ("flat", "middle", "all")
#: Rings of the planes: luma, luma at half size, luma at a quarter, chroma at half size.
_PLANES = (("luma", len(_RINGS)), ("half", len(_RINGS)), ("quarter", 3), ("chroma", len(_RINGS)))
#: Finest frequencies along one direction alone, of luma: rows of a field, columns of a screen.
_DIRECTIONS = ("across", "down", "diagonal")


def _names() -> tuple[str, ...]:
    found = [
        f"{plane}_{statistic}_{ring}" for plane, rings in _PLANES for statistic in _STATISTICS for ring in range(rings)
    ]
    found += [f"{direction}_{statistic}" for statistic in _STATISTICS for direction in _DIRECTIONS]
    return (*found, "chroma_finest_flat", "chroma_finest_all")


#: What :class:`TileSpectra` returns, in order.
SPECTRUM_NAMES = _names()


def colour_planes(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Luma ``(N, 1, H, W)`` and chroma Cb, Cr ``(N, 2, H, W)`` (BT.601) on the 0..255 scale, of RGB or grey tiles."""
    if tiles.shape[1] == 1:
        luma = 255 * tiles
        return luma, torch.zeros_like(luma).expand(-1, 2, -1, -1)
    red, green, blue = (255 * tiles).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma[:, None], torch.stack([0.564 * (blue - luma), 0.713 * (red - luma)], 1)


class TileSpectra(nn.Module):
    """Logarithms of power on the 0..255 scale, ``(N, len(SPECTRUM_NAMES))``; tensor operations alone."""

    kernels: Tensor
    rings: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernels", dct_kernels(BLOCK).float(), persistent=False)
        self.register_buffer("rings", _ring_weights().float(), persistent=False)

    def forward(self, luma: Tensor, chroma: Tensor) -> Tensor:
        """Of planes ``(N, 1, H, W)`` and ``(N, 2, H, W)`` of :func:`colour_planes`, of at least 64 pixels a side."""
        half = F.avg_pool2d(luma, 2)
        small = F.avg_pool2d(chroma, 2)
        whole = self._dct(luma, 4)
        order, power = flattest_blocks(whole), _power(whole)
        found = [_statistics(self._rings(power, len(_RINGS)), order)]
        for plane, step, rings in ((half, 2, len(_RINGS)), (F.avg_pool2d(half, 2), 2, 3)):
            blocks = self._dct(plane, step)
            found.append(_statistics(self._rings(_power(blocks), rings), flattest_blocks(blocks)))
        colours = torch.unflatten(self._dct(small.flatten(0, 1)[:, None], 2), 0, (-1, 2))  # (N, 2, F, rows, columns)
        power_of_colours = colours.square().sum(1).flatten(2)
        least = _flattest(power_of_colours[:, 1:].sum(1))
        found.append(_statistics(self._rings(power_of_colours, len(_RINGS)), least))
        found.append(_statistics(_directions(power), order))
        found.append(_finest_chroma(chroma, small))
        return torch.cat(found, 1)

    def _dct(self, plane: Tensor, step: int) -> Tensor:
        """DCT-II of the blocks at every ``step``-th place: ``(N, 1, H, W)`` -> ``(N, F, rows, columns)``."""
        return F.conv2d(plane, self.kernels, stride=step)

    def _rings(self, power: Tensor, count: int) -> Tensor:
        """``(N, F, M)`` -> means over the frequencies of each of the first ``count`` rings, ``(N, count, M)``."""
        return torch.einsum("kf,nfm->nkm", self.rings[:count], power)


def _power(blocks: Tensor) -> Tensor:
    """``(N, F, rows, columns)`` -> squares ``(N, F, M)``."""
    return blocks.flatten(2).square()


def flattest_blocks(blocks: Tensor) -> Tensor:
    """Places of the flattest of transformed blocks ``(N, F, rows, columns)``, ``(N, k)``; clipped ones come last."""
    mean = blocks[:, 0].flatten(1) / BLOCK
    clipped = (mean < _DARK) | (mean > _BRIGHT)
    return _flattest(blocks[:, 1:].flatten(2).square().sum(1) + 1e6 * clipped)


def _flattest(energy: Tensor) -> Tensor:
    """``(N, M)`` -> ``(N, k)``, the places of the least."""
    return energy.topk(max(int(_FLAT_SHARE * energy.shape[1]), 3), 1, largest=False, sorted=False).indices


def _directions(power: Tensor) -> Tensor:
    """``(N, F, M)`` -> the finest frequencies across, down and in both, ``(N, 3, M)``."""
    grid = torch.unflatten(power, 1, (BLOCK, BLOCK))  # rows of the grid: frequency down
    across, down, both = grid[:, :2, 6:], grid[:, 6:, :2], grid[:, 5:, 5:]
    return torch.stack([part.mean((1, 2)) for part in (across, down, both)], 1)


def _statistics(power: Tensor, flattest: Tensor) -> Tensor:
    """``(N, K, M)`` and ``(N, k)`` -> logarithms: mean of the flattest, median, mean; ``(N, 3 K)``."""
    flat = power.gather(2, flattest[:, None].expand(-1, power.shape[1], -1)).mean(2)
    middle = power.sort(2).values[..., power.shape[2] // 2]
    return (torch.cat([flat, middle, power.mean(2)], 1) + ROUNDING).log()


def _finest_chroma(chroma: Tensor, small: Tensor) -> Tensor:
    """What chroma has beyond its 2x2 means, of the flattest cells and of all, ``(N, 2)``: nothing after 4:2:0."""
    rest = (chroma - F.interpolate(small, scale_factor=2.0, mode="nearest")).square().sum(1, keepdim=True)
    cells = F.avg_pool2d(rest, 8).flatten(1)
    few = max(cells.shape[1] // 8, 1)
    flat = cells.topk(few, 1, largest=False, sorted=False).values.mean(1)
    return (torch.stack([flat, cells.mean(1)], 1) + ROUNDING).log()


def dct_kernels(side: int) -> Tensor:
    """Orthonormal cosine patterns of blocks, ``(side * side, 1, side, side)`` float64, row of frequencies by row."""
    place = torch.arange(side, dtype=torch.float64)
    basis = torch.cos(math.pi / side * (place + 0.5) * place[:, None]) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return torch.einsum("uy,vx->uvyx", basis, basis).flatten(0, 1)[:, None]


def _ring_weights() -> Tensor:
    """``(K, F)``, rows sum to 1; the mean of a block is in none."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    radius = torch.hypot(place[:, None], place).flatten()
    begins = (0.5, *_RINGS[:-1])
    member = torch.stack([(radius > begin) & (radius <= end) for begin, end in zip(begins, _RINGS, strict=True)])
    return member / member.sum(1, keepdim=True)

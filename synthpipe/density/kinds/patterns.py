"""Traces of machines in a tile: grids of block coders, combs of interlacing, screens of print, resampling, drawing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.density.kinds.spectra import dct_kernels
from synthpipe.density.tile_statistics import blockiness, coder_bits, contrast, octave_slopes

__all__ = ["PATTERN_NAMES", "TilePatterns"]

#: Grey levels: coefficients of this size and less are as good as 0 after rounding to 8 bits.
_ZERO = 0.6
#: Frequencies (down, across) of an 8x8 block that are counted together: low, middle and high ones.
_ORDERS = (
    ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0)),
    ((2, 2), (1, 3), (3, 1), (0, 4), (4, 0), (3, 3)),
    ((0, 7), (7, 0), (4, 4), (5, 5), (7, 7), (3, 6), (6, 3)),
)
#: The like of a 4x4 block.
_ORDERS_OF_4 = ((0, 3), (3, 0), (1, 1), (2, 2), (3, 3), (1, 2), (2, 1))
_GRID_NAMES = tuple(
    f"{what}_{order}" for order in range(len(_ORDERS)) for what in ("grid_excess", "grid_second", "zeros")
)
_GRID4_NAMES = ("grid4_excess", "zeros4", "steps4", "steps16", "steps_chroma")
#: Second differences of a line that are looked at for resampling; small factors have whole periods in it.
_LINE = 60
_COMB_NAMES = ("comb_down", "comb_across", "comb_flat", "row_power", "row_contrast")
_PERIOD_NAMES = ("period_2", "period_3", "period_4", "period_other", "period_most", "period_at")
_SCREEN_NAMES = ("peak_fine", "peak_middle", "peak_second")
_EDGE_NAMES = ("edge_1_2", "edge_2_4", "edge_strength", "overshoot")
_DRAWING_NAMES = ("equal_neighbours", "levels_used", "top_level", "top_two", "clipped", "equal_colours")
_PLAIN_NAMES = ("coder_bits", "contrast", "blockiness", "slope_finest", "slope_half", "slope_quarter", "slope_median")

#: What :class:`TilePatterns` returns, in order.
PATTERN_NAMES = (
    *_PLAIN_NAMES,
    *_GRID_NAMES,
    *_GRID4_NAMES,
    *_COMB_NAMES,
    *_PERIOD_NAMES,
    *_SCREEN_NAMES,
    *_EDGE_NAMES,
    *_DRAWING_NAMES,
)


class TilePatterns(nn.Module):
    """All of them, ``(N, len(PATTERN_NAMES))``, of square tiles; tensor operations alone.

    Args:
        tile: side of the tiles, pixels.
    """

    blocks_8: Tensor
    blocks_4: Tensor
    line_waves: Tensor
    tile_waves: Tensor
    other_periods: Tensor
    fine: Tensor
    middle: Tensor

    def __init__(self, tile: int) -> None:
        super().__init__()
        fine, middle = _spectrum_masks(tile)
        chosen_8 = [8 * down + across for order in _ORDERS for down, across in order]
        chosen_4 = [4 * down + across for down, across in _ORDERS_OF_4]
        constants = {
            "blocks_8": dct_kernels(8)[chosen_8].float(),
            "blocks_4": dct_kernels(4)[chosen_4].float(),
            "line_waves": _waves(_LINE)[:, :, : _LINE // 2 + 1].contiguous(),
            "tile_waves": _waves(tile),
            "other_periods": _other_periods(),
            "fine": fine,
            "middle": middle,
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, tiles: Tensor, luma: Tensor, chroma: Tensor) -> Tensor:
        """Of tiles ``(N, 1 or 3, tile, tile)`` in [0, 1], and their planes on the 0..255 scale."""
        grey, rows = luma / 255, luma[:, 0]
        plain = [coder_bits(grey)[:, None], contrast(grey)[:, None], blockiness(grey)[:, None], octave_slopes(grey)]
        grids = [self._grid(luma), self._grid4(luma, chroma)]
        lines = [_combs(rows), self._periods(rows), self._screens(rows)]
        return torch.cat([*plain, *grids, *lines, _edges(rows), _drawing(tiles, rows)], 1)

    def _grid(self, luma: Tensor) -> Tensor:
        """Zeros at the best and the second of the 64 grids of 8x8 blocks, beyond the mean, and it; ``(N, 9)``."""
        zero = _zeros(F.conv2d(luma, self.blocks_8))  # (N, F, H - 7, W - 7)
        by_order = torch.stack([few.mean(1) for few in torch.split(zero, [len(order) for order in _ORDERS], 1)], 1)
        height, width = (side // 8 * 8 for side in by_order.shape[-2:])
        # (N, K, rows, 8, columns, 8)
        cells = torch.unflatten(torch.unflatten(by_order[..., :height, :width], -1, (-1, 8)), -3, (-1, 8))
        phases = cells.mean((2, 4)).flatten(2)  # (N, K, 64)
        best = phases.topk(2, 2).values
        mean = phases.mean(2)
        return torch.stack([best[..., 0] - mean, best[..., 1] - mean, mean], 2).flatten(1)

    def _grid4(self, luma: Tensor, chroma: Tensor) -> Tensor:
        """The like of 4x4 blocks and larger ones: zeros by grid, and steps on grids of 4 and 16; ``(N, 5)``."""
        zero = _zeros(F.conv2d(luma, self.blocks_4)).mean(1, keepdim=True)
        height, width = (side // 4 * 4 for side in zero.shape[-2:])
        cells = torch.unflatten(torch.unflatten(zero[..., :height, :width], -1, (-1, 4)), -3, (-1, 4))
        phases = cells.mean((2, 4)).flatten(1)
        steps = [
            _steps(luma[:, 0], 4),
            _steps(luma[:, 0], 16),
            _steps(chroma[:, 0], 16) + _steps(chroma[:, 1], 16),
        ]
        return torch.stack([phases.amax(1) - phases.mean(1), phases.mean(1), *steps], 1)

    def _periods(self, rows: Tensor) -> Tensor:
        """Resampling: second differences are stronger at some phases of the new grid than at others; ``(N, 6)``."""
        total = torch.zeros(len(rows), _LINE // 2 + 1, device=rows.device, dtype=rows.dtype)
        for x in (rows, rows.transpose(1, 2)):
            second = (x[..., :-2] - 2 * x[..., 1:-1] + x[..., 2:]).abs()
            second = (second + 0.5).log().mean(1)[:, :_LINE]
            second = second - second.mean(1, keepdim=True)
            basis = self.line_waves
            amplitude = torch.hypot(second @ basis[0], second @ basis[1])  # (N, 31)
            total = total + amplitude / (amplitude.mean(1, keepdim=True) + 0.05)
        named = [total[:, 30], total[:, 20], total[:, 15]]
        others = total.index_select(1, self.other_periods)
        most, place = others.max(1)
        return torch.stack([*named, others.topk(2, 1).values[:, 1], most, place / others.shape[1]], 1)

    def _screens(self, rows: Tensor) -> Tensor:
        """How far single frequencies stand out of the spectrum: fine, middle, the ninth fine; ``(N, 3)``."""
        side = rows.shape[1]
        window = torch.hann_window(side, device=rows.device, dtype=rows.dtype)
        x = (rows - rows.mean((1, 2), keepdim=True)) * window * window[:, None]
        cos, sin = self.tile_waves
        real, imaginary = (x @ wave[:, : side // 2 + 1] for wave in (cos, sin))  # (N, H, side / 2 + 1)
        power = (cos @ real - sin @ imaginary).square() + (cos @ imaginary + sin @ real).square() + 1
        logs = power.log()[:, None]
        smooth = F.avg_pool2d(F.pad(logs, (3, 3, 3, 3), mode="replicate"), 7, stride=1)
        excess = (logs - smooth)[:, 0]
        at_fine = excess.masked_fill(~self.fine, -9.0).flatten(1)
        at_middle = excess.masked_fill(~self.middle, -9.0).flatten(1)
        return torch.stack([at_fine.amax(1), at_middle.amax(1), at_fine.topk(9, 1).values[:, 8]], 1)


def _steps(plane: Tensor, period: int) -> Tensor:
    """How much stronger steps are on the strongest grid of ``period`` than off it, both directions, ``(N,)``."""
    total = torch.zeros_like(plane[:, 0, 0])
    for x in (plane, plane.transpose(1, 2)):
        difference = x.diff(dim=2)
        step = (difference[..., 1:-1] - (difference[..., :-2] + difference[..., 2:]) / 2).abs().mean(1)
        folded = torch.unflatten(step[:, : step.shape[1] // period * period], 1, (-1, period)).mean(1)
        strongest = folded.amax(1)
        others = (folded.sum(1) - strongest) / (period - 1)
        total = total + ((strongest + 0.5) / (others + 0.5)).log()
    return total


def _combs(rows: Tensor) -> Tensor:
    """Rows that differ from both neighbours, which are alike: fields of two moments; and the same of columns."""
    found = []
    for x in (rows, rows.transpose(1, 2)):
        before, here, after = x[:, :-2], x[:, 1:-1], x[:, 2:]
        comb = ((here - before) * (here - after)).clamp_min(0)
        change = (after - before).square()
        found.append(((comb - change).clamp_min(0).mean((1, 2)) + 0.3).log())
    flat = found[0] - found[1]
    means = rows.mean(2)
    ripple = (means[:, 1:-1] - (means[:, :-2] + means[:, 2:]) / 2).square().mean(1)
    down = rows.diff(dim=1).square().mean((1, 2)) + 0.3
    across = rows.diff(dim=2).square().mean((1, 2)) + 0.3
    return torch.stack([found[0], found[1], flat, (ripple + 0.05).log(), (down / across).log()], 1)


def _edges(rows: Tensor) -> Tensor:
    """Widths of the strongest edges, which noise hardly changes, and how lines overshoot beside them; ``(N, 4)``."""
    strongest = []
    for distance in (1, 2, 4):
        across = (rows[:, :, distance:] - rows[:, :, :-distance]).abs().flatten(1)
        down = (rows[:, distance:] - rows[:, :-distance]).abs().flatten(1)
        both = torch.cat([across, down], 1)
        strongest.append((both.topk(max(both.shape[1] // 200, 1), 1, sorted=False).values.mean(1) + 1).log())
    near = (rows[:, 1:-1] - (rows[:, :-2] + rows[:, 2:]) / 2).abs().flatten(1)
    sharpest = (near.topk(max(near.shape[1] // 200, 1), 1, sorted=False).values.mean(1) + 1).log()
    one, two, four = strongest
    return torch.stack([one - two, two - four, four, sharpest - one], 1)


def _drawing(tiles: Tensor, rows: Tensor) -> Tensor:
    """What drawn pictures have: equal neighbours, few levels, clipped areas, no colour; ``(N, 6)``."""
    levels = rows.clamp(0, 255).round()
    equal = (levels.diff(dim=2) == 0).float().mean((1, 2)) + (levels.diff(dim=1) == 0).float().mean((1, 2))
    # NaN has no whole number; other statistics keep it.
    flat = levels.nan_to_num(0).flatten(1).long()
    counts = torch.zeros(len(flat), 256, device=rows.device, dtype=rows.dtype).scatter_add_(
        1, flat, torch.ones_like(flat, dtype=rows.dtype)
    )
    used = (counts > 0).sum(1).to(rows.dtype)
    top = counts.topk(2, 1).values / flat.shape[1]
    clipped = ((levels < 3) | (levels > 252)).float().mean((1, 2))
    alike = (tiles.amax(1) - tiles.amin(1) < 1 / 510).float().mean((1, 2))
    return torch.stack([equal, (used + 1).log(), top[:, 0], top.sum(1), clipped, alike], 1)


def _zeros(coefficients: Tensor) -> Tensor:
    """1 for 0, and next to nothing for whole grey levels and more."""
    return (1 + (coefficients / _ZERO).square()).square().reciprocal()


def _waves(length: int) -> Tensor:
    """Cosines and sines of all frequencies, ``(2, length, length)`` float32."""
    place = torch.arange(length, dtype=torch.float64)
    angle = 2 * math.pi / length * place[:, None] * place
    return torch.stack([angle.cos(), angle.sin()]).float()


def _other_periods() -> Tensor:
    """Frequencies of a line that neither small factors nor an 8-pixel grid have."""
    named, grid = (_LINE // 4, _LINE // 3), [_LINE * k / 8 for k in range(5)]
    return torch.tensor([k for k in range(6, _LINE // 2) if k not in named and all(abs(k - g) > 0.75 for g in grid)])


def _spectrum_masks(side: int) -> tuple[Tensor, Tensor]:
    """Fine and middle frequencies of ``(side, side / 2 + 1)``, off the axes, where blocks and fields have lines."""
    down = torch.arange(side)
    down = torch.minimum(down, side - down)[:, None]
    across = torch.arange(side // 2 + 1)
    radius = torch.hypot(down.float(), across.float()) / side
    inside = (down > 2) & (across > 2)
    return (radius > 0.2) & inside, (radius > 0.08) & (radius <= 0.2) & inside

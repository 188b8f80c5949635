"""Isolated straight edges of an image, and how much of each frequency stands across them.

A step has the same spectrum whatever its height, and a blur that is alike on both sides leaves it odd about its
middle.  So edges that are odd about a middle of their own tell blur from content: texture, thin lines and neighbours
are not odd.  What chooses them looks at a smoothed image, or at phases, which such a blur leaves as they are.

Legend: n edges, F frequencies of :data:`FREQUENCIES`, R the reach of a window.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.images import luma

__all__ = ["FREQUENCIES", "LEAST_SIDE", "WINDOW", "edge_powers", "windows"]

#: Cycles per pixel at which an edge's spectrum is looked at.
FREQUENCIES = (0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.47)
#: Standard deviation of the Gaussian window across an edge, pixels, ...
WINDOW = 3.5
#: ... along it, and where both end.
_ALONG, _REACH = 2.5, 9
#: Of the smoothing before edges are looked for, and of the means of the structure tensor, pixels.
_SMOOTHING, _TENSOR = 1.5, 3.0
#: Least height of an edge, as the smoothed image's slope on the [0, 1] scale, and least agreement of directions.
_LEAST_SLOPE, _LEAST_COHERENCE = 0.03, 0.8
#: Share of an edge's spectrum up to the frequency number ``_ODD_UP_TO`` that is odd about its middle.
_LEAST_ODD, _ODD_UP_TO = 0.98, 7
#: An edge's middle is looked for within so many pixels of the largest slope, in steps.
_SHIFT, _SHIFT_STEP = 1.5, 0.05
#: Places of these numbers are the band that powers are relative to.
_BAND = slice(1, 3)
#: Edges of one image at most; its flattest places, whose power is the noise's, and their share of the pixels.
_MOST_EDGES, _FLAT, _FLAT_SHARE = 600, 100, 0.05
#: Median of the squared size of a complex normal number whose mean square is 1.
_MEDIAN_POWER = math.log(2)
#: Pixels: least side of an image.
LEAST_SIDE = 4 * _REACH


class _Places(NamedTuple):
    """Rows and columns ``(n,)`` of places, and the direction across the edge, radians."""

    row: Tensor
    column: Tensor
    angle: Tensor


def windows(frequencies: Tensor) -> Tensor:
    """``(F, 2 R + 1)`` float64: what a step along one dimension is multiplied with, and summed, for its odd part."""
    place = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    window = (-0.5 * (place / WINDOW).square()).exp()
    return (2 * math.pi * frequencies.double()[:, None] * place).sin() * window


def edge_powers(image: Tensor) -> Tensor:
    """Powers across the isolated edges of an image, noise taken off, relative to 0.075 to 0.1 cycles per pixel.

    Args:
        image: ``(3, H, W)`` float in [0, 1], both sides at least :data:`LEAST_SIDE`.

    Returns:
        ``(n, F)`` float32; n may be 0.  The power of noise is that of the image's own flattest places.

    Raises:
        ShapeError: another shape, or a smaller one.
    """
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < LEAST_SIDE:
        raise ShapeError(f"edge_powers: expected (3, H, W) of sides from {LEAST_SIDE}, got {tuple(image.shape)}")
    grey = luma(image[None].float())[0, 0]
    edges, flat = _places(grey)
    spectra = _spectra(grey, edges)
    noise = _spectra(grey, flat).abs().square().median(0).values / _MEDIAN_POWER
    powers = (spectra.abs().square() - noise)[_odd_share(spectra) > _LEAST_ODD]
    band = powers[:, _BAND].mean(1, keepdim=True)
    return (powers / band)[band[:, 0] > 0]


def _places(grey: Tensor) -> tuple[_Places, _Places]:
    """Tops of the slope, where one direction prevails; and places where least happens, in any direction."""
    smooth = _smoothed(grey, _SMOOTHING)
    down, right = (smooth[2:, 1:-1] - smooth[:-2, 1:-1]) / 2, (smooth[1:-1, 2:] - smooth[1:-1, :-2]) / 2
    slope = torch.hypot(down, right)
    yy, xx, xy = (_smoothed(product, _TENSOR) for product in (down * down, right * right, down * right))
    spread = torch.hypot(xx - yy, 2 * xy)
    angle = torch.atan2(2 * xy, xx - yy) / 2
    inside = torch.zeros_like(slope, dtype=torch.bool)
    inside[_REACH - 1 : 1 - _REACH, _REACH - 1 : 1 - _REACH] = True
    top = (slope >= _beside(slope, angle, 1.0)) & (slope > _beside(slope, angle, -1.0))
    edge = inside & top & (slope > _LEAST_SLOPE) & (spread > _LEAST_COHERENCE * (xx + yy))
    rows, columns = edge.nonzero(as_tuple=True)
    some = torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_EDGES)).long()
    edges = _Places(rows[some] + 1, columns[some] + 1, angle[rows[some], columns[some]])
    rows, columns = inside.nonzero(as_tuple=True)
    few = max(int(_FLAT_SHARE * len(rows)), _FLAT // 2)
    calm = (xx + yy)[rows, columns].argsort(stable=True)[:few]
    calm = calm[torch.linspace(0, len(calm) - 1, min(len(calm), _FLAT)).long()]
    turn = torch.arange(len(calm)) * (math.pi * (math.sqrt(5) - 1) / 2)  # all directions alike
    return edges, _Places(rows[calm] + 1, columns[calm] + 1, turn % math.pi)


def _spectra(grey: Tensor, places: _Places) -> Tensor:
    """``(n, F)`` complex: the windowed surroundings of each place, without their mean, along its direction."""
    reach = torch.arange(-_REACH, _REACH + 1)
    rows, columns = places.row[:, None, None] + reach[:, None], places.column[:, None, None] + reach
    pixels = grey[rows, columns]  # (n, 2 R + 1, 2 R + 1)
    cos, sin = places.angle.cos()[:, None, None], places.angle.sin()[:, None, None]
    across, along = cos * reach + sin * reach[:, None], cos * reach[:, None] - sin * reach
    window = (-0.5 * ((across / WINDOW).square() + (along / _ALONG).square())).exp()
    mean = (window * pixels).sum((1, 2), keepdim=True) / window.sum((1, 2), keepdim=True)
    wave = torch.tensor(FREQUENCIES)[:, None, None] * (2 * math.pi * across)[:, None]
    weighted = (window * (pixels - mean))[:, None]
    return torch.complex((weighted * wave.cos()).sum((2, 3)), -(weighted * wave.sin()).sum((2, 3)))


def _odd_share(spectra: Tensor) -> Tensor:
    """``(n,)``: of the power up to 0.25 cycles per pixel, each frequency counted as in a step, what is odd."""
    frequency = torch.tensor(FREQUENCIES)[:_ODD_UP_TO]
    steps = round(_SHIFT / _SHIFT_STEP)
    shift = torch.arange(-steps, steps + 1) * _SHIFT_STEP
    turn = torch.polar(torch.tensor(1.0), 2 * math.pi * shift[:, None] * frequency)  # (shifts, F)
    some, weight = spectra[:, :_ODD_UP_TO], frequency.square()
    odd = ((some[:, None] * turn).imag.square() * weight).sum(-1).amax(1)
    return odd / (some.abs().square() * weight).sum(-1).clamp(min=1e-20)


def _beside(values: Tensor, angle: Tensor, distance: float) -> Tensor:
    """Values so many pixels further along the angle, bilinear."""
    height, width = values.shape
    row = torch.arange(height)[:, None] + distance * angle.sin()
    column = torch.arange(width) + distance * angle.cos()
    grid = torch.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], -1)
    return F.grid_sample(values[None, None], grid[None], align_corners=True, padding_mode="border")[0, 0]


def _smoothed(values: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(3 * sigma)
    line = (-0.5 * (torch.arange(-reach, reach + 1) / sigma).square()).exp()
    line = line / line.sum()
    padded = F.pad(values[None, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, line[None, None, None]), line[None, None, :, None])[0, 0]

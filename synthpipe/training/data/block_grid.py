"""The grid of JPEG's 8x8 blocks in decoded images: on it, and nowhere else, most high coefficients are close to 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.images import to_float

__all__ = ["BlockGrid", "block_grid"]

_SIDE = 8
#: Coefficients from this sum of frequencies on are looked at: below, images have their own.
_HIGH = 5
#: The phase of a grid stands out from the others by so many of their standard deviations.
_CLEAR = 6.0
#: It must lie so much of that below the place half a block away.
_ALONE = 0.3
#: Added to coefficients on the 0..255 scale: rounding to bytes hides smaller ones.
_ROUNDING = 0.5
#: A side of a crop that is looked at, pixels.
_LOOKED_AT = 256


class BlockGrid(NamedTuple):
    """Blocks of ``side`` pixels, 16 where chroma has half the pixels, that begin at a row and a column."""

    side: int
    phase: tuple[int, int]


def block_grid(crops: Sequence[Tensor]) -> BlockGrid | None:
    """The grid that crops ``(3, H, W)`` uint8 share, which begin at multiples of 16 pixels of their images; or None.

    Images with grids at several places, and images that were resized after their JPEG, count as having none.
    """
    planes = [_ycc(crop[:, :_LOOKED_AT, :_LOOKED_AT]) for crop in crops]
    phase = _phase([ycc[0] for ycc in planes])
    if phase is None:
        return None
    # Chroma of half the rows, and, as cameras have it, of half the columns alone.
    halved = any(_phase([F.avg_pool2d(ycc[1:], pool)[0] for ycc in planes]) for pool in ((2, 2), (1, 2)))
    return BlockGrid(2 * _SIDE if halved else _SIDE, phase)


def _phase(planes: Sequence[Tensor]) -> tuple[int, int] | None:
    """Where blocks begin, if one place stands out."""
    scores = torch.stack([_scores(plane) for plane in planes]).mean(0)  # (8, 8): lower on a grid
    row, column = divmod(int(scores.argmin()), _SIDE)
    # Those that share its rows or columns lie in between.
    others = scores[torch.arange(_SIDE) != row][:, torch.arange(_SIDE) != column]
    depth = float(others.mean() - scores[row, column])
    if depth < _CLEAR * float(others.std().clamp(min=1e-3)):
        return None
    # Where blocks have half the side, as those of whole chroma in a plane of half its size, four places are alike.
    half = _SIDE // 2
    again = torch.roll(scores, (-half, -half), (0, 1))[row, column], scores[row, (column + half) % _SIDE]
    return (row, column) if all(float(score - scores[row, column]) > _ALONE * depth for score in again) else None


def _scores(plane: Tensor) -> Tensor:
    """Mean logarithm of the high coefficients of blocks that begin at each row and column, ``(8, 8)``."""
    place = torch.arange(_SIDE)
    waves = torch.cos(torch.pi * (place + 0.5) * place[:, None] / _SIDE) / 2
    waves[0] /= 2**0.5
    high = place[:, None] + place >= _HIGH
    height, width = (side // _SIDE * _SIDE - _SIDE for side in plane.shape)
    shifted = torch.stack([plane[y : y + height, x : x + width] for y in range(_SIDE) for x in range(_SIDE)])
    blocks = shifted.unfold(1, _SIDE, _SIDE).unfold(2, _SIDE, _SIDE)
    coefficients = (waves @ blocks @ waves.T)[..., high]
    return (coefficients.abs() + _ROUNDING).log().mean((1, 2, 3)).reshape(_SIDE, _SIDE)


def _ycc(crop: Tensor) -> Tensor:
    """Y, Cb, Cr of JFIF, ``(3, H, W)`` on the 0..255 scale."""
    rows = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return torch.einsum("yc,chw->yhw", torch.tensor(rows), 255 * to_float(crop))

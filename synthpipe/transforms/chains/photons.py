"""Counted photons: Poisson numbers as a function of normal ones, of an image that is rounded to 8 bits.

A number of the Poisson law of rate r is ``F_r^-1(Phi(w))`` for a standard normal w, F_r being the law's distribution
function.  Below :data:`_EXACT` it is looked up in a table of F_r for the 256 rates that an image of 8 bits can have.
Above it is the asymptotic expansion of Giles 2016, "Algorithm 955: Approximation of the inverse Poisson cumulative
distribution function", up to 1 / r; its numbers follow the law to 1e-4 in total variation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eight_bits", "grey_of", "levels_in", "photon_counts"]

_LEVELS = 256
#: Rates below are looked up; they hardly ever give as many photons as the table has columns, less than 1e-12.
_EXACT, _COLUMNS = 16.0, 56
_GREY = (0.299, 0.587, 0.114)


def grey_of(x: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, ``(B, 3, H, W)`` -> ``(B, 1, H, W)``."""
    red, green, blue = (x[:, channel : channel + 1] * weight for channel, weight in enumerate(_GREY))
    return red + green + blue


def eight_bits(x: Tensor) -> Tensor:
    """Whole numbers 0..255 of brightness in [0, 1], clipped, in the type of ``x``; NaN as 0."""
    return (x * (_LEVELS - 1)).round().clamp(0, _LEVELS - 1).nan_to_num(0)


def levels_in(levels: Tensor, inside: Tensor | None) -> Tensor:
    """``(B,)`` float64: the least power of 2 that is at least the number of different levels of each image.

    Args:
        levels: ``(B, C, H, W)``, whole numbers 0..255.
        inside: ``(B, 1, H, W)`` bool: pixels that count; None: all.
    """
    place = levels.to(torch.int64)
    if inside is not None:
        place = torch.where(inside, place, _LEVELS)
    met = torch.zeros(len(levels), _LEVELS + 1, dtype=torch.int64, device=levels.device)
    different = met.scatter(1, place.flatten(1), torch.ones_like(place).flatten(1))[:, :_LEVELS].sum(1)
    powers = 1 << torch.arange(8, device=levels.device)
    return torch.exp2((different[:, None] > powers).sum(1).double())


def photon_counts(levels: Tensor, photons: Tensor, white: Tensor, choose: bool = False) -> Tensor:
    """Whole numbers of the Poisson law of rate ``levels * photons / 255``, in the shape and type of ``levels``.

    Args:
        levels: ``(B, C, H, W)``, whole numbers 0..255.
        photons: ``(B,)`` float64.
        white: standard normal numbers, of the shape of ``levels``.
        choose: look up only the rates that need it, which asks the device; for one image.
    """
    rates = levels * (photons / (_LEVELS - 1)).to(levels)[:, None, None, None]
    counts = _expansion(rates.clamp(min=_EXACT), white)
    few = rates < _EXACT
    if not choose:
        return torch.where(few, _looked_up(levels.flatten(1), photons, white.flatten(1)).view_as(counts), counts)
    if bool(few.any()):
        counts[few] = _looked_up(levels[few][None], photons, white[few][None])[0]
    return counts


def _expansion(rates: Tensor, white: Tensor) -> Tensor:
    """Giles's normal asymptotic expansion, rounded down."""
    root, square = rates.sqrt(), white.square()
    first = root * white + (square + 2) / 6
    second = white * (square + 2) / (-72 * root)
    third = (square * (3 * square + 7) - 16) / (810 * rates)
    return (rates + first + second + third).floor().clamp(min=0)


def _looked_up(levels: Tensor, photons: Tensor, white: Tensor) -> Tensor:
    """``(B, N)``: how many entries of its level's row of the table a number passes."""
    columns = torch.arange(_COLUMNS, dtype=torch.float64, device=levels.device)
    rows = torch.arange(_LEVELS, dtype=torch.float64, device=levels.device)
    # Rates that are not looked up would lose their rows' tails.
    rates = (photons[:, None] * rows / (_LEVELS - 1)).clamp(max=_EXACT)[..., None]
    law = (torch.special.xlogy(columns, rates) - rates - (columns + 1).lgamma()).exp()
    table = (law.cumsum(-1).clamp(max=1) + rows[:, None]).flatten(1)
    wanted = torch.special.ndtr(white.double()) + levels
    return (torch.searchsorted(table, wanted) - levels * _COLUMNS).clamp(0, _COLUMNS).to(levels.dtype)

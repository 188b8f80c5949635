"""Counted photons: Poisson numbers as a function of normal ones, of an image that is rounded to 8 bits.

A number of the Poisson law of rate r is ``F_r^-1(Phi(w))`` for a standard normal w, F_r being the law's distribution
function.  Below :data:`_EXACT` it is looked up in a table of F_r for the 256 rates that an image of 8 bits can have.
Above it is the asymptotic expansion of Giles 2016, "Algorithm 955: Approximation of the inverse Poisson cumulative
distribution function", up to 1 / r; the distribution function of its numbers is the law's within 5e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eight_bits", "grey_of", "levels_met", "photon_counts", "photons_of_levels"]

_LEVELS = 256
#: Rates below are looked up; they hardly ever give as many photons as the table has columns, less than 1e-12.
_EXACT, _COLUMNS = 16.0, 56
_GREY = (0.2989, 0.587, 0.114)


def grey_of(x: Tensor) -> Tensor:
    """``(B, 3, H, W)`` -> ``(B, 1, H, W)``, by the weights of torchvision, as BasicSR has them."""
    red, green, blue = _GREY
    return red * x[:, 0:1] + green * x[:, 1:2] + blue * x[:, 2:3]


def eight_bits(x: Tensor) -> Tensor:
    """Whole numbers 0..255 of brightness in [0, 1], clipped, in the type of ``x``; NaN as 0."""
    return (x * (_LEVELS - 1)).round().clamp(0, _LEVELS - 1).nan_to_num(0)


def levels_met(levels: Tensor, inside: Tensor | None) -> Tensor:
    """``(B, 256)`` bool: which levels each image has.

    Args:
        levels: ``(B, C, H, W)``, whole numbers 0..255.
        inside: ``(B, 1, H, W)`` bool: pixels that count; None: all.
    """
    place = levels.to(torch.int64)
    if inside is not None:
        place = torch.where(inside, place, _LEVELS)
    met = torch.zeros(len(levels), _LEVELS + 1, dtype=torch.bool, device=levels.device)
    return met.scatter(1, place.flatten(1), True)[:, :_LEVELS]


def photons_of_levels(met: Tensor) -> Tensor:
    """``(B,)`` float64: the least power of 2 that is at least the number of levels met, ``(B, 256)`` bool."""
    powers = 1 << torch.arange(8, device=met.device)
    exponent: Tensor = (met.sum(1, keepdim=True) > powers).sum(1)
    return exponent.double().exp2()


def photon_counts(levels: Tensor, photons: Tensor, white: Tensor, alone: bool = False) -> Tensor:
    """Whole numbers of the Poisson law of rate ``levels * photons / 255``, in the shape and type of ``levels``.

    Args:
        levels: ``(B, C, H, W)``, whole numbers 0..255.
        photons: ``(B,)`` float64: what a white pixel counts on average.
        white: standard normal numbers, of the shape of ``levels``.
        alone: there is one image, and its device may be asked: what need not be looked up is not.
    """
    rates = levels * (photons / (_LEVELS - 1)).to(levels.dtype)[:, None, None, None]
    counts = _expansion(rates.clamp(min=_EXACT), white)
    few = rates < _EXACT
    if not alone:
        looked_up = _looked_up(levels.flatten(1), _tables(photons, _LEVELS), white.flatten(1))
        return torch.where(few, looked_up.view_as(counts), counts)
    places = few.flatten().nonzero()[:, 0]
    if len(places) > 0:
        tables = _tables(photons, min(_LEVELS, int(_EXACT * (_LEVELS - 1) / float(photons)) + 1))
        given, normal = (numbers.reshape(1, -1)[:, places] for numbers in (levels, white))
        counts = counts.contiguous()
        counts.view(-1)[places] = _looked_up(given, tables, normal)[0]
    return counts


def _expansion(rates: Tensor, white: Tensor) -> Tensor:
    """Giles's normal asymptotic expansion, rounded down."""
    root, square = rates.sqrt(), white.square()
    first = root * white + (square + 2) / 6
    second = white * (square + 2) / (-72 * root)
    third = (square * (3 * square + 7) - 16) / (810 * rates)
    return (rates + first + second + third).floor().clamp(min=0)


def _looked_up(levels: Tensor, tables: Tensor, white: Tensor) -> Tensor:
    """``(B, N)``: how many entries of its level's row of the table a number passes."""
    wanted = torch.special.ndtr(white.double()) + levels
    return (torch.searchsorted(tables, wanted).to(levels.dtype) - levels * _COLUMNS).clamp(0, _COLUMNS)


def _tables(photons: Tensor, rows: int) -> Tensor:
    """``(B, rows * columns)`` float64: level + probability of at most 0, 1, 2, ... photons, for each of the levels."""
    columns = torch.arange(_COLUMNS, dtype=torch.float64, device=photons.device)
    levels = torch.arange(rows, dtype=torch.float64, device=photons.device)
    # Higher rates are not looked up, and would leave their rows before 1.
    rates = (photons[:, None] * levels / (_LEVELS - 1)).clamp(max=_EXACT)[..., None]
    law: Tensor = (torch.special.xlogy(columns, rates) - rates - (columns + 1).lgamma()).exp()
    return (law.cumsum(-1).clamp(max=1) + levels[:, None]).flatten(1)

"""How irregular the flattest blocks of an image are, which tells texture from noise.

The spectrum of noise is smooth, whichever way neighbours hang together; stripes, weaves and screens have peaks in it.

Legend: N blocks, M of them measured, F = 61 frequencies, all but the three lowest.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.flat_noise.block_features import dct_blocks, parity_orders

__all__ = ["Irregularity", "block_irregularity"]

_SIDE = 8
#: Share of the blocks, flattest first, that is measured, and the fewest.
_SHARE, _FEWEST = 0.12, 12
#: Variance that rounding to 8 bits leaves in a coefficient, scale of 255.
_ROUNDING = 1 / 12
#: What chance leaves in the logarithm of a mean of squares of normal draws, times their number: 2 of independent ones;
#: the blocks overlap.
_CHANCE = 2.6
#: The same in the logarithm of a block's mean: 2 over half the frequencies, a little more as they hang together.
_CHANCE_OF_BLOCKS = 0.075
#: How far outside the waves the pole of the falling part of smooth spectra is.
_POLE = 1.2


class Irregularity(NamedTuple):
    """Mean squares of natural logarithms of power, beyond what chance leaves of noise; 0 or more."""

    #: How far the mean spectrum is from a smooth one.
    roughness: float
    #: How far the blocks differ in their power.
    unevenness: float


def block_irregularity(image: Tensor, grey: bool) -> Irregularity | None:
    """Roughness and unevenness of one image.

    Args:
        image: float ``(3, H, W)`` in [0, 1].
        grey: its channels are equal, and one says all; else it is the mean of the three.

    Returns:
        None where nearly all is clipped or there are too few blocks.
    """
    coefficients = dct_blocks(image)
    if coefficients.shape[1] < _FEWEST:
        return None
    taken = max(_FEWEST, round(_SHARE * coefficients.shape[1]))
    used, odd, _ = _frequencies()
    rough, uneven = [], []
    for plane in coefficients[:1] if grey else coefficients:
        # ``(M, 64)`` each, of the blocks that the other half of the frequencies says are flat
        even_power, odd_power = (plane[order[:taken]].double().square() for order in parity_orders(plane))
        power = torch.where(odd, odd_power, even_power)[:, used] + _ROUNDING
        mean = power.mean(0)
        rough.append(_roughness(mean) - _CHANCE / taken)
        halves = [(power / mean)[:, odd[used] == half].mean(1).log().var() for half in (False, True)]
        uneven.append(float(sum(halves)) / 2 - _CHANCE_OF_BLOCKS)
    return Irregularity(*(max(0.0, math.fsum(values) / len(values)) for values in (rough, uneven)))


def _roughness(power: Tensor) -> float:
    """Mean square distance of the logarithm of ``(F,)`` from the nearest smooth one."""
    _, _, smooth = _frequencies()
    logs = power.log()
    away = logs - smooth @ (smooth.T @ logs)
    return float(away.square().sum()) / (len(away) - smooth.shape[1])


@functools.cache
def _frequencies() -> tuple[Tensor, Tensor, Tensor]:
    """Which of the 64 are used and which are odd, ``(64,)`` bool; an orthonormal basis ``(F, 6)`` of smooth log
    spectra: constant, cosines of both frequencies and their product, and of noise whose correlation falls
    exponentially along lines."""
    place = torch.arange(_SIDE * _SIDE)
    v, u = place // _SIDE, place % _SIDE
    used = u + v > 1
    down, across = (torch.cos(math.pi * line.double() / _SIDE) for line in (v, u))
    falling = [torch.log(_POLE - wave) for wave in (down, across)]
    columns = torch.stack([torch.ones_like(down), down, across, *falling, down * across], 1)
    basis, _ = torch.linalg.qr(columns[used])
    return used, (u + v) % 2 == 1, basis

"""Spectra of noise in 16x16 DCT blocks: what they say of lags, and what shading has added to the lowest frequencies.

Legend: F = 256 frequencies of a block, vertical frequency first.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FREQUENCIES", "LAGS", "SIDE", "autocorrelation", "dct_matrix", "diagonal", "radius", "without_shading"]

#: Side of a block.
SIDE = 16
FREQUENCIES = SIDE * SIDE

#: Lags of the autocorrelation, to either side.
LAGS = 4

#: The lowest frequencies follow the trend of the next two rings, to this power and by at most this factor.
_TREND, _MOST_RISE = 0.75, 3
#: Times what the trend says that the lowest frequencies may have: grey, red against blue, green against both.
_MOST_SHARE = (1.0, 4.0, 4.0)
_OPPONENT = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))
#: The waves of less than 0.05 cycles per pixel but the mean.
_LOWEST = (1, SIDE, SIDE + 1)
#: Lags that the spectrum is explained by.
_FITTED_LAGS = 9


def without_shading(power: Tensor) -> Tensor:
    """Power ``(K, 3, 3, F)`` whose lowest frequencies do not hold more than the next ones let expect.

    Shading and texture are mostly grey: the mean of R, G and B follows the trend of the next frequencies where it lies
    above it.  In differences of colour, of which scenes have little at these wavelengths and cameras' blotches much, up
    to four times the trend is taken for noise.  The mean of a block says nothing of noise: grey gets what the trend
    says, colours rise to it as they did to the first waves.
    """
    axes = F.normalize(torch.tensor(_OPPONENT, dtype=power.dtype, device=power.device), dim=1)
    power = torch.einsum("ac,kcdf,bd->kabf", axes, power, axes)
    distance = radius()
    near = power[..., (distance > 1.9) & (distance < 2.5)].mean(-1)
    far = power[..., (distance > 2.7) & (distance < 3.4)].mean(-1)
    rise = _rise(diagonal(near), diagonal(far))  # (K, 3)
    expected = near * (rise[:, :, None] * rise[:, None]).sqrt()
    # Powers of colours come from medians, and are below 0 at times where there is no difference: nothing, then.
    known = diagonal(expected).clamp(min=0)
    allowed = rise.new_tensor(_MOST_SHARE) * (known > 0)
    waves = [diagonal(power[..., frequency]) for frequency in _LOWEST]
    shares = [(wave / known.clamp(min=1e-12)).clamp(min=0).minimum(allowed) for wave in waves]
    mean = torch.stack(shares).mean(0)
    mean = mean * _rise(mean * known, diagonal(near))
    mean[:, 0] = 1
    for frequency, share in zip((*_LOWEST, 0), (*shares, mean), strict=True):
        power[..., frequency] = expected * (share[:, :, None] * share[:, None]).sqrt()
    return torch.einsum("ac,kabf,bd->kcdf", axes, power, axes)


def _rise(low: Tensor, high: Tensor) -> Tensor:
    """From frequencies to the next lower ones, as the trend allows."""
    return (low / high.clamp(min=1e-12)).clamp(1, _MOST_RISE) ** _TREND


def diagonal(matrices: Tensor) -> Tensor:
    """``(K, 3, 3)`` -> ``(K, 3)``."""
    return matrices.diagonal(dim1=1, dim2=2)


def autocorrelation(power: Tensor) -> Tensor:
    """``(3, F)`` -> ``(3, 9, 9)``: the covariances over 0..8 rows and columns that explain the spectrum best.

    A wave u of a block has the power ``r_0 + 2 * sum_k r_k * (products of entries k apart)`` in noise of covariance r,
    exactly, so that nothing has to be known of what lies beyond the block.
    """
    waves = dct_matrix()
    products = [(waves[:, : SIDE - lag] * waves[:, lag:]).sum(1) * (2 if lag else 1) for lag in range(_FITTED_LAGS)]
    line = torch.stack(products, 1)  # (16, lags)
    basis = torch.einsum("uk,vl->uvkl", line, line).reshape(FREQUENCIES, -1)
    weight = 1 / power.clamp(min=1e-20).maximum(0.1 * power.mean(1, keepdim=True))
    # The default driver, gelsy, starts from memory that nobody has set: equal input gave other last bits.
    solved = torch.linalg.lstsq(weight[:, :, None] * basis, (weight * power)[:, :, None], driver="gelsd").solution
    lags = solved.reshape(3, _FITTED_LAGS, _FITTED_LAGS)
    away = torch.arange(-LAGS, LAGS + 1).abs()
    lags = lags[:, away][:, :, away]
    correlation: Tensor = (lags / lags[:, LAGS, LAGS, None, None].clamp(min=1e-20)).clamp(-1, 1)
    correlation[:, LAGS, LAGS] = 1.0  # of images without noise too
    return correlation


def radius() -> Tensor:
    """``(F,)``: distance of each frequency from the mean, in steps of 1/32 cycle per pixel."""
    place = torch.arange(FREQUENCIES)
    distance: Tensor = ((place // SIDE).square() + (place % SIDE).square()).sqrt()
    return distance


def dct_matrix() -> Tensor:
    """Orthonormal DCT-II, one wave in each row, float64."""
    place = torch.arange(SIDE, dtype=torch.float64)
    waves = torch.cos(math.pi * (place + 0.5) * place[:, None] / SIDE) * math.sqrt(2 / SIDE)
    waves[0] /= math.sqrt(2)
    return waves

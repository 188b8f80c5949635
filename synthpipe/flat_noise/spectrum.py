"""Spectra of noise in 16x16 DCT blocks: what they say of lags, and what shading has added to the lowest frequencies.

Legend: F = 256 frequencies of a block, vertical frequency first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FREQUENCIES", "LAGS", "SIDE", "autocorrelation", "dct_matrix", "diagonal", "radius", "without_shading"]

#: Side of a block.
SIDE = 16
FREQUENCIES = SIDE * SIDE

#: Lags of the autocorrelation, to either side.
LAGS = 4

#: The lowest frequencies follow the trend of the next two rings, to this power.
_TREND = 0.75
#: Lags that the spectrum is explained by.
_FITTED_LAGS = 9


def without_shading(power: Tensor) -> Tensor:
    """Power ``(K, 3, 3, F)`` whose lowest frequencies follow the trend of the next ones, where they lie above it.

    The mean of a block, which says nothing of noise, gets what the trend says.
    """
    distance = radius()
    near = power[..., (distance > 1.9) & (distance < 2.5)].mean(-1)
    far = power[..., (distance > 2.7) & (distance < 3.4)].mean(-1)
    rise = (diagonal(near) / diagonal(far).clamp(min=1e-12)).clamp(1, 3) ** _TREND  # (K, 3)
    expected = near * (rise[:, :, None] * rise[:, None]).sqrt()
    power = power.clone()
    for frequency in (0, 1, SIDE, SIDE + 1):
        share = diagonal(power[..., frequency]) / diagonal(expected).clamp(min=1e-12)
        share = share.clamp(0, 1) if frequency else torch.ones_like(share)
        power[..., frequency] = expected * (share[:, :, None] * share[:, None]).sqrt()
    return power


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
    solved = torch.linalg.lstsq(weight[:, :, None] * basis, (weight * power)[:, :, None]).solution
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

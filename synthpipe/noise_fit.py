"""Hand-made noise models fitted to aligned pairs: the baselines that a learned degradation has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.noise_statistics import Pair, as_planes, residual_of

__all__ = ["GaussianFit", "PoissonGaussianFit", "fit_gaussian", "fit_poisson_gaussian"]

_BLOCK = 8
#: Residuals of the regression beyond this many robust standard deviations lose weight (Huber).
_HUBER = 2.5
_ROUNDS = 50

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class GaussianFit:
    """Noise ``N(0, covariance)`` over R, G, B at each pixel, [0, 1] scale."""

    sigma: Triple
    covariance: tuple[Triple, Triple, Triple]


@dataclass(frozen=True)
class PoissonGaussianFit:
    """Noise ``N(0, a x + b)`` in each of R, G, B at brightness x, [0, 1] scale."""

    a: Triple
    b: Triple


def fit_gaussian(pairs: Iterable[Pair], mean_window: int | None = None) -> GaussianFit:
    """Maximum likelihood: covariance of R, G, B over all residual pixels about zero.

    Args:
        pairs: (noisy, reference) images as :mod:`synthpipe.noise_statistics` takes them.
        mean_window: side of the local mean to take off each residual first; None leaves residuals alone.

    Raises:
        ShapeError: no pairs, or wrong shapes.
    """
    products, pixels = torch.zeros(3, 3, dtype=torch.float64), 0
    for noisy, reference in pairs:
        values = residual_of(noisy, reference, mean_window).flatten(1)
        products += values @ values.T
        pixels += values.shape[1]
    if pixels == 0:
        raise ShapeError("fit_gaussian: expected at least one pair, got none")
    rows = [_triple(row) for row in products / pixels]
    return GaussianFit(sigma=_triple((products / pixels).diagonal().sqrt()), covariance=(rows[0], rows[1], rows[2]))


def fit_poisson_gaussian(pairs: Iterable[Pair], mean_window: int | None = None) -> PoissonGaussianFit:
    """Robust line through (brightness, residual variance) of 8x8 blocks, each channel by itself.

    Huber's weights keep blocks with misplaced edges from deciding; each block also counts by the inverse square of
    the fitted variance, since a sample variance scatters in proportion to the variance itself.

    Args:
        pairs: (noisy, reference) images, at least 9x9.
        mean_window: side of the local mean to take off each residual first; None leaves residuals alone.

    Raises:
        ShapeError: no pairs, or wrong shapes.
    """
    brightness, variance = [], []
    for noisy, reference in pairs:
        residual = residual_of(noisy, reference, mean_window)
        clean = as_planes(reference, "reference")
        brightness.append(F.avg_pool2d(clean[None], _BLOCK)[0].flatten(1))
        variance.append(F.avg_pool2d(residual.square()[None], _BLOCK)[0].flatten(1))
    if not brightness:
        raise ShapeError("fit_poisson_gaussian: expected at least one pair, got none")
    x, v = torch.cat(brightness, 1), torch.cat(variance, 1)
    lines = [_robust_line(x[c], v[c]) for c in range(3)]
    return PoissonGaussianFit(a=_triple([a for a, _ in lines]), b=_triple([b for _, b in lines]))


def _robust_line(x: Tensor, v: Tensor) -> tuple[float, float]:
    """Slope and intercept of v over x by iteratively reweighted least squares."""
    floor = max(1e-12, 1e-3 * float(v.mean()))
    huber = torch.ones_like(v)
    slope, intercept = 0.0, float(v.median())
    for _ in range(_ROUNDS):
        expected = (slope * x + intercept).clamp(min=floor)
        weight = huber / expected.square()
        total = weight.sum()
        x_mean, v_mean = float((weight * x).sum() / total), float((weight * v).sum() / total)
        spread = float((weight * (x - x_mean).square()).sum())
        # One brightness only: no slope can be told.
        slope = float((weight * (x - x_mean) * (v - v_mean)).sum()) / spread if spread > 1e-12 * float(total) else 0.0
        intercept = v_mean - slope * x_mean
        error = (v - slope * x - intercept) / (slope * x + intercept).clamp(min=floor)
        scale = max(1e-12, 1.4826 * float((error - error.median()).abs().median()))
        huber = (_HUBER * scale / error.abs().clamp(min=1e-12)).clamp(max=1)
    return slope, intercept


def _triple(values: Tensor | list[float]) -> Triple:
    r, g, b = (float(value) for value in values)
    return r, g, b

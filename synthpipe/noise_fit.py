"""Hand-made noise models fitted to aligned pairs: the baselines that a learned degradation has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.noise_statistics import Pair, as_planes, residual_of

__all__ = [
    "ColouredFit",
    "GaussianFit",
    "PoissonGaussianFit",
    "fit_coloured_noise",
    "fit_gaussian",
    "fit_poisson_gaussian",
]

_BLOCK = 8
#: Residuals of the regression beyond this many robust standard deviations lose weight (Huber).
_HUBER = 2.5
_ROUNDS = 50
#: Pixels; the correlation of camera noise, and what JPEG makes of it, is small beyond.
_LAGS = 6
_SIDE = 2 * _LAGS + 1
_GRID = 64
#: Scaled residuals beyond this are cut off: misplaced edges.
_CUT = 4.0

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


@dataclass(frozen=True)
class ColouredFit:
    """Noise of variance ``a x + b`` whose neighbours and channels are correlated, each in one way at all places."""

    a: Triple
    b: Triple
    #: Of R, G and B.
    correlation: tuple[Triple, Triple, Triple]
    #: What white noise is convolved with, ``(13, 13)``, sum of squares 1.
    kernel: tuple[tuple[float, ...], ...]


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


def fit_coloured_noise(pairs: Iterable[Pair], mean_window: int | None = None) -> ColouredFit:
    """About the best noise that can be made by hand with pairs: Poisson-Gaussian, correlated in place and colour.

    The line is that of :func:`fit_poisson_gaussian`.  Residuals over the root of it are cut off at 4, and their mean
    autocorrelation up to 6 pixels, weighted down to 0 there, gives the kernel: the square root of its spectrum.

    Args:
        pairs: (noisy, reference) images, at least 64x64.
        mean_window: side of the local mean to take off each residual first; None leaves residuals alone.

    Raises:
        ShapeError: no pairs, wrong shapes, or images that are too small.
    """
    pairs = list(pairs)
    line = fit_poisson_gaussian(pairs, mean_window)
    a, b = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (line.a, line.b))
    products, lags, pixels = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(_SIDE, _SIDE, dtype=torch.float64), 0
    for noisy, reference in pairs:
        clean = as_planes(reference, "reference")
        if min(clean.shape[1:]) < _GRID:
            raise ShapeError(f"fit_coloured_noise: expected at least {_GRID}x{_GRID} pixels, got {clean.shape[1:]}")
        scaled = residual_of(noisy, reference, mean_window) / (a * clean + b).clamp(min=1e-12).sqrt()
        scaled = scaled.clamp(-_CUT, _CUT)
        products += scaled.flatten(1) @ scaled.flatten(1).T
        lags += _autocovariance(scaled)
        pixels += scaled[0].numel()
    deviation = products.diagonal().sqrt()
    correlation = [_triple(row) for row in products / deviation / deviation[:, None]]
    kernel = _root_of(lags / lags[_LAGS, _LAGS])
    rows = tuple(tuple(map(float, row)) for row in kernel)
    return ColouredFit(line.a, line.b, (correlation[0], correlation[1], correlation[2]), rows)


def _autocovariance(x: Tensor) -> Tensor:
    """Sums over ``(C, H, W)`` of products with the neighbour at each place up to :data:`_LAGS` away."""
    height, width = x.shape[1:]
    padded = F.pad(x, (0, _LAGS, 0, _LAGS))
    spectrum = torch.fft.rfft2(padded).abs().square().sum(0)
    products = torch.fft.irfft2(spectrum, s=(height + _LAGS, width + _LAGS))
    centred: Tensor = products.roll((_LAGS, _LAGS), (0, 1))
    return centred[:_SIDE, :_SIDE]


def _root_of(autocorrelation: Tensor) -> Tensor:
    """The symmetric kernel whose autocorrelation this is, as near as one of its size comes."""
    taper = torch.hann_window(_SIDE + 2, periodic=False, dtype=torch.float64)[1:-1]
    grid = torch.zeros(_GRID, _GRID, dtype=torch.float64)
    grid[:_SIDE, :_SIDE] = autocorrelation * (taper[:, None] * taper).sqrt()
    power = torch.fft.fft2(grid.roll((-_LAGS, -_LAGS), (0, 1))).real.clamp(min=0)
    kernel = torch.fft.ifft2(power.sqrt()).real.roll((_LAGS, _LAGS), (0, 1))[:_SIDE, :_SIDE]
    scaled: Tensor = kernel / kernel.square().sum().sqrt()
    return scaled


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

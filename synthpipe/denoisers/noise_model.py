"""What a noisy pixel says, given a Gaussian prior of the clean one from its surroundings (Laine et al. 2019).

The prior of the clean pixel x is ``N(mu, S_x)``.  For additive noise of covariance ``S_n`` the noisy pixel y is
``N(mu, S_y)`` with ``S_y = S_x + S_n``; its negative log-likelihood trains the prior without clean images, and

    E[x | y] = mu + S_x S_y^-1 (y - mu) = y - S_n S_y^-1 (y - mu)

is the result.  Values of exactly 0 or 1 are saturated: all that is known of the sensor's value is that it lies beyond.
Their likelihood is the probability of that (as in Tobin's censored regression, channel by channel), and before the
posterior they are replaced by the value to be expected out there.

Legend: B batch, C channels, H, W size; everything on the [0, 1] scale.  ``y``, ``mu``: ``(B, C, H, W)``; ``prior``:
``S_x``, ``(B, C, C, H, W)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from synthpipe.denoisers.pixel_covariance import marginal_std, plus_diagonal, solve, whiten

__all__ = [
    "AdditiveNoise",
    "GaussianNoise",
    "ImpulseNoise",
    "NoiseModel",
    "PoissonNoise",
    "SignalDependentNoise",
    "noise_of",
]

#: Least brightness and least variance that a model of noise counts with.
_DARKEST = 1e-3
_LEAST_VARIANCE = 1e-6

_LOG_2PI = math.log(2 * math.pi)


class NoiseModel(ABC):
    """How noise turns a clean pixel into a noisy one; parameters are ``(B,)``, one for each image."""

    @abstractmethod
    def nll(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``(B, H, W)``, nats: minus the log-likelihood of the noisy pixels' colours."""

    @abstractmethod
    def posterior_mean(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``(B, C, H, W)``: the expected clean colours, given the noisy ones."""


class AdditiveNoise(NoiseModel):
    """Gaussian noise of its own variance in each pixel, uncorrelated between channels."""

    #: Whether a value of exactly 0 or 1 means that it was cut off there.
    saturates: bool = True

    @abstractmethod
    def variance(self, mu: Tensor) -> Tensor:
        """``(B, C, H, W)``, where the clean image is about ``mu``."""

    def nll(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``(B, H, W)``, nats; where a channel is saturated, of the channels one by one, each by its chance to be."""
        total = plus_diagonal(prior, self.variance(mu))
        white, logdet = whiten(total, y - mu)
        nll = 0.5 * (white.square().sum(1) + logdet + y.shape[1] * _LOG_2PI)
        if not self.saturates:
            return nll
        side = _saturation(y)
        cut = (side != 0).any(1)
        if not bool(cut.any()):
            return nll
        std = marginal_std(total).clamp(min=_DARKEST)
        free = 0.5 * (((y - mu) / std).square() + _LOG_2PI) + std.log()
        beyond = -torch.special.log_ndtr(side * (mu - y) / std)
        return torch.where(cut, torch.where(side == 0, free, beyond).sum(1), nll)

    def posterior_mean(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``y - S_n S_y^-1 (y - mu)``, ``(B, C, H, W)``, saturated values first replaced by their expectation."""
        variance = self.variance(mu)
        total = plus_diagonal(prior, variance)
        if self.saturates:
            y = _beyond_saturation(y, mu, marginal_std(total))
        # The same as mu + S_x S_y^-1 (y - mu), but errors of a nearly singular S_y are met by as little noise.
        return y - variance * solve(total, y - mu)


@dataclass(frozen=True)
class GaussianNoise(AdditiveNoise):
    """Of one standard deviation.

    Args:
        sigma: ``(B,)``, or ``(B, C)`` with one for each channel.
        saturates: whether a value of exactly 0 or 1 means that it was cut off there.
    """

    sigma: Tensor
    saturates: bool = True

    def variance(self, mu: Tensor) -> Tensor:
        """``sigma^2``, ``(B, C, H, W)``, whatever ``mu``."""
        return _of_images(self.sigma, mu).square().expand_as(mu)


@dataclass(frozen=True)
class PoissonNoise(AdditiveNoise):
    """``Poisson(lam * x) / lam``, as Gaussian noise of variance ``mu / lam``; zeros are counts like others."""

    lam: Tensor
    saturates = False

    def variance(self, mu: Tensor) -> Tensor:
        """``max(mu, 0.001) / lam``, ``(B, C, H, W)``."""
        return mu.clamp(min=_DARKEST) / _of_images(self.lam, mu)


@dataclass(frozen=True)
class SignalDependentNoise(AdditiveNoise):
    """Of variance ``a * x + b`` at brightness x.

    Args:
        a: ``(B,)``, or ``(B, C)`` with one for each channel.
        b: likewise.
    """

    a: Tensor
    b: Tensor

    def variance(self, mu: Tensor) -> Tensor:
        """``a mu + b``, ``(B, C, H, W)``, at least 1e-6."""
        a, b = _of_images(self.a, mu), _of_images(self.b, mu)
        return (a * mu.clamp(0, 1) + b).clamp(min=_LEAST_VARIANCE)


@dataclass(frozen=True)
class ImpulseNoise(NoiseModel):
    """A share ``alpha`` of the pixels replaced by uniformly drawn colours.

    The likelihood is that of a Gaussian with the moments of the mixture; the posterior is exact.
    """

    alpha: Tensor

    def nll(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``(B, H, W)``, nats, of a Gaussian with the mean and covariance of the mixture."""
        alpha = _of_images(self.alpha, mu)
        mean = 0.5 * alpha + (1 - alpha) * mu
        outer, alpha = mu[:, :, None] * mu[:, None], alpha[:, None]
        uniform = torch.full_like(prior, 0.25)
        second = alpha * plus_diagonal(uniform, torch.full_like(mu, 1 / 12)) + (1 - alpha) * (prior + outer)
        total = second - mean[:, :, None] * mean[:, None]
        white, logdet = whiten(total, y - mean)
        return 0.5 * (white.square().sum(1) + logdet + y.shape[1] * _LOG_2PI)

    def posterior_mean(self, y: Tensor, mu: Tensor, prior: Tensor) -> Tensor:
        """``mu + w (y - mu)``, ``(B, C, H, W)``, with w the chance that the pixel was left alone."""
        alpha = _of_images(self.alpha, mu)
        white, logdet = whiten(prior, y - mu)
        log_density = -0.5 * (white.square().sum(1, keepdim=True) + logdet[:, None] + y.shape[1] * _LOG_2PI)
        untouched = torch.sigmoid(torch.log1p(-alpha) - alpha.log() + log_density)  # (B, 1, H, W)
        return mu + untouched * (y - mu)


def noise_of(truth: dict[str, Tensor]) -> NoiseModel:
    """The model of noise whose parameters :func:`synthpipe.transforms.training_noise.add_noise` gave."""
    if "alpha" in truth:
        return ImpulseNoise(truth["alpha"])
    if "lam" in truth:
        return PoissonNoise(truth["lam"])
    if "a" in truth:
        return SignalDependentNoise(truth["a"], truth["b"])
    return GaussianNoise(truth["sigma"])


def _of_images(parameter: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` or ``(B, C)`` as ``(B, 1 or C, 1, 1)``."""
    return parameter.to(like).reshape(len(parameter), -1, 1, 1)


def _saturation(y: Tensor) -> Tensor:
    """1 where a value was cut off at the top, -1 where at the bottom, else 0."""
    return (y == 1).to(y) - (y == 0).to(y)


def _beyond_saturation(y: Tensor, mu: Tensor, std: Tensor) -> Tensor:
    """``y`` with saturated values replaced by their expectation: the mean of a normal number beyond a bound."""
    side = _saturation(y)
    z = side * (mu - y) / std.clamp(min=_DARKEST)
    hazard = torch.exp(-0.5 * (z.square() + _LOG_2PI) - torch.special.log_ndtr(z))
    return torch.where(side == 0, y, mu + side * std * hazard)

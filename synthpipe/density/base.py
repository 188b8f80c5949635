"""The contract of density estimators and the loss that trains them.

Bigdeli, Lin, Portenier, Dunbar, Zwicker, "Learning Generative Models using Denoising Density Estimators",
arXiv 2001.02728.  ``p_sigma`` is the data's density smoothed by Gaussian noise of standard deviation ``sigma``.  The
optimal denoiser is ``y + sigma^2 grad log p_sigma(y)`` (Miyasawa, Tweedie), so a scalar network whose gradient
denoises optimally is ``log p_sigma`` up to a constant.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError

__all__ = ["LEVEL_TERMS", "DensityEstimator", "dde_loss", "level_place", "level_terms"]

#: Powers of the (scaled) logarithm of sigma that networks on images are linear in, layer by layer.
LEVEL_TERMS = 4

_Log = TypeVar("_Log", float, Tensor)


class DensityEstimator(nn.Module, ABC):
    """``S(y, sigma)``, an estimate of ``log p_sigma(y)`` up to one constant for each ``sigma``.

    A subclass MUST

    * be twice differentiable in ``y`` (smooth activations): training takes the gradient of a gradient;
    * treat the samples of a batch independently: no normalisation over the batch;
    * carry ``config`` (its constructor's arguments, plain types) and ``size_multiple``.

    Values for different ``sigma``, dimensions, or separately trained networks differ by unknown constants and MUST
    NOT be compared or added; :mod:`synthpipe.density.normalizer` gives what can be compared.
    """

    config: dict[str, object]
    size_multiple: int = 1

    @abstractmethod
    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        """``S(y, sigma)`` in nats, up to a constant; higher is denser.

        Args:
            y: ``(B, ...)``, points or images.
            sigma: ``(B,)``, standard deviation of the smoothing on the scale of ``y``.
            domain: ``(B,)`` int64, where the estimator models several domains; None is the first.

        Returns:
            ``(B,)``.
        """

    def score(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None, *, create_graph: bool = False) -> Tensor:
        """``grad_y S(y, sigma)``, of the shape of ``y`` ``(B, ...)``.

        Args:
            y, sigma, domain: as in :meth:`log_density`.
            create_graph: keep what is needed to differentiate the result (training).
        """
        # A gradient is needed whatever the caller has turned off; tensors made in inference mode have to be copied.
        with torch.inference_mode(False), torch.enable_grad():
            if not (create_graph and y.requires_grad):
                y = y.detach().clone().requires_grad_(True)
            sigma = sigma.clone() if sigma.is_inference() else sigma
            total = self.log_density(y, sigma, domain).sum()
            (gradient,) = torch.autograd.grad(total, y, create_graph=create_graph)
        return gradient

    def denoise(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        """``E[x | y]`` as the density sees it, ``y + sigma^2 grad S``; of the shape of ``y`` ``(B, ...)``."""
        return y + _expand(sigma, y) ** 2 * self.score(y, sigma, domain)


def dde_loss(model: DensityEstimator, x: Tensor, sigma: Tensor, noise: Tensor, domain: Tensor | None = None) -> Tensor:
    """The scale-free loss ``J = || sigma grad S(x + sigma e) + e ||^2 / d`` of each sample.

    ``J`` is 1 for a constant ``S``; its floor is ``1 - sigma^2 E||grad log p_sigma||^2 / d``, the mean squared error
    of the best denoiser over ``sigma^2``, so it compares over noise levels, dimensions and data sets.

    Args:
        model: the estimator.
        x: ``(B, ...)`` clean data.
        sigma: ``(B,)``.
        noise: ``e``, standard normal, of the shape of ``x``.
        domain: ``(B,)`` int64 or None.

    Returns:
        ``(B,)``, differentiable in the parameters.

    Raises:
        ShapeError: ``noise`` or ``sigma`` do not fit ``x``.
    """
    if noise.shape != x.shape or sigma.shape != x.shape[:1]:
        raise ShapeError(
            f"dde_loss: expected noise of shape {tuple(x.shape)} and sigma of shape ({len(x)},), got "
            f"{tuple(noise.shape)} and {tuple(sigma.shape)}"
        )
    scale = _expand(sigma, x)
    gradient = model.score(x + scale * noise, sigma, domain, create_graph=True)
    return (scale * gradient + noise).flatten(1).square().mean(1)


def level_place(log_sigma: _Log, sigma_range: Sequence[float]) -> _Log:
    """Where a noise level lies in a network's range, on a logarithmic scale: -1 at the lowest, 1 at the highest.

    Args:
        log_sigma: natural logarithm of the level, a number or ``(B,)``.
        sigma_range: lowest and highest level; where they are equal, that level is at 0.
    """
    low, high = (math.log(level) for level in sigma_range)
    return (2 * log_sigma - low - high) / max(high - low, 1e-6)


def level_terms(sigma: Tensor, sigma_range: Sequence[float]) -> Tensor:
    """The first powers of :func:`level_place`, from 0 on; ``(B,)`` -> ``(B, LEVEL_TERMS)``."""
    place = level_place(sigma.log(), sigma_range)
    return torch.stack([place**power for power in range(LEVEL_TERMS)], 1)


def _expand(sigma: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` -> ``(B, 1, ...)`` with as many dimensions as ``like``."""
    return sigma.reshape(-1, *([1] * (like.ndim - 1)))

"""Synthetic noise for training denoisers: drawn for each image from its own generator, never clipped or rounded.

Clipped noise has another mean near black and white, which breaks every loss that knows the noise's distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.noise import (
    GaussianTrainingNoise,
    ImpulseTrainingNoise,
    PoissonTrainingNoise,
    SignalDependentTrainingNoise,
    TrainingNoise,
)

__all__ = ["add_noise"]


@torch.no_grad()
def add_noise(
    x: Tensor, options: TrainingNoise, generators: Sequence[torch.Generator]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Noisy images and what is true of their noise.

    Args:
        x: clean images ``(B, C, H, W)`` in [0, 1], floating-point.
        options: the kind of noise.
        generators: one CPU generator for each image.

    Returns:
        Images of the shape of ``x``, which leave [0, 1]; and ``(B,)`` each: ``sigma`` always (the standard deviation,
        over all pixels of the image where it depends on them), with ``lam``, ``a`` and ``b``, or ``alpha``.
    """
    match options:
        case GaussianTrainingNoise():
            sigma = _uniform(options.sigma, generators, x)
            noise = torch.stack([_gaussian(x[0], options.binomial, generator) for generator in generators]).to(x)
            return x + sigma[:, None, None, None] * noise, {"sigma": sigma}
        case PoissonTrainingNoise():
            return _with_poisson(x, _uniform(options.lam, generators, x), generators)
        case SignalDependentTrainingNoise():
            a, b = _uniform(options.a, generators, x), _uniform(options.b, generators, x)
            noise = torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators]).to(x)
            variance = a[:, None, None, None] * x + b[:, None, None, None]
            return x + variance.sqrt() * noise, {"sigma": variance.flatten(1).mean(1).sqrt(), "a": a, "b": b}
        case ImpulseTrainingNoise():
            return _with_impulses(x, _uniform(options.alpha, generators, x), generators)
        case _:
            assert_never(options)


def _with_poisson(x: Tensor, lam: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, dict[str, Tensor]]:
    counts = [torch.poisson((k * i).cpu(), generator) for k, i, generator in zip(lam, x, generators, strict=True)]
    sigma = (x.flatten(1).mean(1) / lam).sqrt()
    return torch.stack(counts).to(x) / lam[:, None, None, None], {"sigma": sigma, "lam": lam}


def _with_impulses(x: Tensor, alpha: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, dict[str, Tensor]]:
    hit = torch.stack([torch.rand(1, *x.shape[2:], generator=generator) for generator in generators]).to(x)
    colour = torch.stack([torch.rand(x.shape[1:], generator=generator) for generator in generators]).to(x)
    noisy = torch.where(hit < alpha[:, None, None, None], colour, x)
    return noisy, {"sigma": (noisy - x).flatten(1).square().mean(1).sqrt(), "alpha": alpha}


def _uniform(bounds: tuple[float, float], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    low, high = bounds
    draws = torch.cat([torch.rand(1, generator=generator) for generator in generators])
    return (low + (high - low) * draws).to(like)


def _gaussian(like: Tensor, binomial: int, generator: torch.Generator) -> Tensor:
    """Unit-variance noise ``(C, H, W)``, filtered ``binomial`` times; stationary up to the border."""
    channels, height, width = like.shape
    noise = torch.randn(channels, 1, height + 2 * binomial, width + 2 * binomial, generator=generator)
    line = torch.tensor([0.25, 0.5, 0.25])
    # The response to one pixel gives the gain in variance: each pass is separable, so it is a square of one line's.
    response = torch.ones(1, 1, 1)
    for _ in range(binomial):
        noise = F.conv2d(F.conv2d(noise, line.view(1, 1, 3, 1)), line.view(1, 1, 1, 3))
        response = F.conv1d(response, line.view(1, 1, 3), padding=2)
    return noise[:, 0] / response.square().sum()

"""Images of known noise: sigma by brightness, correlation of neighbours and of channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Recipe", "flat_images", "with_noise"]


@dataclass(frozen=True)
class Recipe:
    """Sigma of 255 is ``base + slope * brightness``; the kernel's taps beside 1; correlation of any two channels."""

    base: float = 3.0
    slope: float = 4.0
    tap: float = 0.5
    channels: float = 0.5

    @property
    def lag1(self) -> float:
        """Of white noise through ``(tap, 1, tap)``: ``2 tap / (1 + 2 tap^2)``."""
        return 2 * self.tap / (1 + 2 * self.tap**2)


def flat_images(count: int, seed: int, side: int = 192) -> list[Tensor]:
    """Squares of one colour, 48 pixels wide, the images from dark to bright; ``(3, side, side)``, of 8 bits.

    A photograph has a thousand blocks of like brightness; so do these, as squares of one image differ little.
    """
    draws = torch.Generator().manual_seed(seed)
    means = torch.linspace(0.12, 0.88, count)[:, None, None, None]
    squares = means + 0.04 * (torch.rand(count, 3, side // 48, side // 48, generator=draws) - 0.5)
    whole = squares.repeat_interleave(48, 2).repeat_interleave(48, 3)
    return list((255 * whole).round() / 255)


def with_noise(images: list[Tensor], recipe: Recipe, seed: int, factor: float = 1.0) -> list[Tensor]:
    """The images with noise, of 8 bits."""
    draws = torch.Generator().manual_seed(seed)
    noisy = []
    for image in images:
        own, shared = (torch.randn(n, *image.shape[1:], generator=draws) for n in (3, 1))
        field = math.sqrt(1 - recipe.channels) * own + math.sqrt(recipe.channels) * shared
        line = torch.tensor([recipe.tap, 1.0, recipe.tap])
        kernel = line[:, None] * line / (1 + 2 * recipe.tap**2)
        field = F.conv2d(F.pad(field[:, None], (1, 1, 1, 1), mode="circular"), kernel[None, None])[:, 0]
        sigma = (recipe.base + recipe.slope * image.mean(0)) / 255
        noisy.append((255 * (image + factor * sigma * field).clamp(0, 1)).round() / 255)
    return noisy

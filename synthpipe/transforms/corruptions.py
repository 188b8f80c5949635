"""Synthetic corruptions of clean images: what scraped corpora carry, for fitting and checking a quality score.

Four families over the range from hardly visible to severe, and drawn pictures in place of the photograph.  They stand
for the degraded domain where a user has no noisy set of their own, and calibrate the score on the user's clean set;
nothing here makes training pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.dde import Family
from synthpipe.errors import OptionError, ShapeError
from synthpipe.images import check_images, quantize_8bit
from synthpipe.transforms.graphics import draw_page, draw_screen
from synthpipe.transforms.jpeg import jpeg_round_trip

__all__ = ["FAMILIES", "Corruption", "corrupt", "draw_corruption"]

#: Strength of each family, drawn log-uniformly between the two.
_STRENGTHS: dict[Family, tuple[float, float]] = {
    "jpeg": (4.0, 90.0),  # libjpeg quality
    "blur": (0.5, 3.0),  # standard deviation of a Gaussian, pixels
    "upscale": (1.4, 4.0),  # factor of reduction before enlargement
    "noise": (2.5, 40.0),  # standard deviation on the 0..255 scale
    "screen": (1.0, 1.0),  # all or nothing
    "page": (1.0, 1.0),
}
#: All families, as the options name them.
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Corruption:
    """One corruption, drawn.

    Attributes:
        family: one of :data:`FAMILIES`.
        strength: in the family's unit (quality, pixels, factor, grey levels).
        variant: in [0, 1); decides the filter of an enlargement and the kind of noise.
        seed: of noise and drawings.
    """

    family: Family
    strength: float
    variant: float
    seed: int


def draw_corruption(family: Family, generator: torch.Generator) -> Corruption:
    """Draw strength and variant of ``family`` from ``generator``.

    Raises:
        OptionError: unknown family.
    """
    if family not in _STRENGTHS:
        raise OptionError(f"unknown corruption {family!r}; known: {list(FAMILIES)}")
    low, high = _STRENGTHS[family]
    u, variant = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return Corruption(family, low * (high / low) ** u, variant, seed)


def corrupt(x: Tensor, corruptions: Sequence[Corruption]) -> Tensor:
    """Corrupt each image and round it to 8 bits, as a file would hold it.

    Args:
        x: ``(B, 3, H, W)`` float32 in [0, 1].
        corruptions: one for each image.

    Returns:
        ``(B, 3, H, W)`` float32 in [0, 1].

    Raises:
        ShapeError: as many corruptions as images were expected, or no images.
        OptionError: a family that does not exist.
    """
    check_images(x, "corrupt")
    if len(corruptions) != len(x):
        raise ShapeError(f"corrupt: expected {len(x)} corruptions, one for each image, got {len(corruptions)}")
    out = torch.empty_like(x)
    jpeg = [place for place, corruption in enumerate(corruptions) if corruption.family == "jpeg"]
    if jpeg:
        quality = torch.tensor([round(corruptions[place].strength) for place in jpeg], device=x.device)
        out[jpeg] = jpeg_round_trip(x[jpeg], quality)
    for place, corruption in enumerate(corruptions):
        if corruption.family != "jpeg":
            out[place] = _one(x[place : place + 1], corruption)[0]
    return quantize_8bit(out)


def _one(x: Tensor, corruption: Corruption) -> Tensor:
    """One image ``(1, 3, H, W)``, of any family but JPEG, which goes in batches."""
    generator = torch.Generator().manual_seed(corruption.seed)
    match corruption.family:
        case "blur":
            return _blur(x, corruption.strength)
        case "upscale":
            return _enlarged(x, corruption.strength, "bicubic" if corruption.variant < 0.7 else "bilinear")
        case "noise":
            return _noisy(x, corruption, generator)
        case "screen":
            return draw_screen(x.shape[2], x.shape[3], generator).to(x)[None]
        case "page":
            return draw_page(x.shape[2], x.shape[3], generator).to(x)[None]
        case _:
            raise OptionError(f"corrupt: unknown corruption {corruption.family!r}; known: {list(FAMILIES)}")


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    places = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(x, kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(x, kernel[..., None], groups=x.shape[1])


def _enlarged(x: Tensor, factor: float, mode: str) -> Tensor:
    size = x.shape[-2:]
    small = [max(round(side / factor), 1) for side in size]
    reduced = F.interpolate(x, size=small, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return F.interpolate(reduced, size=size, mode=mode, align_corners=False).clamp(0, 1)


def _noisy(x: Tensor, corruption: Corruption, generator: torch.Generator) -> Tensor:
    # Drawn on the CPU: the same noise on every device.
    grey = corruption.variant < 0.3
    noise = torch.randn(1, 1 if grey else x.shape[1], *x.shape[2:], generator=generator).to(x)
    if corruption.variant > 0.65:  # neighbouring pixels share noise, as after demosaicing
        noise = _blur(noise.expand_as(x), 0.6)
        noise = noise / noise.std()
    return x + corruption.strength / 255 * noise

"""What one of two unpaired piles is like, beside what the comparison of both says: how many, how large, how noisy."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from synthpipe.flat_noise import noise_level
from synthpipe.images import to_float
from synthpipe.training.data.block_grid import block_grid

__all__ = ["PileSide", "measure_side"]

#: Bright areas say most of the light's colour: the power of the mean (Finlayson & Trezzi 2004, "Shades of gray").
_SHADES = 6
_DARKEST = 1 / 255
#: Mean difference between the largest and the least of a pixel's channels, of 1: below it a crop has no colour.
_COLOUR = 0.75 / 255


@dataclass(frozen=True)
class PileSide:
    """One pile, by the crops that were looked at."""

    images: int
    megapixels: float
    #: Shorter side of the middle image by this, pixels; and images that are passed over because theirs is below 64.
    short_side: int
    too_small: int
    #: Files that turned out unreadable when they were looked at; some may be among ``images``.
    unreadable: int
    #: Images of more pixels than are let through.
    too_large: int
    #: What lay beside the images and was not read, by suffix or reason.
    passed_over: dict[str, int]
    #: Sigma of 255 on flat areas: that of the crop at the first decile, as texture may raise those above.
    level: float | None
    #: Natural logarithm of red and of blue over green in the bright areas, and the standard errors of both.
    cast: tuple[float, float]
    cast_error: tuple[float, float]
    #: Share of the crops that are grey.
    grey: float
    #: Brightness of [0, 1] below which 5%, 50% and 95% of the pixels lie.
    brightness: tuple[float, float, float]
    #: Side of the JPEG blocks that start at the images' corners; None where there are none.
    grid: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and ``None``: what JSON can hold."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@torch.no_grad()
def measure_side(
    crops: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    skipped: Mapping[str, int] | None = None,
    passed_over: Mapping[str, int] | None = None,
) -> PileSide:
    """Measure a pile.

    Args:
        crops: ``(3, H, W)`` uint8, at least one, that begin at multiples of 16 pixels of their images.
        sizes: height and width of every image that can be used, at least one.
        skipped: images that cannot, by the reason of :class:`synthpipe.errors.ImageError`; of those that cannot be
            read, the ones that were tried.
        passed_over: what lies beside the images, by suffix or reason.
    """
    reasons = Counter(skipped or {})
    levels = sorted(255 * level for level in map(noise_level, crops) if level is not None)
    casts = torch.stack([_cast(crop) for crop in crops])
    spread = casts.std(0) if len(crops) > 1 else torch.full((2,), math.inf)
    error = (spread / math.sqrt(len(crops))).tolist()
    mean = casts.mean(0).tolist()
    places = torch.tensor([0.05, 0.5, 0.95])
    shades = torch.cat([to_float(crop).mean(0).flatten()[::61] for crop in crops]).quantile(places).tolist()
    grid = block_grid(crops)
    return PileSide(
        images=len(sizes),
        megapixels=sum(height * width for height, width in sizes) / 1e6,
        short_side=round(statistics.median(min(size) for size in sizes)),
        too_small=reasons["too_small"],
        unreadable=reasons.total() - reasons["too_small"] - reasons["bomb"],
        too_large=reasons["bomb"],
        passed_over=dict(passed_over or {}),
        level=levels[len(levels) // 10] if levels else None,
        cast=(mean[0], mean[1]),
        cast_error=(error[0], error[1]),
        grey=sum(map(_is_grey, crops)) / len(crops),
        brightness=(shades[0], shades[1], shades[2]),
        grid=None if grid is None or grid.phase != (0, 0) else grid.side,
    )


def _is_grey(crop: Tensor) -> bool:
    """Whether R, G and B are the same, but for what coding of colour leaves."""
    channels = to_float(crop)
    return float((channels.amax(0) - channels.amin(0)).mean()) < _COLOUR


def _cast(crop: Tensor) -> Tensor:
    """``(2,)``: logarithms of red and of blue over green."""
    channels = to_float(crop).double().flatten(1).clamp(min=_DARKEST)
    means = channels.pow(_SHADES).mean(1).log() / _SHADES
    return torch.stack([means[0] - means[1], means[2] - means[1]])

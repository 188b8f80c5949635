"""The noise of one photograph, without a reference: its level by channel, and how it hangs together.

:func:`estimate_noise` is a regression on energies of DCT bands in the flattest blocks of the image
(:mod:`synthpipe.flat_noise.block_features`, :mod:`synthpipe.flat_noise.regression`).  Small textured pictures have no
block that is flat: what texture leaves there is learned from photographs with simulated noise, coloured and as cameras
and codecs leave it, and from crops of real pairs; ``recipes/noise_levels`` fits it and says how right it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise.block_features import block_features
from synthpipe.flat_noise.flat_blocks import check_values
from synthpipe.flat_noise.grain import grain_probability, texture_probability
from synthpipe.flat_noise.irregularity import block_irregularity
from synthpipe.flat_noise.regression import FLOOR, QUADRANT, load_coefficients, regress, standardised

__all__ = ["NoiseEstimate", "estimate_noise"]

#: Shorter sides than this are too few blocks.
_LEAST_SIDE = 16
#: Certainty is the probability that the level is within this of the truth, as a logarithm.
_CERTAIN_WITHIN = 0.15
#: Sides of tiles, and how many tiles at most.
_TILE, _LARGEST_TILE, _MOST_TILES = 330, 512, 16
#: Above this, scale of 255, where simulated noise ended, an image is measured at half its contrast.
_STRONGEST = 45.0
#: Channels that differ by no more than this in any pixel are equal but for rounding to 8 bits.
_EQUAL = 1.01 / 255


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of one image; standard deviations on the [0, 1] scale, tensors float64 on the CPU."""

    #: ``(3,)``: standard deviation of R, G, B.
    sigma: Tensor
    #: One number: root mean square of ``sigma``.
    level: float
    #: Correlation of neighbours, horizontally and vertically, mean of the channels.
    lag1: tuple[float, float]
    #: ``(3, 9, 9)``: correlation of a channel with itself, displaced by -4..4 rows and columns; the middle is 1.
    autocorrelation: Tensor
    #: ``(3,)``: correlation of R with G, G with B, R with B in one pixel.
    channel_correlation: Tensor
    #: 0 to 1: probability that the level is within 15%, as the fit expects it of images like this one; of images with
    #: next to no noise it is low.
    certainty: float
    #: 0 to 1: probability that weak noise which neighbours share is the photograph's own, as film, scan and fine
    #: texture leave it, and none that a camera added; says nothing of white noise and of strong noise.
    grain: float = 0.0
    #: Whether the channels of the image are equal, so that all noise is the same in them.
    grey: bool = False
    #: 0 or more: how far the spectrum of the flattest blocks is from a smooth one, as the mean square of natural
    #: logarithms of power beyond chance: below 0.2 of most noise, coded or not, above 0.4 of most regular textures.
    roughness: float = 0.0
    #: 0 or more: how far the flattest blocks differ in their power, in the same units: below 0.1 of noise that is the
    #: same everywhere, more of coded noise and of texture.
    unevenness: float = 0.0
    #: 0 to 1: of grey images, probability that strong noise is texture; says nothing of weak noise, and 0 of colour.
    texture: float = 0.0

    @property
    def error(self) -> float:
        """How far the level is expected to be off, as a natural logarithm: what ``certainty`` follows from."""
        return -_CERTAIN_WITHIN / math.log1p(-min(self.certainty, 0.999))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: what JSON can hold."""
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(self).items()}


@torch.no_grad()
def estimate_noise(image: Tensor) -> NoiseEstimate | None:
    """Level, autocorrelation and correlation of channels of the noise in one image.

    Sigma is the noise's as it is found in the unclipped parts of this image, its brightnesses as they are (``level`` of
    :class:`~synthpipe.flat_noise.FlatNoise` weights middle brightnesses most).

    Args:
        image: ``(3, H, W)`` or, grey, ``(1, H, W)``; uint8 or float in [0, 1].  Values beyond, as unclipped noise and
            resizing leave them, are taken as they are: with them cut off, strong noise would be read too weak.

    Returns:
        None where nothing can be said: nearly all is clipped, or a side is shorter than 16 pixels.  Below 64x64 pixels
        the figures are rough.

    Raises:
        ShapeError: another shape or scale, NaN.

    >>> import torch
    >>> from synthpipe.flat_noise import estimate_noise
    >>> found = estimate_noise(0.5 + 0.05 * torch.randn(3, 96, 96))
    >>> bool(abs(found.level - 0.05) < 0.01)
    True
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ShapeError(
            f"estimate_noise: expected one image (3, H, W), or grey (1, H, W), got {tuple(image.shape)}; give the "
            "images of a batch one by one"
        )
    check_values(image)
    if min(image.shape[1:]) < _LEAST_SIDE:
        return None
    x = (image.float() / 255 if image.dtype == torch.uint8 else image.float()).cpu()
    grey = float((x.amax(0) - x.amin(0)).max()) <= _EQUAL
    x = (x.mean(0, keepdim=True) if grey else x).expand(3, -1, -1)
    found = _estimate(x, grey)
    if found is not None and found.level * 255 > _STRONGEST:
        half = _estimate(x / 2 + 0.25, grey)
        found = found if half is None else replace(half, sigma=2 * half.sigma, level=2 * half.level)
    return found


def _estimate(x: Tensor, grey: bool) -> NoiseEstimate | None:
    """Of float ``(3, H, W)``: covariances are means of those of its tiles, whose brightness and texture differ less."""
    tiles = list(_tiles(x))
    features = [found for found in map(block_features, tiles) if found is not None]
    if not features:
        return None
    by = load_coefficients(grey)
    measured = torch.stack(features)
    told = regress(standardised(measured, by), by)
    variance = ((told.log_sigma.double().exp() - FLOOR) / 255).clamp(min=0).square()  # (tiles, 3)
    weight = variance + 1e-12
    lags = ((weight[:, :, None, None] * told.lags).sum(0) / weight.sum(0)[:, None, None]).clamp(-1, 1)
    others = (weight.mean(1, keepdim=True) * told.others).sum(0) / weight.mean(1).sum()
    away = torch.arange(1 - QUADRANT, QUADRANT).abs()
    mean = lags.mean(0)
    irregular = [found for tile in tiles if (found := block_irregularity(tile, grey)) is not None]
    roughness, unevenness = torch.tensor(irregular, dtype=torch.float64).mean(0).tolist()
    sigma = variance.mean(0).sqrt()
    return NoiseEstimate(
        sigma=sigma,
        level=math.sqrt(float(sigma.square().mean())),
        lag1=(float(mean[0, 1]), float(mean[1, 0])),
        autocorrelation=lags[:, away][:, :, away],
        channel_correlation=torch.ones_like(others) if grey else _possible(others),
        certainty=1 - math.exp(-_CERTAIN_WITHIN / math.exp(float(told.log_error.mean()))),
        grain=grain_probability(standardised(measured, load_coefficients())),
        grey=grey,
        roughness=roughness,
        unevenness=unevenness,
        texture=texture_probability(standardised(measured, by)) if grey else 0.0,
    )


def _tiles(x: Tensor) -> Iterator[Tensor]:
    """Tiles of 220 to 500 pixels: all, or 16 that are spread over a large image."""
    rows, columns = (max(1, round(side / _TILE)) for side in x.shape[1:])
    while rows * columns > _MOST_TILES:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    tall, wide = (min(side // count, _LARGEST_TILE) for side, count in zip(x.shape[1:], (rows, columns), strict=True))
    for row in range(rows):
        for column in range(columns):
            top = int((row + 0.5) * x.shape[1] / rows - tall / 2)
            left = int((column + 0.5) * x.shape[2] / columns - wide / 2)
            yield x[:, top : top + tall, left : left + wide]


def _possible(others: Tensor) -> Tensor:
    """Correlations GB, RB, RG, told one by one, as RG, GB, RB that three channels can have together."""
    matrix = torch.eye(3, dtype=others.dtype)
    for (a, b), value in zip(((1, 2), (0, 2), (0, 1)), others, strict=True):
        matrix[a, b] = matrix[b, a] = value
    values, vectors = torch.linalg.eigh(matrix)
    matrix = (vectors * values.clamp(min=1e-6)) @ vectors.T
    spread = matrix.diagonal().sqrt()
    matrix = matrix / (spread[:, None] * spread)
    return torch.stack([matrix[0, 1], matrix[1, 2], matrix[0, 2]])

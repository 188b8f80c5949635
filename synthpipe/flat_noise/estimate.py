"""The noise of one photograph, without a reference: its level by channel, and how it hangs together.

Legend: H, W size of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise.measure import FlatNoise, measure_flat_noise
from synthpipe.flat_noise.spectrum import LAGS, SIDE

__all__ = ["NoiseEstimate", "estimate_noise"]

#: Pixels of flat area at which half of the certainty is reached.
_HALF_CERTAIN = 4000.0


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
    #: 0 to 1: how far the figures are to be trusted.
    certainty: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists: what JSON can hold."""
        return {key: value.tolist() if isinstance(value, Tensor) else value for key, value in vars(self).items()}


@torch.no_grad()
def estimate_noise(image: Tensor) -> NoiseEstimate | None:
    """Level, autocorrelation and correlation of channels of the noise in one image.

    Args:
        image: ``(3, H, W)`` or, grey, ``(1, H, W)``; uint8 or float in [0, 1].

    Returns:
        None where nothing can be said: all is clipped, or a side is shorter than 16 pixels.

    Raises:
        ShapeError: another shape.

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
    if min(image.shape[1:]) < SIDE:
        return None
    try:
        found = measure_flat_noise([image.expand(3, -1, -1)])
    except ShapeError:
        return None
    return _of_flat_noise(found)


def _of_flat_noise(found: FlatNoise) -> NoiseEstimate:
    covariance = torch.einsum("k,kij->ij", found.counts, found.covariance) / found.counts.sum()
    sigma = covariance.diagonal().clamp(min=0).sqrt()
    spread = sigma.clamp(min=1e-12)
    correlation = covariance / (spread[:, None] * spread)
    mean = found.autocorrelation.mean(0)
    return NoiseEstimate(
        sigma=sigma,
        level=math.sqrt(float(sigma.square().mean())),
        lag1=(float(mean[LAGS, LAGS + 1]), float(mean[LAGS + 1, LAGS])),
        autocorrelation=found.autocorrelation,
        channel_correlation=torch.stack([correlation[0, 1], correlation[1, 2], correlation[0, 2]]).clamp(-1, 1),
        certainty=found.pixels / (found.pixels + _HALF_CERTAIN),
    )

"""What a training measures of the noise of its images before it begins."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from synthpipe.config.denoiser_data import NoisyDataOptions
from synthpipe.denoisers.noise_level import noise_correlation
from synthpipe.training.base import step_generators
from synthpipe.training.data.image_data import ImageData, noisy_crops

__all__ = ["measured_correlation"]

#: A dozen crops say neither how far noise is correlated nor how much it differs between images.
_CROPS = 96


def measured_correlation(options: NoisyDataOptions, channels: int, seed: int) -> Tensor:
    """:func:`~synthpipe.denoisers.noise_level.noise_correlation` of about a hundred crops, noisy as in training.

    A function of its arguments alone, so that all processes of a run, and the run when it is resumed, find the same.

    Args:
        options: the images, how they are cropped and what noise is added to them.
        channels: of the model.
        seed: of the run.

    Returns:
        ``(6, 6)``.
    """
    data = ImageData(options, seed)
    try:
        return noise_correlation(_crops(data, options, channels, seed))
    finally:
        data.close()


def _crops(data: ImageData, options: NoisyDataOptions, channels: int, seed: int) -> Iterator[Tensor]:
    for step in range(-(-_CROPS // options.batch_size)):
        batch = data.next_batch()
        noisy, _, _ = noisy_crops(batch, channels, options.noise, step_generators(seed, step, batch["slot"]))
        yield from noisy

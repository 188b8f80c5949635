"""Crops of the images of one domain, from folders or from shards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from synthpipe.config.denoiser_data import ImageDataOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.errors import OptionError
from synthpipe.images import luma, to_float
from synthpipe.training.data.readers import DomainReaders, read_domain
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.training_noise import add_noise

__all__ = ["ImageData", "float_crops", "noisy_crops"]

_NAME = "images"


class ImageData(DomainReaders):
    """Batches ``{"x": (B, 3, crop, crop) uint8, "key": B strings, "slot": B numbers}``.

    From folders, a crop is a function of (seed, step, slot) alone.

    Args:
        options: the images and how they are cropped.
        seed: of the run.
        rank: this process.
        world_size: number of processes.

    Raises:
        OptionError: ``batch_size`` cannot be shared evenly.
        TrainingError: no usable images.
    """

    def __init__(self, options: ImageDataOptions, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if options.batch_size % world_size:
            raise OptionError(
                f"data.batch_size: expected a multiple of {world_size} (processes), got {options.batch_size}"
            )
        share = options.batch_size // world_size
        self._slots = range(rank * share, (rank + 1) * share)
        self._reader = read_domain(_NAME, options.images, options, options.crop, self._slots, seed, rank, world_size)
        self._readers = {_NAME: self._reader}

    def next_batch(self) -> Batch:
        """This process's part of the next step's batch."""
        x, keys = self._reader.next()
        return {"x": x, "key": keys, "slot": list(self._slots)}

    def example(self, count: int) -> Batch | None:
        """``count`` images that no step uses, the same at every call; None with shards."""
        found = self._reader.example(count)
        return None if found is None else {"x": found[0], "key": found[1], "slot": list(range(count))}


def float_crops(x: Tensor, channels: int) -> Tensor:
    """uint8 crops ``(B, 3, H, W)`` as float32 ``(B, channels, H, W)`` in [0, 1]; luma where a model has one channel."""
    x = to_float(x)
    return luma(x) if channels == 1 else x


def noisy_crops(
    batch: Batch, channels: int, noise: TrainingNoise | None, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What a denoiser is trained on: noisy crops, the images as read, and what is known of the noise.

    Args:
        batch: of :class:`ImageData`.
        channels: of the model.
        noise: added here; None: the images are noisy already, and nothing is known.
        generators: one for each image.

    Returns:
        Both ``(B, channels, crop, crop)`` float32, never in half precision; see
        :func:`synthpipe.transforms.training_noise.add_noise` for the last.
    """
    with torch.autocast(batch["x"].device.type, enabled=False):
        clean = float_crops(batch["x"], channels)
        if noise is None:
            return clean, clean, {}
        noisy, truth = add_noise(clean, noise, generators)
    return noisy, clean, truth

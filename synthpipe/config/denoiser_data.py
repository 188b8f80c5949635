"""Options of the images that denoisers and priors of one domain are trained on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from synthpipe.config.noise import AnyTrainingNoise, TrainingNoise
from synthpipe.config.reader import Options
from synthpipe.config.run import DomainOptions, ReadingOptions

__all__ = [
    "ImageDataOptions",
    "NoisyDataOptions",
    "PairedDataOptions",
    "PlainDenoiserModelOptions",
    "ScaledDenoiserModelOptions",
]


class ImageDataOptions(ReadingOptions):
    """Crops of the images of one domain."""

    images: DomainOptions = Field(description="the images")
    crop: int = Field(64, ge=8, description="side of the square crops in pixels")
    batch_size: int = Field(16, ge=1, description="crops per step over all processes")


class NoisyDataOptions(ImageDataOptions):
    """Images that are noisy as they are, or made noisy on the fly."""

    noise: TrainingNoise | None = Field(None, description="noise added to the images; null: they are noisy already")


class PairedDataOptions(ImageDataOptions):
    """Images that are noisy as they are, or made noisy on the fly by a law or by any degradation."""

    noise: AnyTrainingNoise | None = Field(
        None, description="what makes the images noisy; null: they are noisy already"
    )


class PlainDenoiserModelOptions(Options):
    """A plain residual network."""

    width: int = Field(32, ge=1, description="channels inside")
    depth: int = Field(8, ge=2, description="3x3 convolutions; a pixel sees 2 * depth + 1 pixels across")
    channels: Literal[1, 3] = Field(3, description="of the images: 3, or 1 for luma")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the network."""
        return self.model_dump()


class ScaledDenoiserModelOptions(PlainDenoiserModelOptions):
    """A plain residual network, or one at several sizes of the image."""

    depth: int = Field(
        8,
        ge=2,
        description="3x3 convolutions; a pixel sees 2 * depth + 1 pixels across; with scales: blocks of two "
        "convolutions at each size",
    )
    scales: int = Field(
        0,
        ge=0,
        le=5,
        description="how often the image is halved: the network then works at 1/2, 1/4, ... of the size on the way "
        "down and up again, for noise that is many pixels long; 0: at the size of the image alone",
    )

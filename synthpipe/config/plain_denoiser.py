"""Options of ``kind: plain_denoiser``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synthpipe.config.denoiser_data import ImageDataOptions, PlainDenoiserModelOptions
from synthpipe.config.noise import TrainingNoise
from synthpipe.config.run import RunOptions

__all__ = ["PlainDenoiserDataOptions", "TrainPlainDenoiserOptions"]


class PlainDenoiserDataOptions(ImageDataOptions):
    """Clean images, and the noise that is put on them."""

    noise: TrainingNoise = Field(description="added to the images")


class TrainPlainDenoiserOptions(RunOptions):
    """``kind: plain_denoiser``: a plain residual network trained by least squares."""

    kind: Literal["plain_denoiser"] = "plain_denoiser"
    model: PlainDenoiserModelOptions = PlainDenoiserModelOptions()
    data: PlainDenoiserDataOptions

"""Options of ``kind: distill``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import NoisyDataOptions, PlainDenoiserModelOptions
from synthpipe.config.places import Weights
from synthpipe.config.run import RunOptions

__all__ = ["TrainDistillOptions"]


class TrainDistillOptions(RunOptions):
    """``kind: distill``: a plain denoiser learns what a trained one of any kind says of noisy images."""

    examples: ClassVar = (
        """\
kind: distill
run_dir: runs/small
teacher: blind_spot_small
model: {width: 24, depth: 8}
data: {images: {folder: /data/noisy_photos}}
""",
    )

    kind: Literal["distill"] = Field("distill", description="chooses this kind of training")
    teacher: Weights = Field(description="weights of a denoiser: a .safetensors file, or a shipped name")
    sigma: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="level of images that are noisy as they are, on the [0, 1] scale; null: estimated for each crop",
    )
    frame: int = Field(
        8, ge=0, description="pixels at the borders of crops that the loss leaves out: the teacher sees less there"
    )
    model: PlainDenoiserModelOptions = Field(PlainDenoiserModelOptions(), description="the denoiser that learns")
    data: NoisyDataOptions = Field(description="the noisy images")

    @model_validator(mode="after")
    def _fits(self) -> TrainDistillOptions:
        if 2 * self.frame >= self.data.crop:
            raise ValueError(f"a frame of {self.frame} leaves nothing of crops of {self.data.crop}")
        if self.sigma is not None and self.data.noise is not None:
            raise ValueError("'sigma' is of images that are noisy as they are; with 'data.noise' the level is known")
        return self

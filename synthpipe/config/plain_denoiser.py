"""Options of ``kind: plain_denoiser``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import NoisyDataOptions, PlainDenoiserModelOptions
from synthpipe.config.run import RunOptions

__all__ = ["TrainPlainDenoiserOptions"]


class TrainPlainDenoiserOptions(RunOptions):
    """``kind: plain_denoiser``: a plain residual network trained by least squares."""

    examples: ClassVar = (
        """\
kind: plain_denoiser
run_dir: runs/plain
data:
  images: {folder: /data/clean_photos}
  noise: {type: gaussian, sigma: [0.0, 0.2]}
""",
    )

    kind: Literal["plain_denoiser"] = Field("plain_denoiser", description="chooses this kind of training")
    target: Literal["clean", "noise2void"] = Field(
        "clean",
        description="what the network learns to give; clean: the images without the noise; noise2void: masked pixels "
        "of the noisy images",
    )
    masked: float = Field(0.01, ge=0.001, le=0.05, description="noise2void: share of the pixels masked in each crop")
    model: PlainDenoiserModelOptions = Field(PlainDenoiserModelOptions(), description="the denoiser")
    data: NoisyDataOptions = Field(description="the images")

    @model_validator(mode="after")
    def _check(self) -> TrainPlainDenoiserOptions:
        if self.target == "clean" and self.data.noise is None:
            raise ValueError(
                "expected 'data.noise' with target 'clean', which trains on clean images made noisy; images that are "
                "noisy already can be learnt from with target 'noise2void'"
            )
        return self

"""Options of ``kind: plain_denoiser``."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import PairedDataOptions, ScaledDenoiserModelOptions
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
        """\
# a denoiser of cameras: the noise is made by learned degradations, so that no pairs are needed
kind: plain_denoiser
run_dir: runs/camera
level_error: 1.35
loss: log_mse
model: {width: 32, depth: 2, scales: 3}
data:
  images: {folder: /data/clean_photos, resize_range: [0.5, 2.0]}
  noise: {type: degrade, degrade: {type: choice, of: {canon_5d2: 1, nikon_d800: 1, canon_80d: 1}}}
""",
    )

    kind: Literal["plain_denoiser"] = Field("plain_denoiser", description="chooses this kind of training")
    target: Literal["clean", "noise2void"] = Field(
        "clean",
        description="what the network learns to give; clean: the images without the noise; noise2void: masked pixels "
        "of the noisy images",
    )
    masked: float = Field(0.01, ge=0.001, le=0.05, description="noise2void: share of the pixels masked in each crop")
    loss: Literal["mse", "log_mse"] = Field(
        "mse",
        description="clean: mse: the mean square error; log_mse: the mean logarithm of each image's own, so that weak "
        "noise counts as much as strong",
    )
    level: bool = Field(
        True, description="clean: whether the network is told the noise level of each image; noise2void never is"
    )
    level_error: float = Field(
        1.0,
        ge=1,
        le=4,
        description="the level that it is told is off by a factor of up to this, either way, drawn for each image, so "
        "that it need not be exact later; 1: the true one",
    )
    model: ScaledDenoiserModelOptions = Field(ScaledDenoiserModelOptions(), description="the denoiser")
    data: PairedDataOptions = Field(description="the images")

    @model_validator(mode="after")
    def _check(self) -> TrainPlainDenoiserOptions:
        if self.target == "clean" and self.data.noise is None:
            raise ValueError(
                "expected 'data.noise' with target 'clean', which trains on clean images made noisy; images that are "
                "noisy already can be learnt from with target 'noise2void'"
            )
        if self.target == "noise2void" and (self.loss != "mse" or not self.level or self.level_error != 1):
            raise ValueError("'loss', 'level' and 'level_error' are for target 'clean'; leave them out with noise2void")
        return self

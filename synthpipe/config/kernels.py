"""Options of ``kind: kernels``: a bank of blur kernels, estimated from two piles of images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from synthpipe.config.run import DomainOptions, ReadingOptions, RunFolderOptions
from synthpipe.kernels.edges import LEAST_SIDE
from synthpipe.kernels.spectra import WINDOW_SIDE

__all__ = ["KernelsDataOptions", "TrainKernelsOptions"]


class KernelsDataOptions(ReadingOptions):
    """The two piles, and how much of them is looked at."""

    clean: DomainOptions = Field(
        description="the clean images, reduced as those that the kernels will blur: `downscale: 4` for enlarging by 4"
    )
    noisy: DomainOptions = Field(description="the degraded images, which need not show the same things")
    megapixels: float = Field(
        32,
        ge=0.1,
        le=10**5,
        description="of each pile that are read, from whole images, each once; of a larger pile tiles of each image, "
        "spread evenly, and every so many images",
    )
    crops: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="so many crops of each pile, drawn at random, in place of whole images; null: whole images, but "
        "2000 crops of what is read from shards, or has `resize_range` or `blur`",
    )
    crop: int = Field(
        64, ge=LEAST_SIDE, le=1024, description="side of the square crops in pixels; smaller images are left out"
    )


class TrainKernelsOptions(RunFolderOptions):
    """``kind: kernels``: a bank of blur kernels of degraded images, against clean ones; computed at once."""

    examples: ClassVar = (
        """\
# what small photographs of a camera lost against photographs that are reduced by 4; a minute on one core
kind: kernels
run_dir: runs/my_kernels
data:
  clean: {folder: /data/clean_photos, downscale: 4}
  noisy: {folder: /data/small_photos}
""",
    )

    kind: Literal["kernels"] = Field("kernels", description="chooses this kind of training")
    estimator: Literal["both", "spectra", "edges"] = Field(
        "both",
        description="what tells the kernels: spectra of both piles, a kernel for each folder of degraded images (those "
        "of fewer than 8 images together); both: spectra, and isolated edges where they agree with them; edges: these "
        "alone, a kernel for each image",
    )
    chroma: bool = Field(
        True,
        description="kernels of colour (Cb and Cr) beside those of luma, from spectra; estimator: edges has none",
    )
    side: int = Field(
        25,
        ge=3,
        le=51,
        description="side of the kernels in pixels, odd; wide ones keep what a camera's sharpening raises",
    )
    kernels: int = Field(
        64,
        ge=1,
        le=4096,
        description="estimator: edges: kernels at most, one for each degraded image; of more images some are drawn",
    )
    data: KernelsDataOptions = Field(description="the two piles of images")

    @field_validator("side")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"expected an odd number, got {value}; write {value + 1}")
        return value

    @model_validator(mode="after")
    def _crops_hold_a_window(self) -> TrainKernelsOptions:
        if self.estimator != "edges" and self.data.crop < WINDOW_SIDE:
            raise ValueError(
                f"expected 'data.crop' of at least {WINDOW_SIDE} for spectra, got {self.data.crop}; or write "
                "estimator: edges"
            )
        return self

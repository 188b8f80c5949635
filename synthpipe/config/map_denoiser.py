"""Options of ``kind: map_denoiser``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import ImageDataOptions
from synthpipe.config.places import Weights
from synthpipe.config.reader import Options
from synthpipe.config.run import RunOptions

__all__ = ["DAEPriorOptions", "DDEPriorOptions", "MapModelOptions", "TrainMapDenoiserOptions"]


class MapModelOptions(Options):
    """Arguments of :class:`synthpipe.denoisers.MapDenoiser`."""

    channels: Literal[1, 3] = Field(3, description="of the images: 3, or 1 for luma")
    width: int = Field(48, ge=1, description="channels inside")
    depth: int = Field(8, ge=2, description="3x3 convolutions; a pixel sees 2 * depth + 1 pixels across")
    sigma_range: tuple[float, float] = Field(
        (2 / 255, 50 / 255),
        description="[low, high]: noise levels on the [0, 1] scale, drawn log-uniformly; the data weighs 1 / sigma^2",
    )
    smoothing: float = Field(
        0.5,
        gt=0,
        description="level of the prior's smoothing as a multiple of sigma; 1 as in the paper, smaller goes further",
    )
    level_map: bool = Field(True, description="the level is an input; false: one level, the authors' network")
    inner_bias: bool = Field(True, description="with level_map false: biases in inner layers; the authors' have none")
    slope: float = Field(0.1, ge=0, lt=1, description="with level_map false: slope of the activation below 0")

    @model_validator(mode="after")
    def _check(self) -> MapModelOptions:
        low, high = self.sigma_range
        if not (0 < low < high if self.level_map else 0 < low == high):
            raise ValueError(
                "expected 0 < low < high in 'sigma_range', and low = high where 'level_map' is false; "
                f"got {list(self.sigma_range)} with level_map {self.level_map}"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the network."""
        return self.model_dump()


class DAEPriorOptions(Options):
    """The gradient of the prior from a denoising autoencoder R, a plain denoiser of the model's size (the paper's)."""

    type: Literal["dae"] = Field("dae", description="chooses this prior")
    teacher: Weights | None = Field(
        None, description="weights of kind plain_denoiser that R starts from; null: untrained"
    )
    train: bool = Field(True, description="whether R is trained beside the model; false needs a teacher")

    @model_validator(mode="after")
    def _check(self) -> DAEPriorOptions:
        if self.teacher is None and not self.train:
            raise ValueError("expected 'teacher' (weights of kind plain_denoiser) with train: false")
        return self


class DDEPriorOptions(Options):
    """The prior itself: a trained density."""

    type: Literal["dde"] = Field(description="chooses this prior")
    weights: Weights = Field(description="weights of kind dde; they are not trained further")


class TrainMapDenoiserOptions(RunOptions):
    """``kind: map_denoiser``: the proximal operator of a prior of clean images, for one level or all of a range."""

    examples: ClassVar = (
        """\
kind: map_denoiser
run_dir: runs/map
model: {width: 48, depth: 8, sigma_range: [0.008, 0.2]}
prior: {type: dae, teacher: runs/plain/final.safetensors, train: false}
data: {images: {folder: /data/clean_photos}}
""",
    )

    kind: Literal["map_denoiser"] = Field("map_denoiser", description="chooses this kind of training")
    model: MapModelOptions = Field(MapModelOptions(), description="the denoiser")
    prior: DAEPriorOptions | DDEPriorOptions = Field(
        DAEPriorOptions(), discriminator="type", description="the prior of clean images"
    )
    start_from: Weights | None = Field(
        None,
        description="weights of kind plain_denoiser, of the model's size, that the model starts from; null: untrained",
    )
    data: ImageDataOptions = Field(description="the clean images")
    input_noise: float = Field(
        1.5,
        ge=0,
        description="inputs are clean images with noise of t * sigma, t uniform in [0, this]; 0: clean as in the paper",
    )
    level_power: float = Field(
        1.0, ge=0, le=2, description="an image's loss, a mean square, is divided by its sigma to this power"
    )

    @model_validator(mode="after")
    def _check(self) -> TrainMapDenoiserOptions:
        if self.start_from is not None and not self.model.level_map:
            raise ValueError("start_from: plain denoisers are told the level, so expected model.level_map: true")
        if self.start_from is not None and self.init_weights is not None:
            raise ValueError("expected at most one of 'start_from' and 'init_weights'")
        return self

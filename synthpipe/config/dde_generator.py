"""Options of ``kind: dde_generator``: what is imitated, the generator, and the two density estimators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options
from synthpipe.config.run import DomainOptions, ReadingOptions, RunOptions

__all__ = [
    "ArrayData",
    "DensityFromWeights",
    "GeneratorOptions",
    "ImageData",
    "LocalDensity",
    "PointData",
    "PyramidDensity",
    "TrainDDEGeneratorOptions",
    "VectorDensity",
]


class PointData(Options):
    """Points of a known law in the plane, drawn anew in every step."""

    type: Literal["points"] = "points"
    name: str = Field(description="a set of density.point_sets: two_spirals, eight_gaussians, checkerboard, rings")
    batch_size: int = Field(1024, ge=1)


class ArrayData(Options):
    """Samples from a NumPy file: points ``(N, d)``, or images ``(N, H, W)`` or ``(N, C, H, W)``."""

    type: Literal["array"] = "array"
    file: str = Field(description=".npy; uint8 means 0..255, images in floating point must be in [0, 1]")
    batch_size: int = Field(128, ge=1)


class ImageData(ReadingOptions):
    """Crops of images, from folders or shards."""

    type: Literal["images"] = "images"
    source: DomainOptions
    crop: int = Field(32, ge=8, description="side of the square patches in pixels")
    channels: Literal[1, 3] = Field(3, description="1: luma")
    batch_size: int = Field(32, ge=1)


class GeneratorOptions(Options):
    """The network and its optimizer; the arguments are those of ``density.DDEGenerator``."""

    network: Literal["residual", "dense", "conv"] | None = Field(
        None, description="residual for points, conv for images by default"
    )
    latent: int = Field(64, ge=1)
    width: int = Field(64, ge=1)
    depth: int = Field(2, ge=1)
    spread: float = Field(2.0, gt=0)
    lr: float = Field(3e-4, gt=0)
    betas: tuple[float, float] = Field(
        (0.9, 0.99), description="momentum steadies the generator, which the estimator of its samples has to follow"
    )
    start: int = Field(300, ge=0, description="steps that train the estimators alone, before the generator's first")
    level_power: float = Field(
        1.0,
        ge=0,
        le=2,
        description="noise level sigma counts sigma^this: 0 favours detail, 2 the position of the whole",
    )
    every: int = Field(5, ge=1, description="the generator takes one step for so many of the estimators")

    def arguments(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Keyword arguments for :class:`synthpipe.density.DDEGenerator`, for samples of ``shape``."""
        network = self.network or ("residual" if len(shape) == 1 else "conv")
        sizes = self.model_dump(include={"latent", "width", "depth", "spread"})
        return {"shape": list(shape), "network": network, **sizes}


class VectorDensity(Options):
    """``density.VectorDDE``: an MLP, for points and for small images read as points."""

    type: Literal["vector"] = "vector"
    width: int = Field(96, ge=1)
    depth: int = Field(3, ge=1)
    spread: float = Field(2.0, gt=0, description="root mean square of a coordinate, about its mean")


class LocalDensity(Options):
    """``density.DDE``: fully convolutional; sees ``2 * depth + 1`` pixels across, so larger forms are not learned."""

    type: Literal["local"] = "local"
    width: int = Field(32, ge=1)
    depth: int = Field(4, ge=2)
    outputs: int = Field(8, ge=1)


class PyramidDensity(Options):
    """``density.pyramid.PyramidDDE``: sees the whole patch."""

    type: Literal["pyramid"] = "pyramid"
    width: int = Field(32, ge=1)
    levels: int = Field(3, ge=1, le=6)


class DensityFromWeights(Options):
    """A trained estimator of the data, held fixed; that of the samples starts as a copy of it."""

    type: Literal["weights"] = "weights"
    path: str = Field(description=".safetensors of kind dde or dde_vector")


class TrainDDEGeneratorOptions(RunOptions):
    """``kind: dde_generator``: a generator whose law follows the data's; ``optimizer`` is the estimators'."""

    kind: Literal["dde_generator"] = "dde_generator"
    data: Annotated[PointData | ArrayData | ImageData, Field(discriminator="type")]
    generator: GeneratorOptions = GeneratorOptions()
    density: Annotated[VectorDensity | LocalDensity | PyramidDensity | DensityFromWeights, Field(discriminator="type")]
    sigma: tuple[float, float] = Field(
        description="noise level, or [low, high] to draw from log-uniformly: low sets the detail, high the far reach"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_level(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("sigma"), int | float):
            return {**data, "sigma": (data["sigma"], data["sigma"])}
        return data

    @model_validator(mode="after")
    def _check(self) -> TrainDDEGeneratorOptions:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError("expected 0 < low <= high in 'sigma'")
        if isinstance(self.density, LocalDensity) and self.sigma[0] == self.sigma[1]:
            raise ValueError("expected a range [low, high] in 'sigma' with density.type 'local'")
        if self.precision != "32":
            raise ValueError("expected precision 32: half precision rounds away the difference of two scores")
        return self

"""Options of ``kind: dde_generator``: what is imitated, the generator, and the two density estimators."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema, model_validator

from synthpipe.config.places import File, Weights
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

    type: Literal["points"] = Field("points", description="chooses points of a known law")
    name: str = Field(description="which law: two_spirals, eight_gaussians, checkerboard or rings")
    batch_size: int = Field(1024, ge=1, description="points per step")


class ArrayData(Options):
    """Samples from a NumPy file: points ``(N, d)``, or images ``(N, H, W)`` or ``(N, C, H, W)``."""

    type: Literal["array"] = Field("array", description="chooses samples from a file")
    file: File = Field(description=".npy; uint8 means 0..255, images in floating point must be in [0, 1]")
    batch_size: int = Field(128, ge=1, description="samples per step")


class ImageData(ReadingOptions):
    """Crops of images, from folders or shards."""

    type: Literal["images"] = Field("images", description="chooses crops of images")
    source: DomainOptions = Field(description="the images")
    crop: int = Field(32, ge=8, description="side of the square crops in pixels")
    channels: Literal[1, 3] = Field(3, description="of the images: 3, or 1 for luma")
    batch_size: int = Field(32, ge=1, description="crops per step")


class GeneratorOptions(Options):
    """The network and its optimizer; the arguments are those of ``density.DDEGenerator``."""

    network: Literal["residual", "dense", "conv"] | None = Field(
        None,
        description="residual: an MLP added to a multiple of the latent, for points; dense: an MLP, for small images; "
        "conv: upsampling convolutions, for image patches; null: residual for points, conv for images",
    )
    latent: int = Field(64, ge=1, description="numbers in the latent; for residual at least as many as coordinates")
    width: int = Field(64, ge=1, description="units of a layer; for conv channels at full size")
    depth: int = Field(2, ge=1, description="hidden layers or residual blocks; for conv convolutions at each size")
    spread: float = Field(
        2.0, gt=0, description="standard deviation of the samples that an untrained residual network draws"
    )
    lr: float = Field(3e-4, gt=0, description="the generator's learning rate")
    betas: tuple[float, float] = Field(
        (0.9, 0.99),
        description="of its Adam; momentum steadies the generator, which the estimator of its samples has to follow",
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

    type: Literal["vector"] = Field("vector", description="chooses this estimator")
    width: int = Field(96, ge=1, description="units of each hidden layer")
    depth: int = Field(3, ge=1, description="hidden layers")
    spread: float = Field(2.0, gt=0, description="root mean square of a coordinate, about its mean")


class LocalDensity(Options):
    """``density.DDE``: fully convolutional; forms larger than what a pixel sees are not learned."""

    type: Literal["local"] = Field("local", description="chooses this estimator")
    width: int = Field(32, ge=1, description="channels inside")
    depth: int = Field(4, ge=2, description="3x3 convolutions; a pixel sees 2 * depth + 1 pixels across")
    outputs: int = Field(8, ge=1, description="channels of its head; half the sum of their squares is the energy")


class PyramidDensity(Options):
    """``density.pyramid.PyramidDDE``: sees the whole patch."""

    type: Literal["pyramid"] = Field("pyramid", description="chooses this estimator")
    width: int = Field(32, ge=1, description="channels at full size; below that twice as many")
    levels: int = Field(3, ge=1, le=6, description="sizes; each is half of the one before")


class DensityFromWeights(Options):
    """A trained estimator of the data, held fixed; that of the samples starts as a copy of it."""

    type: Literal["weights"] = Field("weights", description="chooses a trained estimator")
    path: Weights = Field(description="weights of kind dde or dde_vector, a .safetensors file")


_LEVEL = {"type": "number", "exclusiveMinimum": 0}
_LEVEL_OR_RANGE = {"anyOf": [_LEVEL, {"type": "array", "prefixItems": [_LEVEL, _LEVEL], "minItems": 2, "maxItems": 2}]}


class TrainDDEGeneratorOptions(RunOptions):
    """``kind: dde_generator``: a generator whose law follows the data's; ``optimizer`` is the estimators'."""

    examples: ClassVar = (
        """\
kind: dde_generator
run_dir: runs/spirals
data: {type: points, name: two_spirals}
density: {type: vector}
sigma: [0.05, 1.0]
""",
    )

    kind: Literal["dde_generator"] = Field("dde_generator", description="chooses this kind of training")
    data: PointData | ArrayData | ImageData = Field(discriminator="type", description="what is imitated")
    generator: GeneratorOptions = Field(GeneratorOptions(), description="the generator and its optimizer")
    density: VectorDensity | LocalDensity | PyramidDensity | DensityFromWeights = Field(
        discriminator="type", description="the density estimators, one of the data and one of the samples"
    )
    sigma: Annotated[tuple[float, float], WithJsonSchema(_LEVEL_OR_RANGE)] = Field(
        description="one noise level, or [low, high] to draw from log-uniformly, on the data's scale: low sets the "
        "detail, high the far reach"
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

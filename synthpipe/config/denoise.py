"""Options of denoising as preprocessing: in a stream, and of ``synthpipe denoise``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from synthpipe.config.places import Weights
from synthpipe.config.reader import Options

__all__ = ["DenoiseOptions", "StreamDenoiseOptions"]

_SMALLEST_TILE = 64
#: What `weights: auto` stands for: the network of cameras' noise, and that of white noise.
_AUTO = ("camera_denoiser", "blind_spot_small")


def _level(value: Any) -> str | float:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("expected auto, or a level from 0 to 1 (5 of 255 grey levels are 0.0196)")
    return float(value)


_Level = Annotated[
    Literal["auto"] | float,
    PlainValidator(_level),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]


#: What sigma, min_sigma, max_sigma, hole and strength are where any of them is said and another is not.
_TOLD: dict[str, Any] = {"sigma": "auto", "min_sigma": 0.0, "max_sigma": 1.0, "hole": None, "strength": 1.0}


class DenoiseOptions(Options):
    """Which denoiser, and how strongly.  All noise levels are standard deviations on the [0, 1] scale.

    Where nothing is said of sigma, min_sigma, max_sigma, hole and strength, what is done about each image follows from
    the level and the correlation of its noise.
    """

    weights: Weights = Field(
        description="auto: the weights that ship for cameras, and for white noise those that ship for it, by the noise "
        "of each image; or a .safetensors file of any denoiser, or the name of shipped weights (camera_denoiser)",
    )
    sigma: _Level | None = Field(
        None,
        description="level of the noise to remove, from 0 to 1 (5 of 255 grey levels are 0.0196); auto: estimated for "
        "each image, as if it were white; null: auto, or where min_sigma, max_sigma, hole and strength are null, too, "
        "chosen with them for each image by its noise",
    )
    min_sigma: float | None = Field(
        None,
        ge=0,
        le=1,
        description="images whose estimated level is below this stay as they are, bit for bit; null: 0, or as sigma",
    )
    max_sigma: float | None = Field(
        None,
        gt=0,
        le=1,
        description="estimates above this are taken for this: what looks noisier is texture; null: 1, or as sigma",
    )
    hole: int | None = Field(
        None,
        ge=0,
        le=64,
        description="pixels on each side that a blind-spot network must not look at, for correlated noise; null: the "
        "network's own, or as sigma",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="1 is the denoiser's result; below it, a mixture with the image; null: 1, or as sigma",
    )
    tile: int = Field(
        512, ge=_SMALLEST_TILE, description="longest side denoised at once, in pixels; larger images go tile by tile"
    )
    overlap: int | None = Field(
        None,
        ge=0,
        description="pixels that tiles overlap on each side, at most a quarter of the tile; null: what the denoiser "
        "sees",
    )

    @model_validator(mode="before")
    @classmethod
    def _all_or_nothing(cls, data: Any) -> Any:
        """Where one is said, the others are what they were before there was a choice."""
        if not isinstance(data, dict) or all(data.get(name) is None for name in _TOLD):
            return data
        return {**data, **{name: value for name, value in _TOLD.items() if data.get(name) is None}}

    @model_validator(mode="after")
    def _fits(self) -> DenoiseOptions:
        if self.min_sigma is not None and self.max_sigma is not None and self.min_sigma > self.max_sigma:
            raise ValueError(f"expected min_sigma up to max_sigma, got {self.min_sigma} and {self.max_sigma}")
        if self.overlap is not None and self.tile < 4 * self.overlap:
            raise ValueError(f"tile: expected at least 4 times the overlap of {self.overlap}, got {self.tile}")
        return self

    @property
    def by_image(self) -> bool:
        """Whether nothing is said, so that it is chosen for each image."""
        return self.sigma is None

    @property
    def networks(self) -> tuple[str, ...]:
        """Weights by name or file: of the one network, or for noise of cameras and for white noise."""
        return _AUTO if self.weights == "auto" else (self.weights,)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :class:`synthpipe.transforms.Denoise`, beside its model, where something is said."""
        names = set(DenoiseOptions.model_fields) - {"weights", "sigma"}
        return {"sigma": self.known_sigma, **self.model_dump(include=names)}

    @property
    def known_sigma(self) -> float | None:
        """``sigma``, None for ``auto``."""
        return None if isinstance(self.sigma, str) else self.sigma


class StreamDenoiseOptions(DenoiseOptions):
    """In a stream, each tile is an image of its own: cut larger, denoised, and cut to size."""

    border: int | None = Field(
        None,
        ge=0,
        le=256,
        description="pixels around each tile that the denoiser sees and the stream drops; null: what it sees, at most "
        "32",
    )

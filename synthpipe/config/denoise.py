"""Options of denoising as preprocessing: in a stream, and of ``synthpipe denoise``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from synthpipe.config.places import Weights
from synthpipe.config.reader import Options

__all__ = ["DenoiseOptions", "StreamDenoiseOptions"]

_SMALLEST_TILE = 64


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


class DenoiseOptions(Options):
    """Which denoiser, and how strongly.  All noise levels are standard deviations on the [0, 1] scale."""

    weights: Weights = Field(
        description="a .safetensors file of any denoiser, or the name of shipped weights (blind_spot_small)",
    )
    sigma: _Level = Field(
        "auto",
        description="level of the noise to remove, from 0 to 1 (5 of 255 grey levels are 0.0196); auto: estimated for "
        "each image",
    )
    min_sigma: float = Field(
        0.0, ge=0, le=1, description="images whose estimated level is below this stay as they are, bit for bit"
    )
    max_sigma: float = Field(
        1.0, gt=0, le=1, description="estimates above this are taken for this: what looks noisier is texture"
    )
    hole: int | None = Field(
        None,
        ge=0,
        le=64,
        description="pixels on each side that a blind-spot network must not look at, for correlated noise; null: the "
        "network's own",
    )
    strength: float = Field(
        1.0, gt=0, le=1, description="1 is the denoiser's result; below it, a mixture with the image"
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

    @model_validator(mode="after")
    def _fits(self) -> DenoiseOptions:
        if self.min_sigma > self.max_sigma:
            raise ValueError(f"expected min_sigma up to max_sigma, got {self.min_sigma} and {self.max_sigma}")
        if self.overlap is not None and self.tile < 4 * self.overlap:
            raise ValueError(f"tile: expected at least 4 times the overlap of {self.overlap}, got {self.tile}")
        return self

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :class:`synthpipe.transforms.Denoise`, beside its model."""
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

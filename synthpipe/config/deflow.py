"""Options of the DeFlow model and its published presets; the fields are the constructor's arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options, expand_preset
from synthpipe.flows.deflow_official import AIM_STATISTICS

__all__ = [
    "PRESETS",
    "DeFlowModelOptions",
    "NormalizationOptions",
    "RRDBEncoderOptions",
    "SmallEncoderOptions",
]

Triple = tuple[float, float, float]


class RRDBEncoderOptions(Options):
    """ESRGAN's trunk with tapped blocks (published)."""

    type: Literal["rrdb"] = "rrdb"
    features: int = Field(64, ge=1)
    growth: int = Field(32, ge=1)
    blocks: int = Field(23, ge=1)
    taps: tuple[int, ...] = (1, 8, 15, 22)


class SmallEncoderOptions(Options):
    """A few convolutions at the reduced size."""

    type: Literal["small"] = "small"
    features: int = Field(32, ge=1)
    depth: int = Field(2, ge=0)


class NormalizationOptions(Options):
    """Statistics per domain, RGB on the 0..255 scale; see ``flows.normalization``."""

    clean_mean: Triple
    clean_std: Triple
    noisy_mean: Triple
    noisy_std: Triple
    lr_clean_mean: Triple
    lr_clean_std: Triple
    lr_noisy_mean: Triple
    lr_noisy_std: Triple
    clamp: bool = False


class DeFlowModelOptions(Options):
    """A DeFlow, from a preset or from parts; keys given beside ``preset`` override it.

    The defaults are our corrections of the reference (``covariance_init`` 1, ``quant`` 255, no noise left in the
    output, no clamp); each has the published value beside it in the docstring of ``flows.DeFlow``.
    """

    preset: Literal["aim", "ntire", "dped", "small"] | None = None
    scale: Literal[2, 4, 8, 16] = 4
    levels: int = Field(3, ge=2, le=6)
    steps: int = Field(16, ge=1)
    transition_steps: int = Field(2, ge=0)
    hidden: int = Field(64, ge=1)
    encoder: Annotated[RRDBEncoderOptions | SmallEncoderOptions, Field(discriminator="type")] = RRDBEncoderOptions()
    condition_noise: float = Field(0.03, ge=0, le=1)
    quant: int = Field(255, ge=2)
    dequantize_output: bool = False
    covariance: Literal["full", "diagonal", "colour"] = "full"
    covariance_init: float = Field(1.0, ge=0)
    scale_eps: float = Field(0.001, gt=0, le=1)
    coupling: Literal["affine", "additive"] = "affine"
    whiten: bool = False
    normalization: NormalizationOptions | None = None
    unconditional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        return expand_preset(data, PRESETS)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for :class:`synthpipe.flows.DeFlow`, as plain JSON types."""
        return self.model_dump(mode="json", exclude={"preset"})


#: Published sizes with our corrections, and ``small``, which trains on two CPU cores.
PRESETS: dict[str, dict[str, Any]] = {
    "aim": {"scale": 8, "hidden": 128, "normalization": AIM_STATISTICS},
    "ntire": {"scale": 4, "hidden": 64},
    "dped": {"scale": 4, "hidden": 64},
    "small": {
        "scale": 4,
        "steps": 4,
        "transition_steps": 1,
        "hidden": 32,
        "encoder": {"type": "small", "features": 32},
        "condition_noise": 0.015,
        "covariance": "colour",
        "coupling": "additive",
        "whiten": True,
        "scale_eps": 0.05,
    },
}

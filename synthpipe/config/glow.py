"""Options of ``kind: glow``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import ImageDataOptions
from synthpipe.config.reader import PresetOptions
from synthpipe.config.run import CHECKPOINTING_MEANING, RunOptions

__all__ = ["PRESETS", "GlowModelOptions", "TrainGlowOptions"]

#: ``reference``: the size and the choices of the published prior (Kattakinda & Rajagopalan 2020), without its defects.
PRESETS: dict[str, dict[str, Any]] = {
    "reference": {"steps": 32, "hidden": 128, "logit": True, "priors": "standard", "whiten": False},
}


class GlowModelOptions(PresetOptions):
    """Arguments of :class:`synthpipe.flows.Glow`, from a preset or from parts; keys beside ``preset`` override it."""

    presets: ClassVar = PRESETS

    preset: Literal["reference"] | None = Field(None, description="reference: the published prior; null: the defaults")
    channels: Literal[1, 3] = Field(3, description="of the images: 3, or 1 for luma")
    levels: int = Field(3, ge=1, le=6, description="squeezes; each halves the window")
    steps: int = Field(8, ge=1, description="flow steps of each level")
    hidden: int = Field(48, ge=1, description="width of the couplings' networks")
    window: int = Field(
        32, ge=2, description="side of the crops that it is the density of, in pixels; a multiple of 2^levels"
    )
    logit: bool = Field(False, description="map values by a logit first, as the reference does")
    priors: Literal["standard", "learned", "tails"] = Field(
        "learned",
        description="of the latents; standard: normal (published); learned: normal with learned mean and spread; "
        "tails: the same with learned tails, since fine detail is not normal",
    )
    whiten: bool = Field(True, description="start each level at the whitening of the first batch")
    smoothing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="standard deviation, on the [0, 1] scale, of noise put on images: the density is of images with it",
    )


class TrainGlowOptions(RunOptions):
    """``kind: glow``: the density of crops of one domain."""

    examples: ClassVar = (
        """\
kind: glow
run_dir: runs/glow
model: {levels: 3, steps: 8, window: 32}
data: {images: {folder: /data/clean_photos}, crop: 32}
""",
    )

    kind: Literal["glow"] = Field("glow", description="chooses this kind of training")
    model: GlowModelOptions = Field(GlowModelOptions(), description="the flow")
    activation_checkpointing: bool = Field(False, description=CHECKPOINTING_MEANING)
    data: ImageDataOptions = Field(description="the clean images; data.crop has to be model.window")

    @model_validator(mode="after")
    def _crops_are_windows(self) -> TrainGlowOptions:
        if self.data.crop != self.model.window:
            raise ValueError(f"expected data.crop to be model.window, {self.model.window}, got {self.data.crop}")
        return self

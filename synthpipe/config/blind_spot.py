"""Options of ``kind: blind_spot``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import NoisyDataOptions
from synthpipe.config.reader import Options
from synthpipe.config.run import RunOptions

__all__ = [
    "BlindSpotModelOptions",
    "DilatedNetOptions",
    "RotatedNetOptions",
    "SweepNetOptions",
    "TrainBlindSpotOptions",
]


class DilatedNetOptions(Options):
    """Dilated hole convolutions on a trunk that keeps the size (Honzatko et al. 2020)."""

    type: Literal["dilated"] = Field("dilated", description="chooses this network")
    depth: int = Field(
        7, ge=1, description="hole convolutions; the window is 4 * depth - 1 pixels across; published 11"
    )
    width: int = Field(32, ge=1, description="channels of the trunk; published 128")
    hole_width: int = Field(16, ge=1, description="channels of each hole convolution; published 18 or 64")
    head: tuple[int, ...] = Field(
        (96, 64, 32), description="channels of the 1x1 convolutions; published 198, 99, 99 or 384, 192, 96"
    )
    residual: bool = Field(False, description="add over pairs of the trunk's convolutions; published both ways")


class RotatedNetOptions(Options):
    """Four rotated U-Nets (Laine et al. 2019); published sizes are the defaults."""

    type: Literal["rotated"] = Field("rotated", description="chooses this network")
    width: int = Field(48, ge=1, description="channels of the encoder, half those of the decoder")
    levels: int = Field(5, ge=1, description="halvings of the image")
    head_widths: tuple[int, ...] = Field((384, 96), description="channels of the 1x1 convolutions")


class SweepNetOptions(Options):
    """Two deep and two thin sweeps: a quarter of the work of four rotated U-Nets."""

    type: Literal["sweeps"] = Field("sweeps", description="chooses this network")
    deep: tuple[int, ...] = Field((56, 80, 80, 80), description="channels at half the size, a quarter, ...")
    up: tuple[int, ...] = Field((96, 112, 112), description="channels coming back to those sizes, the deepest left out")
    full: int = Field(48, ge=1, description="channels of the deep sweeps at full size")
    thin: int = Field(32, ge=1, description="channels of the thin sweeps")
    head_widths: tuple[int, ...] = Field((96, 48), description="channels of the 1x1 convolutions")


NetOptions = Annotated[DilatedNetOptions | RotatedNetOptions | SweepNetOptions, Field(discriminator="type")]


class BlindSpotModelOptions(Options):
    """A blind-spot denoiser."""

    channels: Literal[1, 3] = Field(3, description="of the images: 3, or 1 for luma")
    net: NetOptions = Field(DilatedNetOptions(), description="the network, which never sees the pixel it predicts")
    noise: Literal["gaussian", "poisson", "signal_dependent", "impulse"] = Field(
        "gaussian", description="the law of the noise, which the likelihood is written for"
    )
    level: Literal["known", "total", "learned"] = Field(
        "known",
        description="where the noise level comes from; known: from the synthetic noise; total: unknown, told from the "
        "prediction; learned: one number for all images, trained with the network",
    )

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model."""
        return self.model_dump(mode="json")


class TrainBlindSpotOptions(RunOptions):
    """``kind: blind_spot``: a blind-spot denoiser, trained on noisy images alone."""

    examples: ClassVar = (
        """\
kind: blind_spot
run_dir: runs/blind_spot
hole: auto                           # for noise that is correlated between pixels
model: {level: total}                # the images are noisy as they are
data: {images: {folder: /data/noisy_photos}}
""",
    )

    kind: Literal["blind_spot"] = Field("blind_spot", description="chooses this kind of training")
    model: BlindSpotModelOptions = Field(BlindSpotModelOptions(), description="the denoiser")
    data: NoisyDataOptions = Field(description="the noisy images")
    hole: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        0,
        description="pixels on each side that are not seen while training; auto: as far as the noise of a hundred "
        "crops is correlated",
    )
    inference_hole: int | None = Field(
        None, ge=0, description="pixels on each side that the trained model does not see; null: as in training"
    )
    frame: int = Field(0, ge=0, description="pixels at the borders of crops that the loss leaves out")
    level_lr: float | None = Field(
        None, gt=0, description="with model.level learned: its learning rate; null: 30 times optimizer.lr"
    )

    @model_validator(mode="after")
    def _fits(self) -> TrainBlindSpotOptions:
        noise, model = self.data.noise, self.model
        if model.level == "known" and noise is None:
            raise ValueError("model.level 'known' needs data.noise; images that are noisy already need level 'total'")
        if noise is not None and noise.type != model.noise and model.level != "total":
            raise ValueError(f"model.noise is {model.noise!r}, but data.noise is {noise.type!r}")
        if model.noise == "impulse" and model.level == "total":
            raise ValueError("impulse noise adds no variance to tell; take model.level 'known' or 'learned'")
        if 2 * self.frame >= self.data.crop:
            raise ValueError(f"a frame of {self.frame} leaves nothing of crops of {self.data.crop}")
        return self

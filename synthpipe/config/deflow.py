"""Options of the DeFlow model and its published presets; the fields are the constructor's arguments."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options, PresetOptions
from synthpipe.config.run import (
    AUGMENT_MEANING,
    CHECKPOINTING_MEANING,
    Augment,
    DomainOptions,
    ReadingOptions,
    RunOptions,
)
from synthpipe.flows.deflow_official import AIM_STATISTICS

__all__ = [
    "PRESETS",
    "CleanDomainOptions",
    "DeFlowModelOptions",
    "NormalizationOptions",
    "RRDBEncoderOptions",
    "SmallEncoderOptions",
    "TrainDeFlowOptions",
    "UnpairedOptions",
]

Triple = tuple[float, float, float]


class RRDBEncoderOptions(Options):
    """ESRGAN's trunk with tapped blocks (published)."""

    type: Literal["rrdb"] = Field("rrdb", description="chooses this encoder")
    features: int = Field(64, ge=1, description="channels of the trunk")
    growth: int = Field(32, ge=1, description="channels that each dense convolution adds")
    blocks: int = Field(23, ge=1, description="residual-in-residual blocks")
    taps: tuple[int, ...] = Field(
        (1, 8, 15, 22), description="ascending numbers, from 0, of the blocks whose outputs every level gets"
    )


class SmallEncoderOptions(Options):
    """A few convolutions at the reduced size."""

    type: Literal["small"] = Field("small", description="chooses this encoder")
    features: int = Field(32, ge=1, description="channels of the trunk and of what every level gets")
    depth: int = Field(2, ge=0, description="residual pairs of 3x3 convolutions; 0 leaves one convolution")


class NormalizationOptions(Options):
    """Statistics of both domains, by which noisy images are mapped onto the mean and spread of clean ones."""

    clean_mean: Triple = Field(description="mean of the clean images, R, G, B on the 0..255 scale")
    clean_std: Triple = Field(description="their standard deviation, above 0, on that scale")
    noisy_mean: Triple = Field(description="mean of the noisy images, on that scale")
    noisy_std: Triple = Field(description="their standard deviation, above 0, on that scale")
    lr_clean_mean: Triple = Field(description="mean of the reduced clean images, on that scale")
    lr_clean_std: Triple = Field(description="their standard deviation, above 0, on that scale")
    lr_noisy_mean: Triple = Field(description="mean of the reduced noisy images, on that scale")
    lr_noisy_std: Triple = Field(description="their standard deviation, above 0, on that scale")
    clamp: bool = Field(
        False, description="cut mapped images to [0, 1], as the reference does: over- and undershoot go"
    )


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


class DeFlowModelOptions(PresetOptions):
    """Arguments of :class:`synthpipe.flows.DeFlow`, from a preset or from parts; keys beside ``preset`` override it.

    The defaults are our corrections of the reference (``covariance_init`` 1, ``quant`` 255, no noise left in the
    output, no clamp); the published value stands beside each.
    """

    presets: ClassVar = PRESETS

    preset: Literal["aim", "ntire", "dped", "small"] | None = Field(
        None,
        description="aim, ntire, dped: published sizes, for a GPU; small: trains on two CPU cores; null: the defaults",
    )
    scale: Literal[2, 4, 8, 16] = Field(4, description="the flow is conditioned on the image reduced by this, bicubic")
    levels: int = Field(3, ge=2, le=6, description="squeezes; sides are padded to a multiple of 2^levels and of scale")
    steps: int = Field(16, ge=1, description="flow steps with a coupling, of each level")
    transition_steps: int = Field(2, ge=0, description="steps without a coupling at the start of each level")
    hidden: int = Field(64, ge=1, description="width of the networks of each coupling")
    encoder: RRDBEncoderOptions | SmallEncoderOptions = Field(
        RRDBEncoderOptions(), discriminator="type", description="the network that looks at the reduced image"
    )
    condition_noise: float = Field(
        0.03, ge=0, le=1, description="standard deviation of noise added to the reduced image, on the [0, 1] scale"
    )
    quant: int = Field(
        255, ge=2, description="dequantisation noise is uniform of width 1 / quant; 255 fits 8 bits, published 32"
    )
    dequantize_output: bool = Field(
        False, description="keep that noise on when images are degraded, which leaves it in them; published true"
    )
    covariance: Literal["full", "diagonal", "colour"] = Field(
        "full",
        description="of the shift from clean to noisy latents; full: one matrix (published); diagonal; colour: follows "
        "the colour of the reduced image, and the spread of clean latents its texture",
    )
    covariance_init: float = Field(
        1.0, ge=0, description="standard deviation of the shift at the start; published 0, which never trains"
    )
    scale_eps: float = Field(
        0.001, gt=0, le=1, description="lower end of the couplings' scales; larger is safer against NaN"
    )
    coupling: Literal["affine", "additive"] = Field(
        "affine",
        description="affine: published; additive: scales follow the colour of the reduced image alone, no contrast",
    )
    whiten: bool = Field(False, description="start each level at the whitening of the first batch; published false")
    normalization: NormalizationOptions | None = Field(None, description="statistics of both domains; null: none")
    unconditional: bool = Field(False, description="set the reduced image to zero, an ablation of the paper")
    level: bool = Field(
        False,
        description="noise follows a level, too, measured on flat areas of each noisy image; so a pile of several ISO "
        "settings trains one model, and use can ask for a level; needs covariance: colour and folders",
    )


class CleanDomainOptions(DomainOptions):
    """The clean one of two piles."""

    resize_range: tuple[float, float] | Literal["auto"] | None = Field(  # type: ignore[assignment]
        None,
        description="[low, high] within 0.05 to 4: each crop is resized by a factor drawn log-uniformly; needs folder; "
        "auto: a range whose middle makes them as sharp as the noisy images, or none; null: crops keep their size",
    )

    @model_validator(mode="after")
    def _check_auto(self) -> CleanDomainOptions:
        if self.resize_range == "auto" and self.blur is not None:
            raise ValueError("'resize_range: auto' and 'blur' both make clean images as soft as noisy ones: give one")
        return self


class UnpairedOptions(ReadingOptions):
    """Two unpaired domains: every batch is half clean, half noisy.  What is ``auto`` is measured on both."""

    augment: Augment | Literal["auto"] = Field(  # type: ignore[assignment]
        "hflip",
        description=AUGMENT_MEANING + "; auto: flips where noise differs between rows and columns, else dihedral",
    )
    align: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        1,
        description="crops that are not resized begin at multiples of this, which divides crop; needs folders; auto: "
        "at JPEG blocks where the noisy images have them, 8 or 16, else 1",
    )
    clean: CleanDomainOptions = Field(description="the clean images")
    noisy: DomainOptions = Field(description="the degraded images, which need not show the same things")
    crop: int = Field(160, ge=8, description="side of the square crops in pixels")
    batch_size: int = Field(8, ge=2, description="crops per step over all processes, half of them clean; even")

    @model_validator(mode="after")
    def _check(self) -> UnpairedOptions:
        if self.batch_size % 2:
            raise ValueError("expected an even 'batch_size': half of a batch is clean, half is noisy")
        if isinstance(self.align, int) and self.crop % self.align:
            raise ValueError(f"expected a 'crop' that is a multiple of 'align' {self.align}, got {self.crop}")
        if (self.measured or self.align != 1) and (self.clean.shards is not None or self.noisy.shards is not None):
            raise ValueError("'auto' and 'align' need folders: give values, and make crops with `synthpipe shard`")
        return self

    @property
    def measured(self) -> bool:
        """Whether something is ``auto``."""
        return "auto" in (self.augment, self.align, self.clean.resize_range)


class TrainDeFlowOptions(RunOptions):
    """``kind: deflow``: a conditional flow on two unpaired domains."""

    examples: ClassVar = (
        """\
kind: deflow
run_dir: runs/mine
max_steps: 3000
model: {preset: small}
data:
  clean: {folder: /data/clean_photos}
  noisy: {folder: /data/noisy_photos}
  crop: 64
  batch_size: 16
  augment: flips
optimizer: {lr: 0.002}
schedule: {kind: cosine, warmup_steps: 100}
""",
    )

    kind: Literal["deflow"] = Field("deflow", description="chooses this kind of training")
    model: DeFlowModelOptions = Field(DeFlowModelOptions(), description="the flow")
    activation_checkpointing: bool = Field(False, description=CHECKPOINTING_MEANING)
    calibrate: bool = Field(
        False,
        description="after the last step, and where the distance is measured, correct what the model adds by what flat "
        "areas of the noisy images show: covariance of R, G, B by brightness and level, correlation over two pixels; "
        "needs folders",
    )
    report: bool = Field(
        True,
        description="every sample_every steps the distance of what the model adds from flat areas of noisy images, in "
        "the log, TensorBoard and distance.csv; best.safetensors is of the last step within 0.006 of the least, "
        "report.html of it at the end; needs folders, else nothing is measured",
    )
    data: UnpairedOptions = Field(description="the two piles of images")

"""Options of ``kind: flow_prior``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.denoiser_data import NoisyDataOptions, PlainDenoiserModelOptions
from synthpipe.config.noise import ImpulseTrainingNoise
from synthpipe.config.places import Weights
from synthpipe.config.reader import Options
from synthpipe.config.run import RunOptions

__all__ = [
    "AutomaticWeightOptions",
    "BlurTermOptions",
    "ExactWeightOptions",
    "FixedWeightOptions",
    "MeasuredNoiseOptions",
    "NoiseModel",
    "PlainTermOptions",
    "SteinTermOptions",
    "TrainFlowPriorOptions",
]


class PlainTermOptions(Options):
    """Minus the log-likelihood of Gaussian noise, with the variance of each value."""

    type: Literal["plain"] = Field("plain", description="chooses this term")


class BlurTermOptions(Options):
    """The published term: both images blurred first, so that one weight serves all levels."""

    type: Literal["blur"] = Field("blur", description="chooses this term")
    std: float = Field(1.0, gt=0, le=8, description="standard deviation of the Gaussian blur in pixels")


class SteinTermOptions(Options):
    """Stein's unbiased estimate of the squared error (1981): the residual, and what the output owes to the noise."""

    type: Literal["stein"] = Field("stein", description="chooses this term")


class ExactWeightOptions(Options):
    """The weight of maximum a posteriori."""

    type: Literal["exact"] = Field("exact", description="chooses this weight")


class FixedWeightOptions(Options):
    """A multiple of the exact weight."""

    type: Literal["fixed"] = Field("fixed", description="chooses this weight")
    kappa: float = Field(ge=0, description="the multiple; 1 is exact")


class AutomaticWeightOptions(Options):
    """A multiple of the exact weight that follows the residual during training; needs no clean images."""

    type: Literal["automatic"] = Field("automatic", description="chooses this weight")
    start: float = Field(1.0, gt=0, description="the multiple at the first step; noise leaves sooner than it comes")
    rule: Literal["orthogonal", "white", "variance"] = Field(
        "orthogonal",
        description="what it follows; orthogonal: residual and error are, by Stein's lemma; white: the residual's "
        "correlation is what the lemma says, whatever the level; variance: the published one, 0.875 of the noise's",
    )
    rate: float = Field(0.02, gt=0, le=0.5, description="largest change of the logarithm of the multiple in a step")
    knots: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (),
        description="ascending noise levels that have a weight of their own, which is interpolated between them; "
        "none: one weight for all",
    )

    @model_validator(mode="after")
    def _ascend(self) -> AutomaticWeightOptions:
        if list(self.knots) != sorted(set(self.knots)):
            raise ValueError(f"knots: expected ascending noise levels, got {list(self.knots)}")
        return self


class MeasuredNoiseOptions(Options):
    """Noise of variance ``a * x + b`` at brightness x, as ``synthpipe.noise_fit`` measures it."""

    a: float = Field(ge=0, le=1, description="by how much the variance grows from black to white, on the [0, 1] scale")
    b: float = Field(gt=0, le=1, description="the variance at black, on the [0, 1] scale")


NoiseModel = (
    Literal["known", "estimated", "estimated_line"] | Annotated[float, Field(gt=0, le=1)] | MeasuredNoiseOptions
)


class TrainFlowPriorOptions(RunOptions):
    """``kind: flow_prior``: a denoiser from noisy images and a flow of clean ones."""

    examples: ClassVar = (
        """\
kind: flow_prior
run_dir: runs/flow_prior
prior: glow_small
noise_model: estimated_line          # of images that are noisy as they are
data: {images: {folder: /data/noisy_photos}, crop: 40}
data_term: {type: stein}
weight: {type: automatic, rule: white}
""",
    )

    kind: Literal["flow_prior"] = Field("flow_prior", description="chooses this kind of training")
    model: PlainDenoiserModelOptions = Field(PlainDenoiserModelOptions(), description="the denoiser")
    prior: Weights = Field(
        description="weights of kind glow, a density of clean images: a file, or the name of shipped ones (glow_small)"
    )
    data: NoisyDataOptions = Field(description="the noisy images")
    noise_model: NoiseModel = Field(
        "known",
        description="what the noise is taken for; known: as data.noise says; estimated: one level for each crop, from "
        "it; estimated_line: variance over brightness, likewise; a number: this standard deviation on the [0, 1] "
        "scale; {a, b}: this variance over brightness",
    )
    correlation: Literal["known", "white", "measured"] | None = Field(
        None,
        description="of the noise between pixels; known: as data.noise says; measured: from a hundred crops; null: "
        "known where noise_model is, else measured",
    )
    data_term: PlainTermOptions | BlurTermOptions | SteinTermOptions = Field(
        PlainTermOptions(), discriminator="type", description="what ties the result to the noisy image"
    )
    weight: ExactWeightOptions | FixedWeightOptions | AutomaticWeightOptions = Field(
        AutomaticWeightOptions(), discriminator="type", description="of the prior against the data term"
    )
    prior_warmup: int = Field(0, ge=0, description="steps over which the prior's weight rises from 0")
    max_pull: float | None = Field(
        None,
        gt=0,
        description="the prior's gradient is cut where it is more than this many times that of pure noise; null: never",
    )

    @property
    def correlation_used(self) -> Literal["known", "white", "measured"]:
        """``correlation``, with what it is where it is not given."""
        return self.correlation or ("known" if self.noise_model == "known" else "measured")

    @model_validator(mode="after")
    def _noise_is_known(self) -> TrainFlowPriorOptions:
        if isinstance(self.data.noise, ImpulseTrainingNoise):
            raise ValueError("data.noise: impulse noise has no data term here; use kind blind_spot")
        if self.noise_model == "known" and self.data.noise is None:
            raise ValueError(
                "noise_model: 'known' needs data.noise; for noisy images give 'estimated', a number or {a, b}"
            )
        if self.correlation == "known" and self.data.noise is None:
            raise ValueError("correlation: 'known' needs data.noise; for noisy images take measured or white")
        return self

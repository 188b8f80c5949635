"""Options of the noise that a training adds to images: a law, neither clipped nor rounded, or any degradation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options

__all__ = [
    "AnyTrainingNoise",
    "DegradeTrainingNoise",
    "GaussianTrainingNoise",
    "ImpulseTrainingNoise",
    "PoissonTrainingNoise",
    "SignalDependentTrainingNoise",
    "TrainingNoise",
]

_Level = Annotated[float, Field(ge=0, le=1)]


class _Range(Options):
    """Options with one range that ascends."""

    @model_validator(mode="after")
    def _ascends(self) -> _Range:
        for name, value in self:
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{name}: expected [low, high], got {list(value)}")
        return self


class GaussianTrainingNoise(_Range):
    """Gaussian noise of one level for each image; white, or correlated between neighbours."""

    type: Literal["gaussian"] = Field("gaussian", description="chooses Gaussian noise")
    sigma: tuple[_Level, _Level] = Field(
        description="[low, high]: standard deviation on the [0, 1] scale, drawn uniformly for each image"
    )
    binomial: int = Field(
        0,
        ge=0,
        le=8,
        description="how often the 3x3 binomial kernel (1 2 1) x (1 2 1) / 16 filters white noise before it is scaled "
        "to sigma; 0: white",
    )


class PoissonTrainingNoise(_Range):
    """``Poisson(lam * x) / lam`` at brightness x."""

    type: Literal["poisson"] = Field("poisson", description="chooses Poisson noise")
    lam: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="[low, high]: counts at white, drawn uniformly for each image"
    )


class SignalDependentTrainingNoise(_Range):
    """Gaussian noise of variance ``a * x + b`` at brightness x."""

    type: Literal["signal_dependent"] = Field("signal_dependent", description="chooses signal-dependent noise")
    a: tuple[_Level, _Level] = Field(
        description="[low, high]: growth of the variance from black to white on the [0, 1] scale, drawn uniformly for "
        "each image"
    )
    b: tuple[_Level, _Level] = Field(
        description="[low, high]: variance at black on the [0, 1] scale, drawn uniformly for each image"
    )


class ImpulseTrainingNoise(_Range):
    """Some of the pixels replaced by uniformly drawn colours."""

    type: Literal["impulse"] = Field("impulse", description="chooses impulse noise")
    alpha: tuple[_Level, _Level] = Field(
        description="[low, high]: share of the pixels that are replaced, drawn uniformly for each image"
    )


class DegradeTrainingNoise(Options):
    """Whatever a degradation of an option file does at scale 1: learned noise of a camera, JPEG, a choice of many."""

    type: Literal["degrade"] = Field("degrade", description="chooses a degradation")
    degrade: DegradeOptions = Field(
        description="a list of stages, the name of a preset, or a block, as `degrade` of a stream; at scale 1"
    )


#: The noise whose law is known to the last parameter.
TrainingNoise = Annotated[
    GaussianTrainingNoise | PoissonTrainingNoise | SignalDependentTrainingNoise | ImpulseTrainingNoise,
    Field(discriminator="type"),
]

#: All of them, for trainings that need pairs and no law.
AnyTrainingNoise = Annotated[
    GaussianTrainingNoise
    | PoissonTrainingNoise
    | SignalDependentTrainingNoise
    | ImpulseTrainingNoise
    | DegradeTrainingNoise,
    Field(discriminator="type"),
]

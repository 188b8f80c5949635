"""Options of the synthetic noise that a training adds to images; it is neither clipped nor rounded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = [
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

    type: Literal["gaussian"] = "gaussian"
    #: Standard deviation on the [0, 1] scale, drawn uniformly from [low, high] for each image.
    sigma: tuple[_Level, _Level]
    #: Times that the 3x3 binomial kernel (1 2 1) x (1 2 1) / 16 filters white noise before it is scaled to ``sigma``.
    binomial: int = Field(0, ge=0, le=8)


class PoissonTrainingNoise(_Range):
    """``Poisson(lam * x) / lam``, lam drawn uniformly from [low, high] for each image."""

    type: Literal["poisson"] = "poisson"
    lam: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class SignalDependentTrainingNoise(_Range):
    """Gaussian noise of variance ``a * x + b`` at brightness x, both drawn uniformly for each image."""

    type: Literal["signal_dependent"] = "signal_dependent"
    a: tuple[_Level, _Level]
    b: tuple[_Level, _Level]


class ImpulseTrainingNoise(_Range):
    """A share ``alpha`` of the pixels replaced by uniformly drawn colours."""

    type: Literal["impulse"] = "impulse"
    alpha: tuple[_Level, _Level]


TrainingNoise = Annotated[
    GaussianTrainingNoise | PoissonTrainingNoise | SignalDependentTrainingNoise | ImpulseTrainingNoise,
    Field(discriminator="type"),
]

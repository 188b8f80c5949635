"""Options of degradations: what turns a clean tile into its low-quality partner."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = [
    "BlurOptions",
    "ClassicalDegradeOptions",
    "DeFlowDegradeOptions",
    "DegradeOptions",
    "GaussianNoiseOptions",
    "PoissonGaussianNoiseOptions",
]

_Sigma = Annotated[float, Field(ge=0, le=1)]
_Triple = tuple[float, float, float]


class DeFlowDegradeOptions(Options):
    """A learned degradation: bicubic reduction, then a trained DeFlow."""

    type: Literal["deflow"] = "deflow"
    #: A ``.safetensors`` file, or the name of weights shipped with synthpipe (``deflow_small``).
    weights: str = Field(min_length=1)
    #: How far latents move towards the noisy domain: 1 is the degradation as trained, 0 none.
    strength: float = Field(default=1.0, ge=0, le=4)


class BlurOptions(Options):
    """Gaussian blur of the reduced image; each sample draws its own kernel."""

    #: Standard deviation along the wide axis, in low-resolution pixels: drawn uniformly from [low, high].
    sigma: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]]
    #: Narrow over wide axis, drawn uniformly from [low, high]; (1, 1) is isotropic.  The direction is uniform.
    ratio: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (1.0, 1.0)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> BlurOptions:
        for name, (low, high) in (("sigma", self.sigma), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name}: expected [low, high], got [{low}, {high}]")
        return self


class GaussianNoiseOptions(Options):
    """Gaussian noise, independent between pixels: white (``sigma``) or correlated between channels (``covariance``)."""

    type: Literal["gaussian"] = "gaussian"
    #: Standard deviation on the [0, 1] scale, drawn uniformly from [low, high] for each sample.
    sigma: tuple[_Sigma, _Sigma] | None = None
    #: Covariance of R, G, B on the [0, 1] scale, in place of ``sigma``.
    covariance: tuple[_Triple, _Triple, _Triple] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> GaussianNoiseOptions:
        if (self.sigma is None) == (self.covariance is None):
            raise ValueError("gaussian noise needs either sigma: [low, high] or covariance: 3x3, and not both")
        if self.sigma is not None and self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma: expected [low, high], got {list(self.sigma)}")
        if self.covariance is not None:
            matrix = np.array(self.covariance)
            if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-9) or np.linalg.eigvalsh(matrix).min() < -1e-9:
                raise ValueError(f"covariance: expected a symmetric matrix without negative eigenvalues, got {matrix}")
        return self


class PoissonGaussianNoiseOptions(Options):
    """Signal-dependent Gaussian noise: variance ``a * x + b`` per channel at brightness x in [0, 1].

    Negative variances (a falling line that crosses zero) count as none.
    """

    type: Literal["poisson_gaussian"] = "poisson_gaussian"
    a: _Triple
    b: _Triple


class ClassicalDegradeOptions(Options):
    """A hand-made degradation: bicubic reduction, then blur, noise and JPEG, each optional."""

    type: Literal["classical"] = "classical"
    blur: BlurOptions | None = None
    noise: Annotated[GaussianNoiseOptions | PoissonGaussianNoiseOptions, Field(discriminator="type")] | None = None
    #: JPEG quality, drawn uniformly from the whole numbers [low, high] for each sample.
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] | None = None

    @model_validator(mode="after")
    def _quality_ascends(self) -> ClassicalDegradeOptions:
        if self.jpeg_quality is not None and self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality: expected [low, high], got {list(self.jpeg_quality)}")
        return self


DegradeOptions = Annotated[DeFlowDegradeOptions | ClassicalDegradeOptions, Field(discriminator="type")]

"""Options of degradations: what turns a clean tile into its low-quality partner.

:data:`DegradeOptions`, at the end, is the only list of them; :mod:`synthpipe.transforms.build` makes each a transform.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from synthpipe.config.places import Weights
from synthpipe.config.reader import Options

_Sigma = Annotated[float, Field(ge=0, le=1)]
_Triple = tuple[float, float, float]
# YAML reads `precision: 32` as a number.
_Precision = Annotated[
    Literal["32", "bf16"],
    BeforeValidator(lambda value: "32" if value == 32 else value),
    WithJsonSchema({"enum": ["32", 32, "bf16"]}),
]
_Strength = Annotated[float, Field(ge=0, le=4)]


class DeFlowDegradeOptions(Options):
    """A learned degradation: bicubic reduction, then a trained DeFlow."""

    examples: ClassVar = (
        """\
# learned: weights that ship with synthpipe, or a file that `synthpipe train` wrote
degrade: {type: deflow, weights: deflow_small}
""",
        """\
# two degradations of each tile, each between half and all of the way to the noisy domain
degrade: {type: deflow, weights: deflow_small, strength: [0.5, 1.0], samples: 2}
""",
    )

    type: Literal["deflow"] = Field("deflow", description="chooses a learned degradation")
    weights: Weights = Field(
        description="a .safetensors file, or the name of weights that ship with synthpipe (deflow_small)"
    )
    strength: _Strength | tuple[_Strength, _Strength] = Field(
        1.0,
        description="how far latents move to the noisy domain: 1 is the degradation as trained, 0 none; [low, high]: "
        "drawn uniformly for each degraded tile",
    )
    samples: int = Field(
        1,
        ge=1,
        le=64,
        description="degradations of each tile, each with patches_per_tile patches of its own; further ones cost a "
        "fraction of the first, whose features, condition noise and latents they share",
    )
    precision: _Precision = Field(
        "32",
        description="of the part of the flow that depends on the reduced image alone; bf16 is faster where the "
        "processor has it, and a slightly different degradation",
    )

    @model_validator(mode="after")
    def _strength_ascends(self) -> DeFlowDegradeOptions:
        if isinstance(self.strength, tuple) and self.strength[0] > self.strength[1]:
            raise ValueError(f"strength: expected [low, high], got {list(self.strength)}")
        return self


class BlurOptions(Options):
    """Gaussian blur of the reduced image; each sample draws its own kernel."""

    sigma: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]] = Field(
        description="[low, high]: standard deviation along the wide axis, in low-resolution pixels, drawn uniformly"
    )
    ratio: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (1.0, 1.0),
        description="[low, high]: narrow over wide axis, drawn uniformly; 1 is a circle; the direction is uniform, too",
    )

    @model_validator(mode="after")
    def _ranges_ascend(self) -> BlurOptions:
        for name, (low, high) in (("sigma", self.sigma), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name}: expected [low, high], got [{low}, {high}]")
        return self


class GaussianNoiseOptions(Options):
    """Gaussian noise, independent between pixels: white (``sigma``) or correlated between channels (``covariance``)."""

    type: Literal["gaussian"] = Field("gaussian", description="chooses Gaussian noise")
    sigma: tuple[_Sigma, _Sigma] | None = Field(
        None,
        description="[low, high]: standard deviation on the [0, 1] scale, drawn uniformly for each sample; exactly one "
        "of sigma and covariance",
    )
    covariance: tuple[_Triple, _Triple, _Triple] | None = Field(
        None, description="3x3 covariance of R, G, B on the [0, 1] scale, in place of sigma"
    )

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

    type: Literal["poisson_gaussian"] = Field("poisson_gaussian", description="chooses signal-dependent noise")
    a: _Triple = Field(description="R, G, B: by how much the variance grows from black to white, on the [0, 1] scale")
    b: _Triple = Field(description="R, G, B: the variance at black, on the [0, 1] scale")


class ClassicalDegradeOptions(Options):
    """A hand-made degradation: bicubic reduction, then blur, noise and JPEG, each optional."""

    examples: ClassVar = (
        """\
# blur: each sample has its own width, from 0.4 to 1.5 low-resolution pixels, and direction
degrade:
  type: classical
  blur: {sigma: [0.4, 1.5], ratio: [0.6, 1.0]}
""",
        """\
# JPEG: each sample has its own quality
degrade: {type: classical, jpeg_quality: [50, 95]}
""",
        """\
# Poisson-Gaussian noise: sigma is 2 of 255 at black, sqrt(b), and 8 of 255 at white, sqrt(a + b); R, G, B
degrade:
  type: classical
  noise: {type: poisson_gaussian, a: [0.00092, 0.00092, 0.00092], b: [0.00006, 0.00006, 0.00006]}
""",
        """\
# white Gaussian noise of 1 to 10 of 255
degrade:
  type: classical
  noise: {type: gaussian, sigma: [0.004, 0.04]}
""",
        """\
# Gaussian noise of 5 of 255 that is alike in R, G and B (correlation 0.5)
degrade:
  type: classical
  noise:
    type: gaussian
    covariance: [[0.0004, 0.0002, 0.0002], [0.0002, 0.0004, 0.0002], [0.0002, 0.0002, 0.0004]]
""",
        """\
# all of it, in the order in which it is applied
degrade:
  type: classical
  blur: {sigma: [0.3, 1.2]}
  noise: {type: gaussian, sigma: [0.0, 0.02]}
  jpeg_quality: [70, 95]
""",
    )

    type: Literal["classical"] = Field("classical", description="chooses a hand-made degradation")
    blur: BlurOptions | None = Field(None, description="blur after the reduction; null: none")
    noise: Annotated[GaussianNoiseOptions | PoissonGaussianNoiseOptions, Field(discriminator="type")] | None = Field(
        None, description="noise after the blur, drawn anew for each sample; null: none"
    )
    jpeg_quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] | None = Field(
        None,
        description="[low, high]: JPEG quality after the noise, a whole number drawn uniformly for each sample; null: "
        "no JPEG",
    )

    @model_validator(mode="after")
    def _quality_ascends(self) -> ClassicalDegradeOptions:
        if self.jpeg_quality is not None and self.jpeg_quality[0] > self.jpeg_quality[1]:
            raise ValueError(f"jpeg_quality: expected [low, high], got {list(self.jpeg_quality)}")
        return self


#: Every degradation, told apart by ``type``.
DegradeOptions = Annotated[DeFlowDegradeOptions | ClassicalDegradeOptions, Field(discriminator="type")]

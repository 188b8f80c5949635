"""Options of the hand-made degradation in one fixed order, `classical`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from synthpipe.config.reader import Options

__all__ = ["BlurOptions", "ClassicalDegradeOptions", "GaussianNoiseOptions", "PoissonGaussianNoiseOptions"]

_Sigma = Annotated[float, Field(ge=0, le=1)]
_Triple = tuple[float, float, float]


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
            if not _is_covariance(matrix):
                raise ValueError(f"covariance: expected a symmetric matrix without negative eigenvalues, got {matrix}")
        return self


_LARGEST_COLOUR_KERNEL = 31


class PoissonGaussianNoiseOptions(Options):
    """Signal-dependent Gaussian noise: variance ``a * x + b`` per channel at brightness x in [0, 1].

    Negative variances (a falling line that crosses zero) count as none.  White and independent in R, G, B, unless
    ``correlation`` and ``kernel`` say otherwise: :func:`synthpipe.noise_fit.fit_coloured_noise` fits all four to pairs.
    """

    type: Literal["poisson_gaussian"] = Field("poisson_gaussian", description="chooses signal-dependent noise")
    a: _Triple = Field(description="R, G, B: by how much the variance grows from black to white, on the [0, 1] scale")
    b: _Triple = Field(description="R, G, B: the variance at black, on the [0, 1] scale")
    correlation: tuple[_Triple, _Triple, _Triple] | None = Field(
        None, description="3x3 correlation of R, G and B; null: each for itself"
    )
    kernel: tuple[tuple[float, ...], ...] | None = Field(
        None,
        description="rows of a square of odd side, at most 31, that white noise is convolved with before it gets its "
        "variance; only its shape counts; null: neighbours are independent",
    )

    @model_validator(mode="after")
    def _colours_exist(self) -> PoissonGaussianNoiseOptions:
        if self.correlation is not None:
            matrix = np.array(self.correlation)
            if not (_is_covariance(matrix) and np.allclose(matrix.diagonal(), 1, rtol=0, atol=1e-6)):
                raise ValueError(f"correlation: expected a covariance with ones on its diagonal, got {matrix}")
        if self.kernel is not None:
            side = len(self.kernel)
            square = all(len(row) == side for row in self.kernel)
            if not square or side % 2 == 0 or side > _LARGEST_COLOUR_KERNEL or not np.any(self.kernel):
                raise ValueError(
                    f"kernel: expected a square of odd side, at most {_LARGEST_COLOUR_KERNEL}, that is not all zero, "
                    f"got rows of {[len(row) for row in self.kernel]}"
                )
        return self


def _is_covariance(matrix: NDArray[np.float64]) -> bool:
    return bool(np.allclose(matrix, matrix.T, rtol=0, atol=1e-9) and np.linalg.eigvalsh(matrix).min() >= -1e-9)


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
# the same with neighbours and channels that hang together, as those of a developed photograph
degrade:
  type: classical
  noise:
    type: poisson_gaussian
    a: [0.0003, 0.0003, 0.0003]
    b: [0.0001, 0.0001, 0.0001]
    correlation: [[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]]
    kernel: [[0.1, 0.3, 0.1], [0.3, 1, 0.3], [0.1, 0.3, 0.1]]
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

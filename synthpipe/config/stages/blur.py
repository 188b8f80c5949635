"""Options of the stage that blurs: weights of kinds of kernels, and what each kind draws."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from synthpipe.config.places import File
from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["BlurKinds", "BlurStageOptions", "OddSides"]

#: Pixels, of kernels and windows.
_LARGEST_KERNEL, _LARGEST_WINDOW, _LARGEST_MEDIAN = 101, 31, 9


def _odd(value: tuple[int, int]) -> tuple[int, int]:
    even = [side for side in value if side % 2 == 0]
    if even:
        raise ValueError(f"expected odd numbers, got {list(value)}; write {even[0] + 1} for {even[0]}")
    return value


#: ``[low, high]`` of odd numbers.
OddSides = Annotated[Range[Annotated[int, Field(ge=1, le=_LARGEST_KERNEL)]], AfterValidator(_odd)]
_Sigma = Annotated[float, Field(ge=0, le=50)]
_Beta = Annotated[float, Field(ge=0.05, le=20)]


class BlurKinds(Weights):
    """How often each kind of kernel is drawn, in proportion to the sum; kinds that are left out never."""

    isotropic: Weight = Field(0.0, description="round Gaussian, exp(-d^2 / 2) at d = distance / sigma")
    anisotropic: Weight = Field(
        0.0, description="Gaussian with sigma along angle and sigma_y across; d is then the distance in its axes"
    )
    generalized_isotropic: Weight = Field(0.0, description="exp(-d^(2 beta) / 2), round")
    generalized_anisotropic: Weight = Field(0.0, description="exp(-d^(2 beta) / 2)")
    plateau_isotropic: Weight = Field(0.0, description="1 / (1 + d^(2 beta)), round")
    plateau_anisotropic: Weight = Field(0.0, description="1 / (1 + d^(2 beta))")
    sinc: Weight = Field(0.0, description="ideal low-pass filter, round: rings at edges")
    lens: Weight = Field(0.0, description="out of focus: a disc, or a polygon of the aperture's blades")
    motion: Weight = Field(0.0, description="a straight line, or the path of a shaken camera")
    box: Weight = Field(0.0, description="mean of a square window")
    median: Weight = Field(0.0, description="median of a square window")
    bank: Weight = Field(0.0, description="one of the kernels in the file bank")


class BlurStageOptions(StageOptions):
    """Blur; each sample draws its kernel's kind, size and shape."""

    examples: ClassVar = (
        """\
# the first blur of Real-ESRGAN
degrade:
  - type: blur
    kinds:
      isotropic: 0.405
      anisotropic: 0.225
      generalized_isotropic: 0.108
      generalized_anisotropic: 0.027
      plateau_isotropic: 0.108
      plateau_anisotropic: 0.027
      sinc: 0.1
    size: [7, 21]
    sigma: [0.2, 3]
    beta_generalized: [0.5, 4]
    beta_plateau: [1, 2]
  - {type: resize, to: lr, filter: area}
""",
        """\
# a camera out of focus, or shaken
degrade:
  - {type: blur, kinds: {lens: 1, motion: 1}, radius: [1, 3], blades: 6, length: [3, 9], shake: [0, 60]}
  - {type: resize, to: lr, filter: bicubic}
""",
        """\
# kernels that were estimated from real photographs, in half of the samples
degrade:
  - {type: blur, kinds: {bank: 1}, bank: kernels.npy, probability: 0.5}
  - {type: resize, to: lr, filter: bicubic}
""",
    )

    type: Literal["blur"] = Field("blur", description="chooses blur")
    kinds: BlurKinds = Field(
        BlurKinds(isotropic=1.0), description="how often each kind of kernel is drawn, in proportion to the sum"
    )
    size: OddSides = Field(
        (7, 21),
        description="[low, high]: side of the Gaussian, generalized, plateau and sinc kernels in pixels, an odd number "
        "drawn uniformly",
    )
    sigma: Range[_Sigma] = Field(
        (0.2, 3.0),
        description="[low, high]: standard deviation of the Gaussian, generalized and plateau kinds in pixels: of "
        "round ones, or along angle",
    )
    sigma_y: Range[_Sigma] | None = Field(
        None, description="[low, high]: the same across angle, drawn for itself; null: as sigma"
    )
    sigma_law: Literal["uniform", "variance"] = Field(
        "uniform",
        description="uniform: sigma is drawn uniformly; variance: its square is, as BSRGAN draws the eigenvalues of a "
        "kernel's covariance",
    )
    angle: Range[Annotated[float, Field(ge=-360, le=360)]] = Field(
        (-180.0, 180.0),
        description="[low, high]: degrees from the direction of rows towards that of columns (clockwise as seen), of "
        "kernels that are not round: Gaussian, generalized, plateau, motion, blades; drawn uniformly",
    )
    beta_generalized: Range[_Beta] = Field(
        (0.5, 4.0),
        description="[low, high]: exponent of the generalized kinds; 1 is a Gaussian; where 1 lies in the range, half "
        "of the samples draw below 1 and half above it, as BasicSR's, else all uniformly",
    )
    beta_plateau: Range[_Beta] = Field(
        (1.0, 2.0), description="[low, high]: exponent of the plateau kinds, drawn as beta_generalized"
    )
    cutoff: Range[Annotated[float, Field(ge=0.05, le=3.1416)]] | None = Field(
        None,
        description="[low, high]: cutoff of sinc kernels in radians for each pixel, of 0 to pi (no blur), drawn "
        "uniformly; null: of [pi/3, pi] for kernels smaller than 13 pixels, else of [pi/5, pi], as Real-ESRGAN's",
    )
    radius: Range[Annotated[float, Field(ge=0, le=40)]] = Field(
        (0.5, 3.0), description="[low, high]: radius of lens blur in pixels, to the corners of a polygon"
    )
    blades: Annotated[int, Field(ge=3, le=12)] | None = Field(
        None, description="blades of the lens's aperture, 3 to 12; null: a disc"
    )
    length: Range[Annotated[float, Field(ge=0, le=80)]] = Field(
        (3.0, 11.0), description="[low, high]: length of the path of motion blur in pixels"
    )
    shake: Range[Annotated[float, Field(ge=0, le=360)]] = Field(
        (0.0, 0.0),
        description="[low, high]: degrees, at most, by which the path of motion blur leaves its direction; 0: straight",
    )
    window: Annotated[Range[Annotated[int, Field(ge=1, le=_LARGEST_WINDOW)]], AfterValidator(_odd)] = Field(
        (3, 5),
        description="[low, high]: side of the window of box and median in pixels, an odd number; of median at most 9",
    )
    bank: File | None = Field(
        None,
        description="a .npy file of kernels, (number, side, side) with an odd side; each is scaled to the sum 1",
    )
    border: Literal["reflect", "replicate"] = Field(
        "reflect",
        description="beyond the image: reflect: its mirror, without the border pixel itself; replicate: that pixel",
    )

    @model_validator(mode="after")
    def _kinds_have_their_settings(self) -> BlurStageOptions:
        if self.kinds.bank > 0 and self.bank is None:
            raise ValueError("kinds: bank needs the file of kernels; write bank: kernels.npy")
        if self.kinds.median > 0 and self.window[1] > _LARGEST_MEDIAN:
            raise ValueError(f"window: medians take at most {_LARGEST_MEDIAN}, got {list(self.window)}")
        return self

"""Options of the stages that add noise: of a kind, and as of a sensor that nobody has measured."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["NoiseChannels", "NoiseKinds", "NoiseStageOptions", "SensorStageOptions"]

_NO_COVARIANCE = ("poisson", "uniform", "salt_and_pepper")

_Share = Annotated[float, Field(ge=0, le=1)]
_Width = Annotated[float, Field(ge=0.2, le=8)]
_Photons = Annotated[float, Field(ge=1, le=1_000_000)]


class NoiseKinds(Weights):
    """Weights of the kinds of noise, one of which each sample draws."""

    gaussian: Weight = Field(0.0, description="white: sigma for every pixel")
    poisson: Weight = Field(0.0, description="of counted photons; scale and photons are its options")
    poisson_gaussian: Weight = Field(0.0, description="Gaussian of variance gain x + sigma^2 at brightness x")
    uniform: Weight = Field(0.0, description="all numbers of a range alike, of standard deviation sigma")
    salt_and_pepper: Weight = Field(0.0, description="a share of the pixels turns white or black")
    correlated: Weight = Field(0.0, description="Gaussian, blurred with width and brought back to sigma")
    film: Weight = Field(0.0, description="grains of width: sigma in mid-tones, none in black and white")
    speckle: Weight = Field(0.0, description="Gaussian of sigma times brightness")


class NoiseChannels(Weights):
    """Weights of how the noise of R, G and B hangs together."""

    independent: Weight = Field(0.0, description="each for itself")
    grey: Weight = Field(0.0, description="the same in all three: changes the luma alone")
    chroma: Weight = Field(0.0, description="each for itself less the luma of all: changes the colours alone")
    covariance: Weight = Field(
        0.0,
        description="a drawn covariance, for kinds of Gaussian fields: the square of the high end of sigma times "
        "|U^T D U|, D uniform in [0, 1] and U a random rotation, as BSRGAN's",
    )


class NoiseStageOptions(StageOptions):
    """Adds noise of a drawn kind; the noise of a pixel depends on the sample and its place, never on the batch."""

    examples: ClassVar = (
        """\
# as Real-ESRGAN's first order: Gaussian of 1 to 30 of 255 or Poisson, of ten images four with grey noise
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: noise
    kinds: {gaussian: 0.5, poisson: 0.5}
    channels: {independent: 0.6, grey: 0.4}
    sigma: [0.00392, 0.11765]
    scale: [0.05, 3]
""",
        """\
# as BSRGAN: Gaussian of 1/255, 2/255, ... 25/255 with a covariance between R, G and B in a fifth of the images
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: noise
    kinds: {gaussian: 1}
    channels: {independent: 0.4, grey: 0.4, covariance: 0.2}
    sigma: [0.00392157, 0.0980392]
    sigma_step: 0.00392157
""",
        """\
# as BSRGAN: Poisson noise of 100 to 10000 photons at white, without Real-ESRGAN's count of levels
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: noise, kinds: {poisson: 1}, channels: {independent: 1, grey: 1}, photons: [100, 10000], scale: 1}
""",
        """\
# a high-ISO photo after denoising, or scanned film: coarse noise, in some images of the colours alone
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: noise
    kinds: {correlated: 0.4, film: 0.6}
    channels: {independent: 0.6, grey: 0.3, chroma: 0.1}
    sigma: [0.01, 0.06]
    width: [0.4, 1.5]
""",
        """\
# a camera's raw noise: standard deviation 2 to 5 of 255 at black, growing with the light
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: noise, kinds: {poisson_gaussian: 1}, sigma: [0.008, 0.02], gain: [0.0005, 0.005]}
""",
        """\
# dead and hot pixels, up to one in a hundred
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: noise, kinds: {salt_and_pepper: 1}, share: [0, 0.01], salt: 0.5, probability: 0.1}
""",
    )

    type: Literal["noise"] = Field("noise", description="chooses noise")
    kinds: NoiseKinds = Field(description="weights of the kinds, one of which each sample draws")
    channels: NoiseChannels = Field(
        NoiseChannels(independent=1.0),
        description="weights of how the noise of R, G and B hangs together; left out: each for itself",
    )
    sigma: Range[_Share] = Field(
        (0.004, 0.1),
        description="[low, high]: standard deviation on the [0, 1] scale, drawn uniformly; of film at mid-grey, of "
        "speckle at white, of poisson_gaussian at black; poisson and salt_and_pepper have none",
    )
    sigma_step: float | None = Field(
        None,
        ge=1e-6,
        le=1,
        description="sigma is low, low + sigma_step, low + 2 sigma_step, ... up to high, all alike; null: any number",
    )
    scale: Range[Annotated[float, Field(ge=0, le=100)]] = Field(
        (1.0, 1.0), description="[low, high]: factor of Poisson noise, drawn uniformly; Real-ESRGAN's poisson_scale"
    )
    photons: Literal["levels"] | Range[_Photons] = Field(
        "levels",
        description="how many photons a white pixel counts, for Poisson noise. levels: as many as the image, rounded "
        "to 8 bits, has different values, rounded up to a power of 2, as BasicSR; [low, high]: drawn uniformly in "
        "the logarithm",
    )
    gain: Range[_Share] = Field(
        (0.0001, 0.005),
        description="[low, high]: by how much the variance of poisson_gaussian grows from black to white, on the "
        "[0, 1] scale, drawn uniformly",
    )
    width: Range[_Width] = Field(
        (0.4, 1.5),
        description="[low, high]: width of correlated noise and of film grain, the standard deviation of the Gaussian "
        "that white noise is blurred with, in pixels of the image at that place, drawn uniformly",
    )
    share: Range[_Share] = Field(
        (0.0, 0.01), description="[low, high]: share of pixels that salt and pepper replaces, drawn uniformly"
    )
    salt: Range[_Share] = Field(
        (0.5, 0.5), description="[low, high]: how many of the replaced pixels turn white, drawn uniformly"
    )
    clip: bool = Field(True, description="clip the result to [0, 1]")

    @model_validator(mode="after")
    def _covariance_fits(self) -> NoiseStageOptions:
        without = [kind for kind in _NO_COVARIANCE if self.kinds.weights()[kind] > 0]
        if self.channels.covariance > 0 and without:
            raise ValueError(
                f"channels: covariance is for kinds of Gaussian fields, and kinds has {', '.join(without)}; give them "
                "a noise stage of their own"
            )
        return self


class SensorStageOptions(StageOptions):
    """Noise as cameras make it: by brightness, between neighbours and between channels, all drawn for each sample."""

    examples: ClassVar = (
        """\
# a telephone in the dark, then JPEG: for training a denoiser where there is nothing to learn the noise from
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: sensor, sigma: [0.02, 0.12], luma_width: [0.2, 0.6], chroma_width: [0.2, 1], shared: [0.1, 0.8]}
  - {type: jpeg, quality: [75, 97], probability: 0.5}
""",
    )

    type: Literal["sensor"] = Field("sensor", description="chooses noise as of the sensors of cameras")
    sigma: Range[Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.004, 0.1),
        description="[low, high]: standard deviation on the [0, 1] scale at the brightness where it is greatest, drawn "
        "uniformly in the logarithm",
    )
    weakest: Annotated[float, Field(gt=0, le=1)] = Field(
        0.35,
        description="sigma at black, at a third, at two thirds and at white is between this and 1 times the greatest, "
        "each drawn uniformly; straight lines between them",
    )
    channels: Range[Annotated[float, Field(gt=0, le=4)]] = Field(
        (0.7, 1.4), description="[low, high]: factor of R, G and B, each drawn uniformly"
    )
    shared: Range[Annotated[float, Field(ge=0, le=1)]] = Field(
        (0.1, 0.9),
        description="[low, high]: share of the variance that is the same in all channels, which is the correlation "
        "between them, drawn uniformly",
    )
    luma_width: Range[_Width] = Field(
        (0.2, 0.8),
        description="[low, high]: standard deviation, in pixels, of the Gaussian that blurred the part that channels "
        "share, drawn uniformly; 0.2 is white noise, 0.6 has a correlation of 0.5 between neighbours",
    )
    chroma_width: Range[_Width] = Field(
        (0.2, 1.5), description="[low, high]: the same of the part that each channel has for itself"
    )

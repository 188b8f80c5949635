"""Options of the stage that reduces an image to few colours, with dithering."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["DitherKinds", "DitherPalettes", "DitherStageOptions"]


class DitherKinds(Weights):
    """How often each kind of dithering is drawn, in proportion to the sum; kinds that are left out never."""

    none: Weight = Field(0.0, description="weight of the nearest colour, without dithering: bands")
    bayer: Weight = Field(0.0, description="weight of Bayer's ordered dithering, a regular grid")
    blue_noise: Weight = Field(0.0, description="weight of thresholds that lie apart evenly (void and cluster)")
    white_noise: Weight = Field(0.0, description="weight of thresholds drawn for each pixel and channel")
    floyd_steinberg: Weight = Field(
        0.0,
        description="weight of error diffusion, which moves edges up and left, by 0.3 pixels with 2 greys, 0.03 with "
        "216 colours; the whole chain then runs image by image, by Pillow",
    )


class DitherPalettes(Weights):
    """How often each kind of palette is drawn, in proportion to the sum; kinds that are left out never."""

    uniform: Weight = Field(
        0.0,
        description="weight of equally many, equally spaced levels of R, G and B: the cube that `colours` holds",
    )
    web: Weight = Field(0.0, description="weight of the 216 colours of old browsers, whatever `colours` says")
    grey: Weight = Field(0.0, description="weight of equally spaced greys; the image loses its colour")
    median_cut: Weight = Field(
        0.0,
        description="weight of a palette made for the image, as GIF has it; the whole chain then runs image by image, "
        "by Pillow",
    )


class DitherStageOptions(StageOptions):
    """Few colours, with dithering between them."""

    examples: ClassVar = (
        """\
# old screens: 8 to 216 colours in an ordered grid
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: dither, kinds: {bayer: 1}, colours: [8, 216], probability: 0.5}
""",
        """\
# GIF: a palette for each image, with error diffusion or without
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: dither, kinds: {none: 1, floyd_steinberg: 1}, palettes: {median_cut: 1}, colours: [16, 256]}
""",
    )

    type: Literal["dither"] = Field("dither", description="chooses few colours")
    kinds: DitherKinds = Field(DitherKinds(bayer=1.0), description="how what lies between two colours is spread")
    palettes: DitherPalettes = Field(DitherPalettes(uniform=1.0), description="which colours there are")
    colours: Range[Annotated[int, Field(ge=2, le=256)]] = Field(
        (8, 64),
        description="[low, high]: how many colours, drawn uniformly; a uniform palette has the greatest of 8, 27, "
        "64, 125 and 216 up to it, at least 8",
    )
    strength: Range[Annotated[float, Field(ge=0, le=1)]] = Field(
        (1.0, 1.0),
        description="[low, high]: how much of the distance between colours is spread by bayer, blue_noise and "
        "white_noise, drawn uniformly; 0 is as none",
    )
    bayer_size: Literal[2, 4, 8, 16] = Field(4, description="pixels after which Bayer's grid repeats")

"""Options of the stage that prints an image in dots."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["ScreentoneKinds", "ScreentoneStageOptions"]


class ScreentoneKinds(Weights):
    """How often each kind is drawn, in proportion to the sum; kinds that are left out never."""

    luma: Weight = Field(0.0, description="weight of black dots for the luma; the image loses its colour, as manga")
    rgb: Weight = Field(0.0, description="weight of dots of cyan, magenta and yellow, at 15, 75 and 0 degrees")
    cmyk: Weight = Field(0.0, description="weight of these and of black at 45 degrees, which takes over the greys")


class ScreentoneStageOptions(StageOptions):
    """Halftone: dots on a grid, as large as the image is dark there."""

    examples: ClassVar = (
        """\
# manga: black dots every 3 to 6 pixels, at 45 degrees
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: screentone, kinds: {luma: 1}, period: [3, 6]}
""",
        """\
# a faint colour print in any direction
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: screentone, kinds: {rgb: 1, cmyk: 1}, period: [4, 8], angle: [0, 90], softness: [1, 2], strength: [0.2, 0.6]}
""",
    )

    type: Literal["screentone"] = Field("screentone", description="chooses halftone dots")
    kinds: ScreentoneKinds = Field(ScreentoneKinds(luma=1.0), description="which inks there are")
    period: Range[Annotated[float, Field(ge=2, le=64)]] = Field(
        (3.0, 8.0),
        description="[low, high]: from dot to dot in pixels of the image that the stage works on, drawn uniformly",
    )
    angle: Range[Annotated[float, Field(ge=-180, le=180)]] = Field(
        (0.0, 0.0), description="[low, high]: degrees by which all screens are turned beside their own, drawn uniformly"
    )
    softness: Range[Annotated[float, Field(ge=0.1, le=16)]] = Field(
        (0.5, 1.0), description="[low, high]: width of the edge of a dot in pixels, drawn uniformly"
    )
    strength: Range[Annotated[float, Field(ge=0, le=1)]] = Field(
        (1.0, 1.0), description="[low, high]: 0 is the image as it is, 1 the dots alone, drawn uniformly"
    )

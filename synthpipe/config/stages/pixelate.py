"""Options of the stage that makes large pixels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["PixelateKinds", "PixelateStageOptions"]


class PixelateKinds(Weights):
    """How often each way of making a block of one colour is drawn, in proportion to the sum."""

    average: Weight = Field(0.0, description="weight of the mean over the block")
    nearest: Weight = Field(
        0.0,
        description="weight of the pixel in the block's middle; of even blocks the one behind it, which moves content",
    )


class PixelateStageOptions(StageOptions):
    """Blocks of one colour, as of an image that was enlarged without interpolation."""

    examples: ClassVar = (
        """\
# blocks of 2 to 4 pixels
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: pixelate, block: [2, 4], probability: 0.2}
""",
    )

    type: Literal["pixelate"] = Field("pixelate", description="chooses blocks of one colour")
    kinds: PixelateKinds = Field(
        PixelateKinds(average=1.0), description="how often each way is drawn, in proportion to the sum"
    )
    block: Range[Annotated[int, Field(ge=1, le=128)]] = Field(
        (2, 4), description="[low, high]: side of the blocks in pixels, a whole number drawn uniformly"
    )

"""Options of the stage that moves channels against each other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["ChannelShiftKinds", "ChannelShiftStageOptions"]

_Pixels = Annotated[float, Field(ge=-64, le=64)]


class ChannelShiftKinds(Weights):
    """How often each kind is drawn, in proportion to the sum; kinds that are left out never."""

    one: Weight = Field(0.0, description="weight of one of R, G and B that moves, each as often as the others")
    two: Weight = Field(0.0, description="weight of two of them that move, each by a shift of its own")
    chroma: Weight = Field(0.0, description="weight of colour that moves against the luma, as on video tape")


class ChannelShiftStageOptions(StageOptions):
    """Channels that do not lie on each other: of scanners, prints, lenses and video tape; not aligned on purpose."""

    examples: ClassVar = (
        """\
# a print whose inks are off by up to a pixel, or the colour of a tape by one to three to the right
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: choice
    of:
      - {chain: [{type: channel_shift, kinds: {one: 1, two: 1}, x: [-1, 1], y: [-1, 1]}]}
      - {chain: [{type: channel_shift, kinds: {chroma: 1}, x: [1, 3], y: 0}]}
""",
    )

    type: Literal["channel_shift"] = Field("channel_shift", description="chooses a shift between channels")
    kinds: ChannelShiftKinds = Field(ChannelShiftKinds(one=1.0), description="which channels move")
    x: Range[_Pixels] = Field(
        (-1.0, 1.0),
        description="[low, high]: shift to the right in pixels of the image that the stage works on, with fractions, "
        "drawn uniformly for each channel that moves",
    )
    y: Range[_Pixels] = Field((-1.0, 1.0), description="[low, high]: shift downwards, as x")

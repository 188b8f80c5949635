"""Options of the stage that moves channels against each other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.reader import Options
from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["ChannelShiftKinds", "ChannelShiftStageOptions"]

_Pixels = Annotated[float, Field(ge=-64, le=64)]


class ChannelShiftKinds(Options):
    """How often each kind is drawn, in proportion to the sum; kinds that are left out never."""

    one: float = Field(0.0, ge=0, description="weight of one of R, G and B that moves, each as often as the others")
    two: float = Field(0.0, ge=0, description="weight of two of them that move, each by a shift of its own")
    chroma: float = Field(0.0, ge=0, description="weight of colour that moves against the luma, as on video tape")

    @model_validator(mode="after")
    def _some_weight(self) -> ChannelShiftKinds:
        if self.one + self.two + self.chroma <= 0:
            raise ValueError("kinds: all weights are 0; give one of them more, as in {chroma: 1}")
        return self


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

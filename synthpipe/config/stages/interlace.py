"""Options of the stage that shows two fields of a video in one image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["InterlaceKinds", "InterlaceStageOptions"]


class InterlaceKinds(Weights):
    """How often each fault is drawn, in proportion to the sum."""

    combing: Weight = Field(0.0, description="weight of two fields of different moments: lines of one are moved")
    doubling: Weight = Field(0.0, description="weight of one field alone, each of its lines shown twice")


class InterlaceStageOptions(StageOptions):
    """Faults of interlaced video; content moves."""

    examples: ClassVar = (
        """\
# frames of old video
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: interlace, kinds: {combing: 0.7, doubling: 0.3}, shift: [-6, 6], probability: 0.1}
""",
    )

    type: Literal["interlace"] = Field("interlace", description="chooses faults of interlaced video")
    kinds: InterlaceKinds = Field(
        InterlaceKinds(combing=1.0), description="how often each fault is drawn, in proportion to the sum"
    )
    shift: Range[Annotated[int, Field(ge=-256, le=256)]] = Field(
        (-4, 4),
        description="[low, high]: pixels to the right by which combing moves the lines of one field, drawn uniformly; "
        "below 0: to the left",
    )

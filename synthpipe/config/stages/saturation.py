"""Options of the stage that changes how colourful an image is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["SaturationStageOptions"]


class SaturationStageOptions(StageOptions):
    """Paler or stronger colours: the distance of each pixel from its own grey, times a drawn factor."""

    examples: ClassVar = (
        """\
# between grey and a little too colourful
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: saturation, factor: [0.0, 1.3], probability: 0.3}
""",
    )

    type: Literal["saturation"] = Field("saturation", description="chooses a change of saturation")
    factor: Range[Annotated[float, Field(ge=0, le=8)]] = Field(
        (0.5, 1.5), description="[low, high]: 0 is grey (Rec. 601 luma), 1 the image as it is, drawn uniformly"
    )

"""Options of the stage that rounds to few levels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["QuantiseStageOptions"]


class QuantiseStageOptions(StageOptions):
    """Rounds each channel to equally spaced levels, as a file or a display of few bits does."""

    examples: ClassVar = (
        """\
# 8 bits, as a file would hold the image between two stages
degrade:
  - {type: blur, sigma: [0.2, 2]}
  - {type: quantise, levels: 256}
  - {type: resize, to: lr, filter: bicubic}
""",
    )

    type: Literal["quantise"] = Field("quantise", description="chooses rounding to few levels")
    levels: Range[Annotated[int, Field(ge=2, le=65536)]] = Field(
        (256, 256), description="[low, high]: how many levels from black to white, drawn uniformly"
    )

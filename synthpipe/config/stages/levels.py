"""Options of the stage that moves black, white and mid tones."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["LevelsStageOptions"]

#: Between black and white: a float32 tells levels apart there.
_LEAST_CONTRAST = 1e-4
_Level = Annotated[float, Field(ge=0, le=1)]


class LevelsStageOptions(StageOptions):
    """Crushed or lifted blacks, blown or dull whites, and another gamma, as an image editor's levels."""

    examples: ClassVar = (
        """\
# faded: black is dark grey, white light grey, with a tint of its own for each sample
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: levels, out_black: [0.0, 0.12], out_white: [0.88, 1.0], per_channel: true}
""",
        """\
# too much contrast: shadows and lights are lost; mid tones a third darker or lighter
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: levels, in_black: [0.0, 0.06], in_white: [0.94, 1.0], gamma: [0.75, 1.33], probability: 0.4}
""",
    )

    type: Literal["levels"] = Field("levels", description="chooses levels")
    in_black: Range[_Level] = Field(
        (0.0, 0.0), description="[low, high]: what becomes black; darker values are lost, drawn uniformly"
    )
    in_white: Range[_Level] = Field(
        (1.0, 1.0), description="[low, high]: what becomes white; brighter values are lost, drawn uniformly"
    )
    gamma: Range[Annotated[float, Field(ge=0.1, le=10)]] = Field(
        (1.0, 1.0),
        description="[low, high]: mid tones: x between black and white becomes x ^ (1 / gamma), above 1 brighter; "
        "drawn uniformly in the logarithm",
    )
    out_black: Range[_Level] = Field((0.0, 0.0), description="[low, high]: what black becomes, drawn uniformly")
    out_white: Range[_Level] = Field((1.0, 1.0), description="[low, high]: what white becomes, drawn uniformly")
    per_channel: bool = Field(
        False, description="R, G and B draw for themselves, which tints the image; false: the same for all"
    )

    @model_validator(mode="after")
    def _black_below_white(self) -> LevelsStageOptions:
        if self.in_white[0] - self.in_black[1] < _LEAST_CONTRAST:
            raise ValueError(
                f"in_black: expected values at least {_LEAST_CONTRAST:g} below those of in_white, "
                f"got {list(self.in_black)} and {list(self.in_white)}"
            )
        return self

"""Options of the stage that compresses as JPEG."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from synthpipe.config.stages.base import Range, StageOptions, Weight

__all__ = ["JpegStageOptions", "Sampling"]

#: How chroma is stored: at the full size, at half the width and height, and so on.
Sampling = Literal["420", "422", "444", "411", "440"]


def _names(value: Any) -> Any:
    """One sampling alone is the only one; YAML reads `420` as a number."""
    if isinstance(value, dict):
        return {str(key): weight for key, weight in value.items()}
    alone = isinstance(value, int | str) and not isinstance(value, bool)
    return {str(value): 1.0} if alone else value


def _in_one_order(value: dict[Sampling, float]) -> dict[Sampling, float]:
    """A number between 0 and 1 stands for the same sampling however a file orders them."""
    return {name: value[name] for name in get_args(Sampling) if name in value}


_Samplings = Annotated[
    dict[Sampling, Weight],
    BeforeValidator(_names),
    AfterValidator(_in_one_order),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [*get_args(Sampling), *map(int, get_args(Sampling))]},
                {"type": "object", "additionalProperties": {"type": "number"}},
            ]
        }
    ),
]


class JpegStageOptions(StageOptions):
    """JPEG and back, as libjpeg does it; values are clipped and rounded to 8 bits before and after."""

    examples: ClassVar = (
        """\
# the reduction, then JPEG; each sample has its own quality
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: jpeg, quality: [30, 95]}
""",
        """\
# as on the web: half the images once more, cut and saved again, by programs that store chroma in different ways
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: jpeg, quality: [60, 95], sampling: {"420": 0.7, "422": 0.1, "444": 0.2}, times: [1, 2]}
""",
    )

    type: Literal["jpeg"] = Field("jpeg", description="chooses JPEG")
    quality: Range[Annotated[int, Field(ge=1, le=100)]] = Field(
        (30, 95), description="[low, high]: libjpeg's quality, 1 to 100, drawn for each sample and each pass"
    )
    law: Literal["whole", "real"] = Field(
        "whole",
        description="whole: each whole quality of the range is drawn as often; real: a real number is drawn uniformly, "
        "as Real-ESRGAN does, and rounded, so that both ends are drawn half as often as others",
    )
    sampling: _Samplings = Field(
        {"420": 1.0},
        description="how chroma is stored, or {sampling: weight} to draw one for each pass: 420 (half the width and "
        "height), 422 (half the width), 444 (all of it), 411 (a quarter of the width), 440 (half the height)",
    )
    times: Range[Annotated[int, Field(ge=1, le=3)]] = Field(
        (1, 1),
        description="[low, high]: passes, drawn uniformly; before each further pass the grid of blocks moves by 0 to 7 "
        "pixels down and right, as in an image that was cut, and content stays where it is",
    )

    @model_validator(mode="after")
    def _some_weight(self) -> JpegStageOptions:
        if sum(self.sampling.values()) <= 0:
            raise ValueError(f"sampling: expected a weight above 0, got {self.sampling}")
        return self

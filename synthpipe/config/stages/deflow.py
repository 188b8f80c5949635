"""Options of the learned degradation, DeFlow: as a whole degradation, and as a stage of a chain."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from synthpipe.config.places import Weights
from synthpipe.config.reader import Options
from synthpipe.config.stages.base import StageOptions

__all__ = ["MOST_LEVEL", "MOST_STRENGTH", "DeFlowDegradeOptions", "DeFlowStageOptions"]

#: The largest that can be asked for; the level in units of sigma of 255.
MOST_STRENGTH, MOST_LEVEL = 4, 128

# YAML reads `precision: 32` as a number.
_Precision = Annotated[
    Literal["32", "bf16"],
    BeforeValidator(lambda value: "32" if value == 32 else value),
    WithJsonSchema({"enum": ["32", 32, "bf16"]}),
]
_Strength = Annotated[float, Field(ge=0, le=MOST_STRENGTH)]
_Level = Annotated[float, Field(gt=0, le=MOST_LEVEL)]


class _DeFlowOptions(Options):
    """What is common to both."""

    type: Literal["deflow"] = Field("deflow", description="chooses a learned degradation")
    weights: Weights = Field(
        description="a .safetensors file, or the name of weights that ship with synthpipe (deflow_small)"
    )
    strength: _Strength | tuple[_Strength, _Strength] = Field(
        1.0,
        description="how far latents move to the noisy domain: 1 is the degradation as trained, 0 none; [low, high]: "
        "drawn uniformly for each degraded tile",
    )
    precision: _Precision = Field(
        "32",
        description="of the part of the flow that depends on the reduced image alone; bf16 is faster where the "
        "processor has it, and a slightly different degradation",
    )

    level: _Level | tuple[_Level, _Level] | Literal["pile"] | None = Field(
        None,
        description="noise level, for weights that know one (trained with model.level), in units of sigma of 255; "
        "[low, high]: drawn log-uniformly for each degraded tile; pile: drawn from the levels of the noisy images of "
        "the training; null: pile where the weights know levels",
    )

    @model_validator(mode="after")
    def _limits_ascend(self) -> _DeFlowOptions:
        for name, limits in (("strength", self.strength), ("level", self.level)):
            if isinstance(limits, tuple) and limits[0] > limits[1]:
                raise ValueError(f"{name}: expected [low, high], got {list(limits)}")
        return self


class DeFlowDegradeOptions(_DeFlowOptions):
    """A learned degradation: bicubic reduction, then a trained DeFlow."""

    examples: ClassVar = (
        """\
# learned: weights that ship with synthpipe, or a file that `synthpipe train` wrote
degrade: {type: deflow, weights: deflow_small}
""",
        """\
# two degradations of each tile, each between half and all of the way to the noisy domain
degrade: {type: deflow, weights: deflow_small, strength: [0.5, 1.0], samples: 2}
""",
    )

    samples: int = Field(
        1,
        ge=1,
        le=64,
        description="degradations of each tile, each with patches_per_tile patches of its own; further ones cost a "
        "fraction of the first, whose features, condition noise and latents they share",
    )


class DeFlowStageOptions(StageOptions, _DeFlowOptions):
    """A trained DeFlow at the size that the image has there, as one stage among others; no reduction."""

    examples: ClassVar = (
        """\
# the reduction by a filter of one's own choice, the learned degradation, then JPEG
degrade:
  - {type: resize, to: lr, filter: bilinear}
  - {type: deflow, weights: deflow_small, strength: [0.5, 1.0], probability: 0.75}
  - {type: jpeg, quality: [60, 95], probability: 0.5}
""",
    )

"""Options of chains of degradations: stages in a row, choices between chains, a shuffled row, presets by name.

:data:`StageOption` is the only list of stages; :mod:`synthpipe.transforms.chains.build` makes each of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator

from synthpipe.config.presets import PRESETS, preset_chain
from synthpipe.config.reader import Options
from synthpipe.config.stages.base import Schedule, StageOptions
from synthpipe.config.stages.classical import ClassicalDegradeOptions
from synthpipe.config.stages.deflow import DeFlowDegradeOptions, DeFlowStageOptions
from synthpipe.config.stages.quantise import QuantiseStageOptions

__all__ = [
    "BranchOptions",
    "ChainOptions",
    "ChoiceOptions",
    "ShortForms",
    "ShuffleOptions",
    "StageOption",
    "as_degrade",
]

_WHOLE = {"deflow", "classical", "chain", "choice"}


def as_degrade(value: Any) -> Any:
    """The short forms of a degradation in full: a list is a chain, a name a preset, one stage alone a chain of it.

    Raises:
        ValueError: a name that is no preset.
    """
    if isinstance(value, str):
        return {"type": "chain", "stages": preset_chain(value)}
    if isinstance(value, list | tuple):
        return {"type": "chain", "stages": list(value)}
    if isinstance(value, dict) and value.get("type", "chain") not in _WHOLE:
        return {"type": "chain", "stages": [value]}
    return value


class ShortForms:
    """In the JSON schema of a degradation: a list of stages and the name of a preset will do."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Any of the three."""
        return {"anyOf": [handler(core), {"type": "array"}, {"enum": sorted(PRESETS)}]}


class BranchOptions(Options):
    """One way of a choice."""

    weight: Schedule = Field(
        ((0, 1.0),),
        description="how often this one is taken, in proportion to all weights; [[samples seen, weight], ...] changes "
        "it while the stream runs",
    )
    name: str | None = Field(None, description="what previews and `synthpipe explain` call it; null: its number")
    chain: Annotated[
        DeFlowDegradeOptions | ClassicalDegradeOptions | ChainOptions,
        Field(discriminator="type"),
        BeforeValidator(as_degrade),
        ShortForms(),
    ] = Field(
        description="a list of stages (an empty one leaves the image as it is), the name of a preset, or a block of a "
        "whole degradation (`deflow`, `classical`)"
    )


class ChoiceOptions(StageOptions):
    """Each sample goes one of several ways."""

    examples: ClassVar = (
        """\
# of ten tiles seven are degraded as Real-ESRGAN does, three by a trained DeFlow
degrade:
  type: choice
  of:
    - {weight: 0.7, chain: real-esrgan}
    - {weight: 0.3, chain: {type: deflow, weights: deflow_small}}
""",
        """\
# a curriculum: no JPEG at first, in half of the tiles after 100000 samples
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: choice
    of:
      - {weight: 1, chain: []}
      - {weight: [[0, 0], [100000, 1]], chain: [{type: jpeg, quality: [40, 90]}]}
""",
    )

    type: Literal["choice"] = Field("choice", description="chooses one of several ways for each sample")
    of: tuple[BranchOptions, ...] = Field(min_length=1, description="the ways")

    @model_validator(mode="after")
    def _some_weight(self) -> ChoiceOptions:
        times = sorted({time for branch in self.of for time, _ in branch.weight})
        for time in times:
            if sum(_value_at(branch.weight, time) for branch in self.of) <= 0:
                raise ValueError(f"of: all weights are 0 after {time} samples; give one of them more")
        return self


class ShuffleOptions(StageOptions):
    """Stages in an order that each sample draws, as BSRGAN's."""

    examples: ClassVar = (
        """\
# blur and noise in any order, then JPEG
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: shuffle
    of:
      - {type: blur, kinds: {isotropic: 1}, sigma: [0.2, 1.5]}
      - {type: noise, kinds: {gaussian: 1}, sigma: [0.0, 0.05]}
  - {type: jpeg, quality: [60, 95]}
""",
    )

    type: Literal["shuffle"] = Field("shuffle", description="chooses stages in a drawn order")
    of: tuple[StageOption, ...] = Field(min_length=2, max_length=32, description="the stages")
    in_order: tuple[int, ...] = Field(
        (), description="numbers of stages (the first is 0) that keep this order among themselves"
    )

    @model_validator(mode="after")
    def _numbers_exist(self) -> ShuffleOptions:
        if len(set(self.in_order)) != len(self.in_order) or any(not 0 <= n < len(self.of) for n in self.in_order):
            raise ValueError(f"in_order: expected different numbers of 0 to {len(self.of) - 1}, got {self.in_order}")
        return self


class ChainOptions(Options):
    """Stages, one after the other; a list of stages is short for it."""

    examples: ClassVar = ()

    type: Literal["chain"] = Field("chain", description="chooses a chain")
    stages: tuple[StageOption, ...] = Field(
        description="what an image goes through, in this order; it must have the LR size at the end, by "
        "{type: resize, to: lr} anywhere among them"
    )


#: Every stage of a chain, told apart by ``type``.
StageOption = Annotated[
    DeFlowStageOptions | QuantiseStageOptions | ChoiceOptions | ShuffleOptions,
    Field(discriminator="type"),
]


def _value_at(knots: tuple[tuple[int, float], ...], time: int) -> float:
    before = [knot for knot in knots if knot[0] <= time]
    after = [knot for knot in knots if knot[0] >= time]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (early, low), (late, high) = before[-1], after[0]
    return low if late == early else low + (high - low) * (time - early) / (late - early)


for _model in (BranchOptions, ChoiceOptions, ShuffleOptions, ChainOptions):
    _model.model_rebuild()

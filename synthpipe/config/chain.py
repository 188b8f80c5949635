"""Options of chains of degradations: stages in a row, choices between chains, a shuffled row, presets by name.

:data:`LeafStageOption` is the only list of stages; :mod:`synthpipe.transforms.chains.build` makes each of them.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, model_validator

from synthpipe.config.classical import ClassicalDegradeOptions
from synthpipe.config.presets import PRESETS, ZOO, preset_chain
from synthpipe.config.reader import Options
from synthpipe.config.stages.base import Schedule, StageOptions
from synthpipe.config.stages.blur import BlurStageOptions
from synthpipe.config.stages.channel_shift import ChannelShiftStageOptions
from synthpipe.config.stages.deflow import DeFlowDegradeOptions, DeFlowStageOptions
from synthpipe.config.stages.denoise import DenoiseStageOptions
from synthpipe.config.stages.dither import DitherStageOptions
from synthpipe.config.stages.halo import HaloStageOptions
from synthpipe.config.stages.interlace import InterlaceStageOptions
from synthpipe.config.stages.jpeg import JpegStageOptions
from synthpipe.config.stages.kernels import KernelsStageOptions
from synthpipe.config.stages.levels import LevelsStageOptions
from synthpipe.config.stages.noise import NoiseStageOptions, SensorStageOptions
from synthpipe.config.stages.pixelate import PixelateStageOptions
from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.config.stages.resize import ResizeStageOptions
from synthpipe.config.stages.saturation import SaturationStageOptions
from synthpipe.config.stages.screentone import ScreentoneStageOptions
from synthpipe.config.stages.video import VideoStageOptions
from synthpipe.config.stages.webp import WebpStageOptions

__all__ = [
    "BranchOptions",
    "ChainOptions",
    "ChoiceOptions",
    "LeafStageOption",
    "ShortForms",
    "ShuffleOptions",
    "StageOption",
    "as_degrade",
]

_LONGEST_NAME = 100
_WHOLE = ("deflow", "classical", "chain", "choice")


def as_degrade(value: Any) -> Any:
    """The short forms of a degradation in full: a list is a chain, a name a preset, one stage alone a chain of it.

    Raises:
        ValueError: a name that is no preset, or one among stages.
    """
    if isinstance(value, str):
        return {"type": "chain", "stages": preset_chain(value)}
    if isinstance(value, list | tuple):
        _check_no_name_among(value)
        return {"type": "chain", "stages": list(value)}
    if isinstance(value, dict) and _names_stage(value.get("type")):
        return {"type": "chain", "stages": [value]}
    return value


def _check_no_name_among(stages: list[Any] | tuple[Any, ...]) -> None:
    for number, stage in enumerate(stages):
        if isinstance(stage, str):
            name = stage if stage in PRESETS else "real-esrgan"
            raise ValueError(
                f"entry {number}: expected a stage, as in {{type: jpeg}}, got {stage!r}; a preset takes the place of "
                f"the list, or stands in it as {{type: choice, of: [{{chain: {name}}}]}}"
            )


def _names_stage(name: Any) -> bool:
    """Whether a block of this type, misspelt maybe, is a stage and no whole degradation."""
    stages = [literal for member in get_args(get_args(StageOption)[0]) for literal in member.types()]
    near = difflib.get_close_matches(str(name), [*_WHOLE, *stages], n=1)
    return bool(near) and near[0] not in _WHOLE


class ShortForms:
    """In the JSON schema of a degradation: a list of stages and the name of a preset will do."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Any of the three."""
        presets = [{"enum": sorted(PRESETS)}] if PRESETS else []
        return {"anyOf": [handler(core), {"type": "array"}, *presets]}


#: What ``of`` of a choice may be in place of ways: all of :data:`synthpipe.config.presets.ZOO`.
_ZOO = "zoo"


def _as_ways(value: Any) -> Any:
    """The short forms of the ways of a choice in full: a name is the preset of that name, called so."""
    if value == _ZOO:
        value = list(ZOO)
    elif isinstance(value, str):
        raise ValueError(f"expected a list of ways, {{name: weight, ...}} of presets, or {_ZOO}, got {value!r}")
    if isinstance(value, dict):
        return [{"name": name, "weight": weight, "chain": name} for name, weight in value.items()]
    if isinstance(value, list | tuple):
        return [{"name": way, "chain": way} if isinstance(way, str) else way for way in value]
    return value


class _ShortWays:
    """In the JSON schema of the ways: ``zoo``, names of presets among them, and weights by such names will do."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Any of the three."""
        ways, names = handler(core), sorted(PRESETS)
        weight = handler.resolve_ref_schema(ways["items"])["properties"]["weight"]
        by_name = {"propertyNames": {"enum": names}, "additionalProperties": {"anyOf": weight["anyOf"]}}
        way = {"anyOf": [ways["items"], {"enum": names}]}
        return {"anyOf": [{"enum": [_ZOO]}, {**ways, "items": way}, {"type": "object", **by_name}]}


def _plain_name(value: str) -> str:
    """Places in a chain are told apart by their names, which slashes join."""
    if "/" in value or not value.isprintable() or not 0 < len(value) <= _LONGEST_NAME:
        raise ValueError(f"expected 1 to {_LONGEST_NAME} characters without slashes and control characters")
    return value


class BranchOptions(Options):
    """One way of a choice."""

    weight: Schedule = Field(
        ((0, 1.0),),
        description="how often this one is taken, in proportion to all weights; [[samples seen, weight], ...] changes "
        "it while the stream runs",
        json_schema_extra={"default": 1},
    )
    name: Annotated[str, AfterValidator(_plain_name)] | None = Field(
        None, description="what previews and `synthpipe explain` call it; null: its number, from 1"
    )
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
# of ten tiles seven get noise and JPEG, three are degraded by a trained DeFlow
degrade:
  type: choice
  of:
    - {weight: 0.7, chain: {type: classical, noise: {type: gaussian, sigma: [0.0, 0.02]}, jpeg_quality: [70, 95]}}
    - {weight: 0.3, chain: {type: deflow, weights: deflow_small}}
""",
        """\
# a curriculum: no JPEG at first, in half of the tiles after 100000 images
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - type: choice
    of:
      - {weight: 1, chain: []}
      - {weight: [[0, 0], [100000, 1]], chain: [{type: jpeg, quality: [40, 90]}]}
""",
        """\
# every learned degradation that ships, equally often; or some, by weights: {canon_5d2: 2, bsrgan: 1}
degrade: {type: choice, of: zoo}
""",
    )

    type: Literal["choice"] = Field("choice", description="chooses one of several ways for each sample")
    of: Annotated[tuple[BranchOptions, ...], BeforeValidator(_as_ways), _ShortWays()] = Field(
        description="the ways, at least one; the name of a preset is short for a way of this name, {name: weight, ...} "
        "for several; zoo: every learned degradation that ships, equally often"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the ways: the given one, or the number, from 1."""
        return tuple(branch.name or str(number) for number, branch in enumerate(self.of, 1))

    @model_validator(mode="after")
    def _names_differ(self) -> ChoiceOptions:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"of: names of ways must differ, got {list(self.names)}")
        return self

    @model_validator(mode="after")
    def _some_weight(self) -> ChoiceOptions:
        times = sorted({time for branch in self.of for time, _ in branch.weight}) or [0]
        for time in times:
            if sum(_value_at(branch.weight, time) for branch in self.of) <= 0:
                raise ValueError(
                    f"of: expected a weight above 0 in at least one way, after {time} samples there is none"
                )
        return self


#: Most stages of a shuffled row: the sizes behind every set of them are computed before any image is read.
MOST_SHUFFLED = 10


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
    of: tuple[StageOption, ...] = Field(max_length=MOST_SHUFFLED, description="the stages, at most 10")
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

    examples: ClassVar = (
        """\
# blur, reduction, noise, JPEG on half of the tiles; a list is short for {type: chain, stages: [...]}
degrade:
  - {type: blur, kinds: {isotropic: 0.7, motion: 0.3}, sigma: [0.2, 3.0]}
  - {type: resize, to: lr, filter: {area: 1, bilinear: 1, bicubic: 1}}
  - {type: noise, kinds: {gaussian: 0.5, poisson: 0.5}, sigma: [0.0, 0.05], scale: [0.05, 2.0]}
  - {type: jpeg, quality: [40, 95], probability: 0.5}
""",
    )

    type: Literal["chain"] = Field("chain", description="chooses a chain")
    stages: tuple[StageOption, ...] = Field(
        description="what an image goes through, in this order; it must have the LR size at the end, by "
        "{type: resize, to: lr} anywhere among them"
    )


#: Every stage that is one operation; ``build_stage`` of :mod:`synthpipe.transforms.chains.build` makes each of them.
LeafStageOption = (
    BlurStageOptions
    | ChannelShiftStageOptions
    | DeFlowStageOptions
    | DenoiseStageOptions
    | DitherStageOptions
    | HaloStageOptions
    | InterlaceStageOptions
    | JpegStageOptions
    | KernelsStageOptions
    | LevelsStageOptions
    | NoiseStageOptions
    | PixelateStageOptions
    | QuantiseStageOptions
    | ResizeStageOptions
    | SaturationStageOptions
    | ScreentoneStageOptions
    | SensorStageOptions
    | VideoStageOptions
    | WebpStageOptions
)
#: Every stage of a chain, told apart by ``type``.
StageOption = Annotated[LeafStageOption | ChoiceOptions | ShuffleOptions, Field(discriminator="type")]


def _value_at(knots: tuple[tuple[int, float], ...], time: int) -> float:
    before = [knot for knot in knots if knot[0] <= time]
    after = [knot for knot in knots if knot[0] >= time]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (early, low), (late, high) = before[-1], after[0]
    return low if late == early else low + (high - low) * ((time - early) / (late - early))


for _model in (BranchOptions, ChoiceOptions, ShuffleOptions, ChainOptions):
    _model.model_rebuild()

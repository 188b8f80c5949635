"""What the options of all stages share: ranges, weights, schedules, and how often a stage is applied."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator

from synthpipe.config.reader import Options
from synthpipe.errors import excerpt

__all__ = ["PROBABILITY_MEANING", "Range", "Schedule", "StageOptions", "Weight", "Weights"]

_ENDS = 2
_Number = TypeVar("_Number", int, float)


def _pair(value: Any) -> Any:
    """One number stands for both ends."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value, value)
    if not isinstance(value, list | tuple) or len(value) != _ENDS:
        raise ValueError(f"expected a number or [low, high], got {excerpt(value)}")
    return value


def _ascending(value: tuple[_Number, _Number]) -> tuple[_Number, _Number]:
    if value[0] > value[1]:
        raise ValueError(f"expected [low, high], got {list(value)}")
    return value


class _OrOneNumber:
    """In the JSON schema of a range: one number will do."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Either."""
        pair = handler(core)
        return {"anyOf": [pair["prefixItems"][0], pair]}


#: ``[low, high]`` of numbers of a type with its bounds, or one number for both: ``Range[float]``.
Range = Annotated[tuple[_Number, _Number], BeforeValidator(_pair), AfterValidator(_ascending), _OrOneNumber()]

#: How often one of several is drawn, in proportion to the sum of the weights.
Weight = Annotated[float, Field(ge=0)]


class Weights(Options):
    """Weights by name, the fields of a subclass, of which at least one is above 0."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if not any(self.weights().values()):
            raise ValueError(f"all weights are 0; give one of them a number above 0: {', '.join(self.weights())}")
        return self

    def weights(self) -> dict[str, float]:
        """By name, in the order of the fields."""
        return {name: float(getattr(self, name)) for name in type(self).model_fields}


#: Largest count of samples seen, up to which float64 holds all whole numbers, and largest weight.
_LATEST, _HEAVIEST = 1 << 53, 1e9
_Knot = tuple[Annotated[int, Field(ge=0, le=_LATEST)], Annotated[float, Field(ge=0, le=_HEAVIEST)]]
_KNOT_SCHEMA = {
    "type": "array",
    "prefixItems": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0}],
    "minItems": 2,
    "maxItems": 2,
}


def _one_knot(value: Any) -> Any:
    """One number is a schedule of one knot."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ((0, value),)
    pairs = isinstance(value, list | tuple) and all(isinstance(k, list | tuple) and len(k) == _ENDS for k in value)
    if not pairs:
        raise ValueError(f"expected a number or [[samples seen, value], ...], got {excerpt(value)}")
    return value


def _later_and_later(value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    times = [time for time, _ in value]
    if not times or any(late <= early for early, late in itertools.pairwise(times)):
        pairs = [list(knot) for knot in value]
        raise ValueError(f"expected a number or [[samples seen, value], ...] in ascending order, got {pairs}")
    return value


def _probable(value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    if any(number > 1 for _, number in value):
        raise ValueError(f"expected probabilities of 0 to 1, got {[number for _, number in value]}")
    return value


#: A number, or ``[[samples seen, value], ...]``: straight lines between the knots, level before and behind them.
Schedule = Annotated[
    tuple[_Knot, ...],
    BeforeValidator(_one_knot),
    AfterValidator(_later_and_later),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": _KNOT_SCHEMA}]}),
]

PROBABILITY_MEANING = (
    "how often the stage is applied, 0 to 1; [[samples seen, probability], ...] changes it while the stream runs"
)


class StageOptions(Options):
    """Options that every stage has."""

    @classmethod
    def types(cls) -> tuple[str, ...]:
        """The values of ``type`` that choose this stage."""
        return get_args(cls.model_fields["type"].annotation)

    probability: Annotated[Schedule, AfterValidator(_probable)] = Field(
        ((0, 1.0),), description=PROBABILITY_MEANING, json_schema_extra={"default": 1}
    )

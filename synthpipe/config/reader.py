"""Strict reading of option files: unknown keys are errors, and every error says where and what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from synthpipe.config.yaml_text import MAX_DEPTH, parse_yaml, read_text
from synthpipe.errors import OptionError, excerpt, shortened

__all__ = [
    "ALLOW_PIPE_MEANING",
    "MAX_PIXELS_MEANING",
    "Options",
    "PresetOptions",
    "parse_options",
    "read_options",
    "read_yaml",
]

#: Of the option ``allow_pipe``, which all that read shards have.
ALLOW_PIPE_MEANING = "allow pipe: URLs, which run a shell command"
#: Of the option ``max_pixels``, which all that decode images have.
MAX_PIXELS_MEANING = "images of more pixels (width times height) are refused, since decoding one could fill the memory"


class Options(BaseModel):
    """Base of all option schemas: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    #: Documents for the option reference, YAML as it stands in a file; where a whole file or block has this schema.
    examples: ClassVar[tuple[str, ...]] = ()


class PresetOptions(Options):
    """Options of a model whose key ``preset`` stands for others; keys given beside it override them."""

    #: What each value of ``preset`` stands for.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        return {**cls.presets[preset], **data} if isinstance(preset, str) and preset in cls.presets else data

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's class, as plain JSON types."""
        return self.model_dump(mode="json", exclude={"preset"})


T = TypeVar("T", bound=BaseModel)

#: Problems of one file that are told.
MAX_PROBLEMS = 20

#: Pydantic's kinds of error in the words of someone who writes YAML.
_EXPECTED = {
    "int_parsing": "an integer",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer of fewer digits",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of options",
    "invalid_key": "a text as key",
    "model_type": "a block of options",
    "model_attributes_type": "a block of options",
}

#: What pydantic puts among the keys where a value may have one of several types: ``shards.tuple[str, ...].0``.
_TYPE_NAME = re.compile(r"(str|int|float|bool|constrained-\w+)$|(tuple|list|literal|function-\w+)\[.*\]$")

#: Beginnings of pydantic's other messages.
_REWORDED = {
    "Input should be": "expected",
    "String should match": "expected a text that matches",
}


def read_options(path: str | Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML option file into ``schema``.

    Args:
        path: the option file.
        schema: the schema to read into.
        overrides: ``key.sub=value`` strings; each value is parsed as YAML.

    Raises:
        OptionError: missing or malformed file, unknown key (with the nearest known one), wrong value.
    """
    data = read_yaml(path)
    for override in overrides:
        _apply_override(data, override)
    return parse_options(data, schema, source=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; raises :class:`OptionError` otherwise."""
    data = parse_yaml(read_text(path), str(path))
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise OptionError(f"{path}: expected a mapping of options at the top level, got {type(data).__name__}")
    return data


def parse_options(data: Mapping[str, Any], schema: type[T], source: str = "options") -> T:
    """Check ``data`` against ``schema``; ``source`` names the file or the caller in errors.

    Raises:
        OptionError: one line per problem: source, key path, what was expected, what came.

    >>> from synthpipe.config.reader import parse_options
    >>> from synthpipe.config.stream import StreamOptions
    >>> parse_options({"shards": "shards", "gt_size": 64, "bach_size": 8}, StreamOptions, source="train.yml")
    Traceback (most recent call last):
    synthpipe.errors.OptionError: train.yml: unknown option 'bach_size'; did you mean 'batch_size'?
    """
    if not isinstance(data, Mapping):
        raise OptionError(f"{source}: expected a mapping of options at the top level, got {type(data).__name__}")
    try:
        return schema.model_validate(dict(data))
    except ValidationError as error:
        problems = _without_alternatives(_without_short_lists(error.errors(include_url=False)))
        # What a short form spreads over several places is told once.
        told = dict.fromkeys(_explain(problem, schema, data, source) for problem in problems[: 2 * MAX_PROBLEMS])
        lines = list(told)[:MAX_PROBLEMS]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"{source}: and {len(problems) - MAX_PROBLEMS} more problems")
        raise OptionError("\n".join(lines)) from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    source = f"override {shortened(override)!r}"
    if not separator or not key:
        raise OptionError(f"{source}: expected key.sub=value")
    # YAML has no word for a name of bytes that are not UTF-8, as the command line hands it over.
    value = text if any("\ud800" <= character <= "\udfff" for character in text) else parse_yaml(text, source)
    *parents, last = key.split(".")
    if len(parents) > MAX_DEPTH:
        raise OptionError(f"{source}: expected at most {MAX_DEPTH} blocks within each other, got {len(parents)}")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise OptionError(f"{source}: {parent!r} is a value, not a group of options")
    data[last] = value


def _without_short_lists(problems: Sequence[Any]) -> list[Any]:
    """A list is told to be too short where it came so, and not where what is in it is wrong and does not count."""
    places = [problem["loc"] for problem in problems]

    def emptied(problem: Any) -> bool:
        """Whether an item of the list is told, too."""
        above = problem["loc"]
        within = any(len(loc) > len(above) and loc[: len(above)] == above for loc in places)
        return problem["type"] == "too_short" and within

    return [problem for problem in problems if not emptied(problem)]


def _without_alternatives(problems: Sequence[Any]) -> list[Any]:
    """Where a text or a list of texts may stand: only what is wrong with the one that came."""
    wrong = [problem["loc"] for problem in problems if problem["type"] == "value_error"]

    def other(problem: Any) -> bool:
        """Whether this is of the alternative that did not come, beside a text that has been found wrong."""
        above, last = problem["loc"][:-1], "".join(map(str, problem["loc"][-1:]))
        of_union = problem["type"] in ("tuple_type", "string_type") and _TYPE_NAME.match(last)
        return bool(of_union) and any(loc != problem["loc"] and loc[: len(above)] == above for loc in wrong)

    return [problem for problem in problems if not other(problem)]


def _explain(problem: Any, schema: type[BaseModel], data: Any, source: str) -> str:
    location = tuple(problem["loc"])
    if problem["type"] == "extra_forbidden":
        key = shortened(str(location[-1]))
        path = ".".join([*_written_keys(schema, location[:-1], data), key])
        known = _known_keys(schema, location[:-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known)) or 'none'}"
        return f"{source}: unknown option {path!r}; {hint}"
    path = ".".join(_written_keys(schema, location, data))
    if problem["type"] == "missing":
        return f"{source}: option {path!r} is required and was not given"
    if problem["type"].startswith("union_tag"):
        return _explain_tag(problem, path, source)
    where = f"{source}: option {path!r}" if path else source
    hint = _as_weights(problem["input"], _schemas_at(schema, location)) if problem["type"] == "model_type" else ""
    return f"{where}: {_expectation(problem)}{hint}"


def _as_weights(value: Any, schemas: Sequence[type[BaseModel]]) -> str:
    """Of a block of weights that came as a name or a list of names: how it is written."""
    names = value if isinstance(value, list) else [value]
    defaults = {name: field.default for candidate in schemas for name, field in candidate.model_fields.items()}
    if not names or not all(isinstance(name, str) and isinstance(defaults.get(name), float) for name in names):
        return ""
    return f"; write {{{', '.join(f'{name}: 1' for name in names)}}}"


def _explain_tag(problem: Any, path: str, source: str) -> str:
    """Of a block by type: the type is missing or unknown."""
    key, context = f"{path}.type".removeprefix("."), problem["ctx"]
    if problem["type"] == "union_tag_not_found":
        return f"{source}: option {key!r} is required and was not given"
    tag = shortened(context["tag"])
    known = context["expected_tags"].replace("'", "").split(", ")
    near = difflib.get_close_matches(tag, known, n=1) or [name for name in known if name in tag]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{source}: option {key!r}: expected one of {context['expected_tags']}, got {tag!r}{hint}"


def _expectation(problem: Any) -> str:
    """What was expected and what came."""
    got = f", got {excerpt(problem['input'])}"
    if problem["type"] in _EXPECTED:
        return f"expected {_EXPECTED[problem['type']]}{got}"
    if problem["type"] in ("too_long", "too_short"):
        key, word = ("max_length", "most") if problem["type"] == "too_long" else ("min_length", "least")
        count = problem["ctx"][key]
        return f"expected a list of at {word} {count} item{'' if count == 1 else 's'}{got}"
    if problem["type"] == "value_error":  # ours; where it is of a whole block, it names what is wrong in it
        said = shortened(str(problem["msg"]).removeprefix("Value error, "))
        return said if isinstance(problem["input"], Mapping) or ", got " in said else f"{said}{got}"
    said = shortened(str(problem["msg"]))
    for beginning, ours in _REWORDED.items():
        if said.startswith(beginning):
            said = ours + said.removeprefix(beginning)
            break
    return f"{said}{got}"


def _written_keys(schema: type[BaseModel], location: Sequence[Any], data: Any) -> list[str]:
    """The keys of ``location`` as they stand in ``data``: without the types and blocks that pydantic or a short form
    puts among them."""
    written = []
    for number, part in enumerate(location):
        is_key = isinstance(data, Mapping) and part in data
        if is_key or (isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)):
            written.append(str(part))
            data = data[part]
        elif number == len(location) - 1 and not _stands_for_more(part, data) and not _is_type(schema, location):
            written.append(str(part))
    return written


def _stands_for_more(part: Any, data: Any) -> bool:
    """Whether a place is none of the file's: of one value that stands for a list or a block, of a key or a type."""
    if not isinstance(data, Mapping | list | tuple):
        return True
    return part == "[key]" or (isinstance(data, Mapping) and data.get("type") == part)


def _is_type(schema: type[BaseModel], location: Sequence[Any]) -> bool:
    """Whether the last part of ``location`` names a type, and no key."""
    part, schemas = location[-1], _schemas_at(schema, location[:-1])
    if any(part in candidate.model_fields for candidate in schemas):
        return False
    return part in _types(schemas) or bool(_TYPE_NAME.match(str(part)))


def _types(schemas: Sequence[type[BaseModel]]) -> dict[Any, type[BaseModel]]:
    """Schemas by the value of ``type`` that chooses them."""
    fields = [(candidate, candidate.model_fields.get("type")) for candidate in schemas]
    return {value: candidate for candidate, field in fields if field for value in get_args(field.annotation)}


def _known_keys(schema: type[BaseModel], parents: Sequence[Any]) -> list[str]:
    return sorted({name for candidate in _schemas_at(schema, parents) for name in candidate.model_fields})


def _schemas_at(schema: type[BaseModel], parents: Sequence[Any]) -> list[type[BaseModel]]:
    """The schemas that can stand at ``parents``, where types of blocks choose among them."""
    schemas = [schema]
    for part in parents:
        following = [
            found
            for candidate in schemas
            if str(part) in candidate.model_fields
            for found in _schemas_in(candidate.model_fields[str(part)].annotation)
        ]
        schemas = following or ([chosen] if (chosen := _types(schemas).get(part)) else schemas)
    return schemas


def _schemas_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list, tuple, dict) or hasattr(annotation, "__metadata__"):
        return [found for argument in get_args(annotation) for found in _schemas_in(argument)]
    return []

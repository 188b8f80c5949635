"""Every option says what it means: the reference and the schemas for editors are made of that."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import synthpipe.config
from synthpipe.config.reader import Options


def schemas_of_the_package() -> list[type[Options]]:
    for module in pkgutil.iter_modules(synthpipe.config.__path__):
        importlib.import_module(f"synthpipe.config.{module.name}")
    return [schema for schema in _below(Options) if schema.__module__.startswith("synthpipe.")]


def _below(schema: type[Options]) -> Iterator[type[Options]]:
    for child in schema.__subclasses__():
        yield child
        yield from _below(child)


def test_the_walk_finds_every_schema() -> None:
    names = {schema.__name__ for schema in schemas_of_the_package()}
    assert {
        "StreamOptions",
        "BlurOptions",
        "PoissonGaussianNoiseOptions",
        "TrainDeFlowOptions",
        "ShardOptions",
    } <= names


@pytest.mark.parametrize("schema", sorted(schemas_of_the_package(), key=lambda schema: schema.__qualname__))
def test_every_option_has_a_description(schema: type[Options]) -> None:
    silent = [name for name, field in schema.model_fields.items() if not (field.description or "").strip()]
    assert not silent, f"{schema.__module__}.{schema.__name__}: give Field(..., description=...) to {silent}"


@pytest.mark.parametrize("schema", sorted(schemas_of_the_package(), key=lambda schema: schema.__qualname__))
def test_descriptions_are_fragments_of_one_line(schema: type[Options]) -> None:
    for name, field in schema.model_fields.items():
        text = field.description or ""
        assert "\n" not in text, (name, text)
        assert "  " not in text, (name, text)
        assert not text.replace("...", "").endswith("."), (name, text)


@pytest.mark.parametrize("schema", sorted(schemas_of_the_package(), key=lambda schema: schema.__qualname__))
def test_every_block_has_a_docstring_of_its_own(schema: type[Options]) -> None:
    assert schema.__dict__.get("__doc__"), f"{schema.__module__}.{schema.__name__} needs a docstring"

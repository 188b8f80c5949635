"""From options to a run: the module with the stem of its options builds every kind of the one table, and no other."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import synthpipe.config
from synthpipe.config.reader import parse_options
from synthpipe.config.run import RunFolderOptions, RunOptions
from synthpipe.config.training import SCHEMAS
from synthpipe.errors import OptionError, TrainingError
from synthpipe.training import train
from synthpipe.training.base import RunParts
from synthpipe.training.build import build_run


def test_the_table_lists_every_schema_of_a_run() -> None:
    for module in pkgutil.iter_modules(synthpipe.config.__path__):
        importlib.import_module(f"synthpipe.config.{module.name}")
    kinds = {*RunOptions.__subclasses__(), *RunFolderOptions.__subclasses__()} - {RunOptions}
    written = {schema for schema in kinds if schema.__module__.startswith("synthpipe.")}
    assert written == set(SCHEMAS.values())


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_a_kind_is_built_by_the_module_with_the_stem_of_its_options(kind: str) -> None:
    schema = SCHEMAS[kind]
    assert schema.model_fields["kind"].default == kind
    stem = schema.__module__.removeprefix("synthpipe.config.")
    module = importlib.import_module(f"synthpipe.training.{stem}")
    if issubclass(schema, RunOptions):
        assert get_type_hints(module.build_run) == {"options": schema, "return": RunParts}
    else:
        assert get_type_hints(module.compute) == {"options": schema, "stop": Callable[[], bool], "return": Path}


def test_nothing_is_read_before_the_run_begins(run_data: Callable[..., dict[str, Any]]) -> None:
    absent = {"clean": {"folder": "absent"}, "noisy": {"folder": "absent"}, "crop": 16, "batch_size": 4}
    parts = build_run(parse_options(run_data(data=absent), SCHEMAS["deflow"]))
    assert parts.build_objective().model.size_multiple == 4
    with pytest.raises(TrainingError, match="absent"):
        parts.build_data(0, 1)


@pytest.mark.parametrize("kind", ["point", "deflow"])
def test_options_of_no_listed_kind_are_refused(kind: str) -> None:
    with pytest.raises(OptionError, match=f"nothing trains options of type RunOptions .kind '{kind}'"):
        train(RunOptions(kind=kind, run_dir="unused"))

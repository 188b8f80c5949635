"""From options to a run: each kind's own module says which objective and which data it needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from synthpipe.config.run import RunFolderOptions, RunOptions
from synthpipe.config.training import SCHEMAS
from synthpipe.errors import OptionError
from synthpipe.training.base import RunParts
from synthpipe.training.loop import Trainer

__all__ = ["build_run", "train"]


def train(options: RunFolderOptions, stop: Callable[[], bool] = lambda: False) -> Path:
    """Train what ``options`` describe; returns the path of the final weights.

    Args:
        options: from :func:`synthpipe.config.training.read_train_options`.
        stop: asked after every step; true ends the run cleanly.

    Raises:
        OptionError: options that do not fit together.
        TrainingError: a run that cannot start or cannot go on.
    """
    if isinstance(options, RunOptions):
        return Trainer(options, *build_run(options), stop).run()
    path: Path = _module_of(options).compute(options, stop)
    return path


def build_run(options: RunOptions) -> RunParts:
    """What the run of ``options`` is made of, by ``build_run`` of its kind's module; loads and reads nothing yet.

    Raises:
        OptionError: options of no kind that :data:`synthpipe.config.training.SCHEMAS` lists.
    """
    parts: RunParts = _module_of(options).build_run(options)
    return parts


def _module_of(options: RunFolderOptions) -> ModuleType:
    schema = SCHEMAS.get(options.kind)
    if schema is None or not isinstance(options, schema):
        raise OptionError(f"nothing trains options of type {type(options).__name__} (kind {options.kind!r})")
    stem = schema.__module__.rpartition(".")[2]
    return import_module(f"synthpipe.training.{stem}")

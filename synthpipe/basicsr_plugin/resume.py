"""What has to be stored beside BasicSR's ``{iter}.state`` for a run to continue exactly: one small file per rank."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthpipe.errors import CheckpointError, excerpt
from synthpipe.torch_file import read_torch_file

__all__ = [
    "complete_state",
    "keep_rng",
    "read_rank_state",
    "read_state",
    "restore_rng",
    "rng_state",
    "write_rank_state",
]

_FORMAT = 1
_LOG = logging.getLogger("basicsr")


def rng_state() -> dict[str, Any]:
    """All global generators, in types that ``torch.load(weights_only=True)`` reads."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), words, int(position), int(has_gauss), cached),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put all global generators where :func:`rng_state` found them."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def keep_rng() -> Iterator[None]:
    """Leave the global generators as they were: a data loader draws from them each time that it is iterated."""
    state = rng_state()
    try:
        yield
    finally:
        restore_rng(state)


def rank_file(state_file: str | Path, rank: int) -> Path:
    """The file of ``rank`` beside BasicSR's ``{iter}.state``; BasicSR takes any suffix ``state`` for its own."""
    state_file = Path(state_file)
    return state_file.with_name(f"{state_file.stem}.synthpipe-rank{rank}.pt")


def write_rank_state(state_file: str | Path, rank: int, content: dict[str, Any]) -> None:
    """Write this rank's file, atomically: a kill leaves either the whole file or none."""
    path = rank_file(state_file, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save({"format": _FORMAT, **content}, temporary)
    temporary.replace(path)


def read_rank_state(state_file: str | Path, rank: int) -> dict[str, Any] | None:
    """This rank's part of a checkpoint, or None where there is none (a run that BasicSR's own entry began).

    Raises:
        CheckpointError: a damaged file, or one of another format.
    """
    path = rank_file(state_file, rank)
    if not path.is_file():
        return None
    try:
        content = read_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; resume from an earlier checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected a state of format {_FORMAT}, got {excerpt(found)}")
    return content


def complete_state(folder: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in BasicSR's ``training_states`` that can be read, with its content; None if there is none.

    BasicSR writes in place, so a run killed while saving leaves a torn file with the highest number; it is passed over.
    """
    found = [file for file in Path(folder).glob("*.state") if file.stem.isascii() and file.stem.isdecimal()]
    for path in sorted(found, key=lambda file: int(file.stem), reverse=True):
        try:
            return path, read_state(path)
        except CheckpointError as error:
            _LOG.warning("synthpipe: %s; torn by a kill? Trying the one before.", error)
    return None


def read_state(path: str | Path) -> dict[str, Any]:
    """BasicSR's own ``{iter}.state``.

    Raises:
        CheckpointError: a file that cannot be read, is torn, or is something else.
    """
    state = read_torch_file(path)
    if not isinstance(state, dict) or not isinstance(state.get("iter"), int):
        raise CheckpointError(f"{path}: no state of BasicSR's, expected a number 'iter' in it, got {excerpt(state)}")
    return state

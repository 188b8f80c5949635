"""What a file's header may ask of a model's constructor: plain settings, and memory for the file's numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from synthpipe.errors import CheckpointError, excerpt, shortened

__all__ = ["BuildBudget", "require_plain_settings"]

#: Largest whole number among a model's settings, with either sign.
MAX_INTEGER = 1 << 16
#: Entries of a list or block of settings.
MAX_ENTRIES = 4096
#: Characters of a text among the settings.
MAX_CHARACTERS = 1000
#: Blocks and lists within each other.
MAX_DEPTH = 8
#: Calls of torch while a model is built: for each tensor of the file, and beside that.
CALLS_FOR_EACH_TENSOR, CALLS_BESIDE = 64, 4096
#: Numbers created while a model is built, over those in the file, and beside that.
NUMBERS_FOR_EACH, NUMBERS_BESIDE = 4, 1 << 20

_BY_SHAPE = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
_CREATORS: frozenset[Callable[..., Any]] = frozenset((*_BY_SHAPE, torch.full, torch.eye))


def require_plain_settings(settings: Any, name: str = "config", depth: int = 0) -> None:
    """Refuse what no model of ours has among its settings.

    Raises:
        CheckpointError: a number that is not finite or beyond ``MAX_INTEGER``, a long text, list or block, too much
            depth, or something that is not plain.
    """
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{name}: expected at most {MAX_DEPTH} blocks and lists within each other, got more")
    if isinstance(settings, bool) or settings is None:
        return
    if isinstance(settings, int):
        if abs(settings) > MAX_INTEGER:
            raise CheckpointError(f"{name}: expected a number up to {MAX_INTEGER}, got {excerpt(settings)}")
    elif isinstance(settings, float):
        if not math.isfinite(settings):
            raise CheckpointError(f"{name}: expected a finite number, got {settings}")
    elif isinstance(settings, str):
        if len(settings) > MAX_CHARACTERS:
            raise CheckpointError(f"{name}: expected at most {MAX_CHARACTERS} characters, got {len(settings)}")
    elif isinstance(settings, dict | list | tuple):
        if len(settings) > MAX_ENTRIES:
            raise CheckpointError(f"{name}: expected at most {MAX_ENTRIES} entries, got {len(settings)}")
        entries = settings.items() if isinstance(settings, dict) else enumerate(settings)
        for key, value in entries:
            require_plain_settings(value, shortened(f"{name}.{key}"), depth + 1)
    else:
        raise CheckpointError(f"{name}: expected plain settings, got {type(settings).__name__}")


class BuildBudget(TorchFunctionMode):
    """While inside, torch creates no tensor larger than the file's largest, nor many more numbers than the file has.

    A shape is looked at before the memory is asked for, so that ``steps: 60000`` or ``hidden: 60000`` in the header of
    a small file costs neither time nor memory.  Draws and results are what they are without.

    Args:
        sizes: numbers of each tensor in the file.

    Raises:
        CheckpointError: out of the call of torch that passes a bound.
    """

    def __init__(self, sizes: Collection[int]) -> None:
        super().__init__()
        self._largest = max(sizes, default=0)
        self._most = max(self._largest, NUMBERS_BESIDE)
        self._numbers = NUMBERS_FOR_EACH * sum(sizes) + NUMBERS_BESIDE
        self._calls = CALLS_FOR_EACH_TENSOR * len(sizes) + CALLS_BESIDE

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, then call ``func`` as it is."""
        self._calls -= 1
        if kwargs is None:
            kwargs = {}
        if func in _CREATORS:
            self._spend(_shape(func, args, kwargs))
        return func(*args, **kwargs)

    def _spend(self, shape: tuple[int, ...]) -> None:
        # Only here: out of a call that puts the gradient mode back, an error would leave it as it is.
        if self._calls < 0:
            raise CheckpointError("the configuration asks for many more tensors than the file has")
        count = math.prod(shape)
        self._numbers -= count
        if count > self._most or self._numbers < 0:
            raise CheckpointError(
                f"the configuration asks for a tensor {excerpt(shape)}, the largest in the file has {self._largest} "
                "numbers"
            )


def _shape(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    if func is torch.eye:
        return (args[0], args[1] if len(args) > 1 and isinstance(args[1], int) else args[0])
    size = kwargs["size"] if "size" in kwargs else args[0] if func is torch.full or len(args) == 1 else args
    return (size,) if isinstance(size, int) else tuple(size)

"""What is fuzzed: one module in ``readers`` for each, with ``prepare(folder) -> Reader``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutated_bytes

__all__ = ["Reader", "names", "prepare"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reader:
    """A reader of input that anyone may have written.

    Args:
        seeds: whole inputs, which ``read`` takes.
        read: MUST return, or raise a :class:`synthpipe.errors.SynthPipeError`; may be called any number of times.
        tokens: what has a meaning in the format; put into the inputs.
        mutate: from a seed to a case, where bytes alone would seldom get behind the format's outermost checks.
        memory_mb: that one case may take, beyond what the process has.
        seconds: that one case may take.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    tokens: Sequence[bytes] = ()
    mutate: Callable[[bytes, Random], bytes] | None = None
    memory_mb: int = 300
    seconds: float = 20.0

    def case(self, seed: int, number: int) -> bytes:
        """The input of this number: the same at every call."""
        rng = Random(f"{seed}/{number}")
        data = rng.choice(self.seeds)
        if self.mutate is not None and rng.random() < 0.8:
            return self.mutate(data, rng)
        return mutated_bytes(data, rng, self.tokens, self.seeds)


def names() -> list[str]:
    """All readers."""
    return sorted(path.stem for path in (HERE / "readers").glob("*.py") if path.stem != "__init__")


def prepare(name: str, folder: Path) -> Reader:
    """The reader of this name, with an empty folder to work in."""
    reader = import_module(f"tests.fuzz.readers.{name}").prepare(folder)
    assert isinstance(reader, Reader)
    return reader

"""Jobs for tests of the engines, importable by worker processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from synthpipe.errors import OptionError, ShardError

__all__ = ["Number", "die_always", "die_once", "double", "fail_first", "refuse"]


@dataclass(frozen=True)
class Number:
    """A number, and a folder for traces of what was tried."""

    value: int
    folder: str = ""

    @property
    def name(self) -> str:
        return f"number {self.value}"


def double(job: Number) -> int:
    return 2 * job.value


def refuse(job: Number) -> int:
    if job.value == 3:
        raise OptionError("three is refused")
    return job.value


def die_once(job: Number) -> int:
    """Kills its process the first time that it meets 2."""
    trace = Path(job.folder) / "died"
    if job.value == 2 and not trace.exists():
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * job.value


def die_always(job: Number) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def fail_first(job: Number) -> int:
    """Fails ``value`` times as a disk or network does."""
    trace = Path(job.folder) / "tries"
    tries = len(trace.read_bytes()) if trace.exists() else 0
    if tries < job.value:
        trace.write_bytes(b"." * (tries + 1))
        try:
            raise OSError(5, "no answer")
        except OSError as error:
            raise ShardError("cannot write") from error
    return tries

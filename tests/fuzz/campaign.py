"""Runs cases in a child process under limits of memory and time, and keeps what fails."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn

from synthpipe.errors import SynthPipeError
from tests.fuzz.reader import Reader

__all__ = ["Campaign", "Failure", "failure_of", "run_campaign"]

#: Beyond a case's own limit: after this the child is taken for hanging in C code.
GRACE_SECONDS = 20.0
#: Address space over the memory limit; libraries reserve more than they use.
ADDRESS_SPACE_MB = 2048


class TooLongError(BaseException):
    """Past every ``except Exception``."""


@dataclass(frozen=True)
class Failure:
    """One case that neither returned nor raised an error of ours.

    Args:
        key: equal for failures at one place.
        text: what happened.
    """

    key: str
    text: str


@dataclass
class Campaign:
    """What came of the cases."""

    cases: int = 0
    seconds: float = 0.0
    refused: int = 0
    failures: dict[str, list[int]] = field(default_factory=dict)


def failure_of(reader: Reader, data: bytes) -> tuple[Failure | None, bool]:
    """Read one case within its time and memory; also whether it was refused."""
    before = _peak_mb()
    refused = False
    try:
        with _time_limit(reader.seconds):
            reader.read(data)
    except SynthPipeError:
        refused = True
    except (Exception, TooLongError, SystemExit) as error:  # noqa: BLE001
        return Failure(_key(error), "".join(traceback.format_exception(error))[-6000:]), False
    grown = _peak_mb() - before
    if grown > reader.memory_mb:
        return Failure("memory", f"{grown} MB more, expected at most {reader.memory_mb}"), refused
    return None, refused


def run_campaign(reader: Reader, seed: int, seconds: float, folder: Path, cases: int | None = None) -> Campaign:
    """Cases one after the other until the time is over; inputs that fail are written to ``folder``."""
    done = Campaign()
    started = time.monotonic()
    texts: dict[str, str] = {}
    while (left := started + seconds - time.monotonic()) > 0 and (cases is None or done.cases < cases):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        most = None if cases is None else cases - done.cases
        child = multiprocessing.get_context("fork").Process(
            target=_child, args=(reader, seed, done.cases, left, most, theirs), daemon=True
        )
        child.start()
        theirs.close()
        ended = _listen(ours, reader, done, texts)
        if child.is_alive() and not ended:
            child.kill()
        child.join()
    for key, numbers in done.failures.items():
        _keep(folder, key, texts[key], reader.case(seed, numbers[0]))
    done.seconds = time.monotonic() - started
    return done


def _listen(ours: Connection, reader: Reader, done: Campaign, texts: dict[str, str]) -> bool:
    """Take the child's results; True where it ended by itself."""
    number: int | None = None
    while True:
        failure: Failure | None = None
        try:
            if not ours.poll(reader.seconds + GRACE_SECONDS):
                failure = Failure("hangs", f"no sign after {reader.seconds + GRACE_SECONDS} s")
            else:
                said = ours.recv()
        except EOFError:
            failure = Failure("crash", "the process died")
        if failure is None and said is None:
            return True
        if failure is None and isinstance(said, int):
            number = said
            continue
        refused = False
        if failure is None:
            failure, refused = said
        elif number is None:
            return True
        done.cases += 1
        done.refused += refused
        if failure is not None:
            assert number is not None
            done.failures.setdefault(failure.key, []).append(number)
            texts.setdefault(failure.key, failure.text)
            if failure.key in ("hangs", "crash"):
                return False
        number = None


def _child(reader: Reader, seed: int, first: int, seconds: float, most: int | None, out: Connection) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    limit = _address_space() + (reader.memory_mb + ADDRESS_SPACE_MB << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stop = time.monotonic() + seconds
    number = first
    while time.monotonic() < stop and (most is None or number < first + most):
        data = reader.case(seed, number)
        out.send(number)
        out.send(failure_of(reader, data))
        number += 1
    out.send(None)
    out.close()
    os._exit(0)


def _key(error: BaseException) -> str:
    ours = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}synthpipe{os.sep}" in frame.filename
    ]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "outside"
    return f"{type(error).__name__} at {place}"


def _keep(folder: Path, key: str, text: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:8]
    (folder / f"{name}.bin").write_bytes(data)
    (folder / f"{name}.txt").write_text(f"{key}\n\n{text}", encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TooLongError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

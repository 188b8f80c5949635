"""A process that measures another checkout of synthpipe: lines of text to it, lines of JSON from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "SERVE", "CheckoutProcess", "checkout_processes", "package_place"]

#: This checkout.
ROOT = Path(__file__).resolve().parents[2]
#: The argument by which a benchmark's script is told to be the other end: it answers ``where`` with
#: :func:`package_place`, and other lines as it likes.
SERVE = "--serve"


class CheckoutProcess:
    """The script of a benchmark, run with the package of a checkout."""

    def __init__(self, checkout: Path, script: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._process = subprocess.Popen(
            [sys.executable, script, SERVE],
            env=environment,
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = Path(self.ask("where"))
        if not found.is_relative_to(checkout):
            raise RuntimeError(f"{checkout}: its process imports synthpipe from {found}; expected a checkout")

    def ask(self, line: str) -> Any:
        """Its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of a checkout ended with {self._process.wait()} at {line[:80]!r}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()


@contextmanager
def checkout_processes(checkouts: list[Path], script: str) -> Iterator[list[CheckoutProcess]]:
    """One for each, ended with the block."""
    processes = [CheckoutProcess(checkout, script) for checkout in checkouts]
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def package_place() -> str:
    """Where the package lies that this process has imported."""
    import synthpipe

    return str(Path(synthpipe.__file__).resolve())

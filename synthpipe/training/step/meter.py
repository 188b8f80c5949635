"""Means of what each step of a training says."""

from __future__ import annotations

import time

from torch import Tensor

__all__ = ["Meter"]


class Meter:
    """Means of a step's numbers since this meter was made, kept on the device until they are asked for."""

    def __init__(self) -> None:
        #: How many were added.
        self.steps = 0
        self._sums: dict[str, Tensor] = {}
        self._started = time.monotonic()

    def add(self, numbers: dict[str, Tensor]) -> None:
        """Count one step's scalars."""
        self._sums = {name: self._sums.get(name, 0) + value for name, value in numbers.items()}
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Of the steps so far; waits for the device."""
        return {name: float(total) / self.steps for name, total in self._sums.items()}

    def steps_per_second(self) -> float:
        """By the clock, since this meter was made."""
        return self.steps / max(time.monotonic() - self._started, 1e-9)

"""What every step of ``gpu.py`` measures with: rows, repeated calls, peak memory, the data of the run."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from report import synchronise
from stream import smoothed_noise, write_shards

#: How numbers are computed: TF32 in convolutions and products, bfloat16 by autocast (the rest of it in TF32).
MODES = {"fp32": (False, False), "tf32": (True, False), "bf16": (True, True)}


@dataclass
class Bench:
    """One step's surroundings.

    Args:
        device: where to measure.
        quick: tiny sizes.
        folder: shared by the steps of a run.
        rows: takes the figures, one JSON object a line.
    """

    device: torch.device
    quick: bool
    folder: Path
    rows: IO[str]
    failures: int = 0

    def say(self, **row: Any) -> None:
        """Add a row; it is in the file when this returns."""
        self.rows.write(json.dumps(row) + "\n")
        self.rows.flush()

    @contextlib.contextmanager
    def part(self, **labels: Any) -> Iterator[None]:
        """A part that may fail without ending the step: the error becomes a row and the step counts as failed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            self.failures += 1
            self.say(**labels, error=f"{type(error).__name__}: {error}"[:500])

    def seconds(self, call: Callable[[], object], rounds: int, warmup: int = 2) -> dict[str, Any]:
        """Median of ``rounds`` calls, and the fastest and slowest."""
        if self.quick:
            rounds, warmup = 1, 1
        found = []
        for index in range(warmup + rounds):
            synchronise(self.device)
            begun = time.perf_counter()
            call()
            synchronise(self.device)
            if index >= warmup:
                found.append(time.perf_counter() - begun)
        return {"s": round(statistics.median(found), 6), "spread": [round(min(found), 6), round(max(found), 6)]}

    def peak_mib(self, call: Callable[[], object]) -> int | None:
        """Device memory that a call takes beyond what is held already; None on the CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        synchronise(self.device)
        return round((torch.cuda.max_memory_allocated(self.device) - before) / 2**20)

    def shards(self) -> list[str]:
        """Shards of 768x768 JPEGs (256x256 if quick), made by the first step that asks."""
        place = self.folder / "shards"
        if not place.exists():
            unfinished = self.folder / "shards.unfinished"
            unfinished.mkdir(exist_ok=True)
            counts = (2, 8, 256, 4) if self.quick else (8, 24, 768, 16)
            shards, images, side, different = counts
            write_shards(unfinished, shards, images, side, "jpg", different)
            unfinished.rename(place)
        return sorted(str(path) for path in place.glob("*.tar"))

    def photographs(self) -> Path:
        """A folder of PNGs."""
        place = self.folder / "photographs"
        if not place.exists():
            place.mkdir()
            rng = np.random.default_rng(1)
            for number in range(2 if self.quick else 24):
                (place / f"{number:02d}.png").write_bytes(smoothed_noise(rng, 64 if self.quick else 768, "png"))
        return place


def allow_tf32(allowed: bool) -> None:
    """Of convolutions and of matrix products."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed

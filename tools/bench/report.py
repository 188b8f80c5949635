"""The one shape of a benchmark's result: two things measured in one run, their ratio, versions and machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

import synthpipe


def paired_seconds(
    ours: Callable[[], object],
    peer: Callable[[], object],
    device: torch.device,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Seconds of each call, the two in turn (so that a drift of the machine's speed meets both).

    With ``clock=time.process_time``, of processor time: what one core takes, whatever else the machine is doing.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(warmup + rounds):
        for call, into in zip((ours, peer), times, strict=True):
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if index >= warmup:
                into.append(clock() - start)
    return times


def print_result(
    name: str, ours: list[float], peer: list[float], unit: str, device: torch.device, **details: Any
) -> None:
    """Print the result as one JSON object: medians, their spread, and the median of the paired ratios ours/peer."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    result = {
        "name": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "unit": unit,
        "spread": {"ours": [min(ours), max(ours)], "peer": [min(peer), max(peer)], "ratio": [min(ratios), max(ratios)]},
        "details": details,
        **provenance(device),
    }
    print(json.dumps(result, indent=1))


def provenance(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """What a figure needs beside it: versions, machine, date and commit.

    Args:
        device: where was measured.
        commit: where the working tree is no checkout; else asked of git, with a ``+`` where something is changed.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "synthpipe": synthpipe.__version__,
        },
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit or _commit(),
    }


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None

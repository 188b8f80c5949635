"""The one shape of a benchmark's result: two things measured in one run, their ratio, versions and machine.

Kept results stand in ``results/``, each by :func:`result_path`; its README says how.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch

import synthpipe

#: Where results are kept.
RESULTS = Path(__file__).resolve().parent / "results"


def bench_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the module's text as it stands, with the option ``--save`` of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="keep the result in tools/bench/results, too")
    return parser


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
    name: str,
    ours: list[float],
    peer: list[float],
    unit: str,
    device: torch.device,
    *,
    save: bool = False,
    **details: Any,
) -> None:
    """Print the result as one JSON object: medians, their spread, and the median of the paired ratios ours/peer.

    Args:
        name: of the benchmark.
        ours, peer: what was measured, in pairs.
        unit: of both.
        device: where was measured.
        save: write it to :func:`result_path`, too; a result of the same day and machine gives way.
        details: what else the figures depend on, or what else was found.
    """
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
    if save:
        write_result(result_path(name, result), result)


def result_path(name: str, about: Mapping[str, Any]) -> Path:
    """``results/NAME-DATE-MACHINE.json``.

    Args:
        name: of the benchmark.
        about: what :func:`provenance` gives.
    """
    machine = about["machine"]
    accelerated = machine["device"] != platform.machine()
    words = machine["device"] if accelerated else f"{machine['cpu']} {machine['cores']} cores"
    tag = re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")
    return RESULTS / f"{name}-{about['date']}-{tag}.json"


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(unfinished, path)


def provenance(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """What a figure needs beside it: versions, machine, date, commit and command.

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
            "cpu": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            # Of the last minute, the benchmark included: far above its threads, something else ran.
            "load": round(os.getloadavg()[0], 1),
        },
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit or _commit(),
        "command": shlex.join(["python", *sys.argv]),
    }


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    """The processor's name where Linux knows it, else its kind."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _commit() -> str | None:
    """Of this checkout, with a plus where tracked files differ; the results that a run keeps do not count."""
    git = ["git", "-C", str(Path(__file__).parent)]
    code = [":/", ":(top,exclude)tools/bench/results"]
    try:
        described = [*git, "describe", "--always", "--exclude=*"]
        commit = subprocess.run(described, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}{'+' if changed.returncode else ''}" if commit else None

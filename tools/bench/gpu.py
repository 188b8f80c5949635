"""Every ``gpu`` test and every measurement on a GPU, in one command of at most eight minutes, into one JSON file.

    python tools/bench/gpu.py                                  # the device that is there, results/gpu-DATE-DEVICE.json
    python tools/bench/gpu.py --only degrade graph_small --out look.json
    python tools/bench/gpu.py --device cpu --quick             # tries every line in about two minutes, measures nothing

Each step runs in a process of its own with a time limit, what matters most first, and the file is written after each:
``steps`` says how each ended, with the end of its output where it failed or took too long; ``rows`` are the figures,
those of a step that was stopped included.  Traces of one second of iterations lie beside it (``*.trace.json.gz``, for
chrome://tracing or Perfetto).  Data are made for the run.  The exit status is 1 where a step did not end
well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from report import provenance, result_path, write_result

HERE = Path(__file__).resolve().parent

#: Steps in the order of their worth, each with the seconds that it may take.
STEPS = {
    "tests": 150,
    "degrade": 90,
    "iteration": 120,
    "graph_small": 40,
    "stream": 80,
    "train": 80,
    "kernels": 60,
    "graph_ntire": 50,
    "graph_aim": 60,
    "start": 60,
    "stages": 60,
    "folder": 80,
}
#: Below this no step is begun.
_LEAST = 8.0
_TAIL = 4000


def main() -> int:
    """Run the steps, write the file."""
    args = parse_arguments()
    device = torch.device(args.device)
    begun = time.monotonic()
    about = provenance(device, args.commit)
    # What measures nothing must not lie among the kept results.
    out = args.out or (Path("gpu-quick.json") if args.quick else result_path("gpu", about))
    result: dict[str, Any] = {
        "name": "gpu",
        **about,
        "quick": args.quick,
        "budget_s": args.budget,
        "steps": [],
        "rows": [],
    }
    with tempfile.TemporaryDirectory(prefix="synthpipe-gpu-") as folder:
        for name in args.only or STEPS:
            left = args.budget - (time.monotonic() - begun)
            step, rows = run_step(name, command_of(name, args), min(STEPS[name], left), Path(folder))
            result["steps"].append(step)
            result["rows"] += rows
            result["took_s"] = round(time.monotonic() - begun, 1)
            write_result(out, result)
            print(f"{result['took_s']:6.1f} s  {name}: {step['state']}, {len(rows)} rows", flush=True)
        for trace in Path(folder).glob("*.trace.json.gz"):
            shutil.copy(trace, out.parent / f"{out.stem}-{trace.name}")
    print(out)
    return 0 if all(step["state"] == "done" for step in result["steps"]) else 1


def command_of(name: str, args: argparse.Namespace) -> list[str]:
    """The step's own process, but for where it writes."""
    command = [sys.executable, str(HERE / "gpu_step.py"), name, "--device", args.device]
    if args.quick:
        command.append("--quick")
    return command


def run_step(
    name: str, command: Sequence[str], limit: float, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one step until it ends, or to its limit.

    Args:
        name: of the step.
        command: gets ``--rows FILE --folder FOLDER`` besides.
        limit: seconds; too few begin nothing.
        folder: for the step's output and rows, and for data that steps share.

    Returns:
        What became of it (``name``, ``state``: ``done``, ``failed``, ``stopped`` or ``not begun``, ``s``, ``limit_s``,
        and unless it was done the end of its ``output``), and its rows, each with the ``step``'s name.
    """
    step: dict[str, Any] = {"name": name, "state": "not begun", "s": 0.0, "limit_s": round(limit, 1)}
    if limit < _LEAST:
        return step, []
    rows, log = folder / f"{name}.rows", folder / f"{name}.log"
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--rows", str(rows), "--folder", str(folder)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            step["state"] = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            step["state"] = "stopped"
        finally:
            _end(process)
    step["s"] = round(time.monotonic() - begun, 1)
    if step["state"] != "done":
        step["output"] = log.read_text(errors="replace")[-_TAIL:]
    return step, [{"step": name, **row} for row in read_rows(rows)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines; one that a kill cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever is left of the step's processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=480, help="seconds for all steps")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), metavar="STEP", help=f"of {', '.join(STEPS)}")
    parser.add_argument(
        "--out",
        type=Path,
        help="the JSON (default: tools/bench/results/gpu-DATE-DEVICE.json; with --quick gpu-quick.json here)",
    )
    parser.add_argument("--commit", help="recorded where the working tree is no git checkout")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries the code, measures nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

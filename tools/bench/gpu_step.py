"""One step of ``gpu.py``, in a process of its own: ``gpu_step.py NAME --rows FILE --folder FOLDER --device cuda``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from gpu_measure import Bench

#: Step -> module and function; modules are imported by the step that needs them, so that one that lacks a package
#: fails alone.
STEPS = {
    "tests": ("gpu_commands", "tests"),
    "folder": ("gpu_commands", "folder"),
    "start": ("gpu_streams", "start"),
    "stream": ("gpu_streams", "stream"),
    "stages": ("gpu_streams", "stages"),
    "iteration": ("gpu_streams", "iteration"),
    "degrade": ("gpu_models", "degrade"),
    "train": ("gpu_models", "train"),
    "kernels": ("gpu_models", "kernels"),
    "graph_small": ("gpu_models", "graph_small"),
    "graph_ntire": ("gpu_models", "graph_ntire"),
    "graph_aim": ("gpu_models", "graph_aim"),
}


def main() -> int:
    """Run the step; 1 where a part of it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.quick:
        torch.set_num_threads(1)
    module, name = STEPS[args.step]
    function: Callable[[Bench], None] = getattr(import_module(module), name)
    begun = time.monotonic()
    with args.rows.open("w") as rows:
        bench = Bench(torch.device(args.device), args.quick, args.folder, rows)
        function(bench)
    print(f"{args.step}: {time.monotonic() - begun:.1f} s, {bench.failures} parts failed")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())

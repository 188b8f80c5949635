"""Memory and time of a DeFlow's training step, plain and with activation checkpointing, in processes of their own.

    python tools/bench/training_step.py --preset aim --batch 8 --size 160 --steps 3
    python tools/bench/training_step.py --preset small --batch 8 --size 160 --processor-time

A step is forward, backward and fused Adam on random images of both domains, with the loop's objective, noise from seeds
and optimiser.  ``ours`` is the checkpointed step, ``peer`` the plain one; the processes take turns, round by round.
``details.memory`` has the peak of each in MiB above what the process had before the model was made: on a CPU the
kernel's high-water mark (VmHWM), on CUDA the allocator's; weights, gradients, moments and the batch are in it.
``details.kept`` is what of the peak they alone take.  On a CPU the C library keeps freed blocks of up to 32 MiB for
later, and giving them back takes time: there memory is measured in further processes that do, so that the mark is of
memory in use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import bench_parser, print_result, synchronise

from synthpipe.config.deflow import PRESETS, TrainDeFlowOptions
from synthpipe.config.reader import parse_options
from synthpipe.training.base import step_seeds
from synthpipe.training.deflow import build_objective
from synthpipe.training.step.optimizer import build_optimizer

WAYS = ("checkpointed", "plain")


def peak_mib(device: torch.device) -> float:
    """High-water mark of this process, or of the allocator on CUDA."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 2**10


def step_of(args: argparse.Namespace, device: torch.device) -> tuple[Callable[[int], None], float]:
    """One step, given its number, and MiB of weights, gradients and moments."""
    images = {"folder": "unread"}
    options = parse_options(
        {
            "kind": "deflow",
            "run_dir": "unwritten",
            "model": {"preset": args.preset},
            "activation_checkpointing": args.only == "checkpointed",
            "data": {"clean": images, "noisy": images, "crop": args.size, "batch_size": args.batch},
        },
        TrainDeFlowOptions,
    )
    torch.manual_seed(0)
    objective = build_objective(options).to(device).train()
    # Time does not depend on the weights.
    objective.model.mark_initialized()
    optimizer = build_optimizer(options, objective)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (args.batch, 3, args.size, args.size), dtype=torch.uint8, generator=generator).to(device)
    batch = {"x": x, "domain": torch.arange(args.batch, device=device) % 2}

    def step(number: int) -> None:
        """Forward, backward, Adam."""
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss, _ = objective(batch, step_seeds(0, number, range(args.batch)))
        loss.backward()
        optimizer.step()

    return step, 4 * sum(p.numel() * p.element_size() for p in objective.parameters()) / 2**20


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each step after the first, and the peak, of one way in this process."""
    device = torch.device(args.device)
    clock = time.process_time if args.processor_time else time.perf_counter
    torch.set_num_threads(args.threads)
    base = peak_mib(device)
    step, kept = step_of(args, device)
    seconds = []
    for number in range(args.steps + 1):
        synchronise(device)
        begun = clock()
        step(number)
        synchronise(device)
        seconds.append(clock() - begun)
    return {"seconds": seconds[1:], "peak_mib": peak_mib(device) - base, "kept_mib": kept}


def in_child(way: str, environment: dict[str, str], steps: str | None = None) -> dict[str, Any]:
    """What :func:`measure` finds in a process of its own, with further variables of its ``environment``."""
    command = [sys.executable, *sys.argv, "--only", way, *([] if steps is None else ["--steps", steps])]
    said = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if said.returncode:
        raise SystemExit(f"{way}: {said.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def main() -> None:
    """Measure in children, print."""
    parser = bench_parser(__doc__)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=160, help="side of the crops in pixels")
    parser.add_argument("--steps", type=int, default=3, help="that are timed, in each process, after one that is not")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each way")
    parser.add_argument("--bf16", action="store_true", help="in autocast")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--processor-time", action="store_true", help="on a busy machine: what one core takes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=WAYS, help="measure this way here, print seconds and peak")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            found[way].append(in_child(way, {}))
            if args.device == "cpu":
                found[way][-1]["peak_mib"] = in_child(way, {"MALLOC_MMAP_THRESHOLD_": str(2**17)}, "1")["peak_mib"]
    ours, peer = ([second for run in found[way] for second in run["seconds"]] for way in WAYS)
    memory = {way: round(statistics.median(run["peak_mib"] for run in found[way]), 1) for way in WAYS}
    print_result(
        "training_step",
        ours,
        peer,
        "seconds",
        torch.device(args.device),
        save=args.save,
        compared="plain",
        preset=args.preset,
        batch=args.batch,
        size=args.size,
        bf16=args.bf16,
        clock="processor" if args.processor_time else "wall",
        memory={**memory, "ratio": round(memory["checkpointed"] / memory["plain"], 3)},
        kept=round(found["plain"][0]["kept_mib"], 1),
    )


if __name__ == "__main__":
    main()

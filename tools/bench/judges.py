"""Denoisers, the scorer and the estimate of noise as a stream's stage has them, against another checkout in turn.

    python tools/bench/judges.py --reference ../before --processor-time
    python tools/bench/judges.py --reference ../before --device cuda

``ours`` and ``peer`` are seconds of all shipped weights together, each on one batch of tiles; the details hold each by
itself, and the ratio of ours to the reference's, whose median is of the pairs.  Tiles are smoothed noise with noise of
different levels, so that each is denoised at a level of its own.  On CUDA our side is what the stage has, the captured
``compute``; the reference's is its call.  Both results are compared: the largest difference of all numbers is told.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkout import ROOT, SERVE, checkout_processes, package_place
from torch import Tensor

ESTIMATE, SCORER = "estimate_sigma", "scorer_small"
NAMES = (ESTIMATE, "blind_spot_small", "flow_prior_small", "map_small", "mmse_small", SCORER)
#: Places of each tile that the scorer looks at, as a stream's filter does.
PLACES = 4


def main() -> None:
    """Measure, print."""
    if SERVE in sys.argv:
        serve()
        return
    from report import bench_parser, print_result

    parser = bench_parser(__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="the other checkout")
    parser.add_argument("--tiles", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="of the tiles, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processor-time", action="store_true", help="on a busy machine: what one core takes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    settings = {key: getattr(args, key) for key in ("tiles", "side", "threads", "processor_time", "device")}
    times: list[dict[str, list[float]]] = [{name: [] for name in NAMES} for _ in range(2)]
    differ = dict.fromkeys(NAMES, 0.0)
    with checkout_processes([ROOT, args.reference.resolve()], __file__) as children:
        for number in range(1 + args.rounds):
            for name in NAMES:
                found = [child.ask(json.dumps({"name": name, **settings})) for child in children]
                differ[name] = max(abs(a - b) for a, b in zip(*(each["numbers"] for each in found), strict=True))
                for into, each in zip(times, found, strict=True):
                    if number:
                        into[name].append(each["seconds"])
    ours, peer = ([sum(seconds) for seconds in zip(*side.values(), strict=True)] for side in times)
    print_result(
        "judges",
        ours,
        peer,
        f"s for {args.tiles} tiles of {args.side}x{args.side} through all",
        torch.device(args.device),
        save=args.save,
        compared=f"the same of {commit_of(args.reference)}",
        settings=settings,
        each={name: row_of(times[0][name], times[1][name], differ[name]) for name in NAMES},
    )


def commit_of(checkout: Path) -> str:
    """Its short hash."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def row_of(ours: list[float], peer: list[float], difference: float) -> dict[str, float]:
    """What is said of one."""
    return {
        "ours": round(statistics.median(ours), 4),
        "peer": round(statistics.median(peer), 4),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 3),
        "largest_difference": difference,
    }


def serve() -> None:
    """Answer each line of the input: ``where``, or what to do once as JSON."""
    calls: dict[str, Callable[[], Tensor]] = {}
    for line in map(str.strip, sys.stdin):
        if line == "where":
            print(json.dumps(package_place()), flush=True)
            continue
        settings = json.loads(line)
        torch.set_num_threads(settings["threads"])
        call = calls.setdefault(line, call_of(settings))
        clock = time.process_time if settings["processor_time"] else time.perf_counter
        wait(settings["device"])
        start = clock()
        result = call()
        wait(settings["device"])
        seconds = clock() - start
        # A few thousand of the numbers tell results apart as well as all.
        few = result.flatten()[:: max(1, result.numel() // 5000)].double().cpu().tolist()
        print(json.dumps({"seconds": seconds, "numbers": few}), flush=True)


def call_of(settings: dict[str, Any]) -> Callable[[], Tensor]:
    """What one name stands for, on its tiles."""
    from synthpipe.denoisers.noise_level import estimate_sigma

    x = tiles_of(settings["tiles"], settings["side"]).to(settings["device"])
    if settings["name"] == ESTIMATE:
        return lambda: estimate_sigma(x)
    transform, key = transform_of(settings["name"])
    transform.to(settings["device"])
    batch = {"gt": x, "key": [str(n) for n in range(len(x))], "seed": torch.arange(len(x))}
    if x.is_cuda and hasattr(transform, "compute"):
        from synthpipe.transforms.captured import CapturedFunction

        captured = CapturedFunction(lambda gt: (transform.compute({"gt": gt})[key],))
        return lambda: captured(x)[0]
    return lambda: transform(batch)[key]


def transform_of(name: str) -> tuple[Any, str]:
    """The transform, and what it gives that counts."""
    from synthpipe import checkpoints
    from synthpipe.transforms import Denoise, DensityScore

    model: Any = checkpoints.load(name)
    if name == SCORER:
        return DensityScore(model, PLACES), "degraded_logit"
    return Denoise(model), "gt"


def tiles_of(count: int, side: int) -> Tensor:
    """``(count, 3, side, side)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, side // 6 + 2, side // 6 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    level = torch.linspace(0.01, 0.1, count)[:, None, None, None]
    return (smooth + level * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def wait(device: str) -> None:
    """Until the device has done all."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

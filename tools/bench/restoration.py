"""Restoration to equal quality: how long each plug-and-play method takes to a common PSNR, with networks of one size.

    python tools/bench/restoration.py --data ../shared/data/clean_test
    python tools/bench/restoration.py --map mine.safetensors --mmse twin.safetensors --kernels motion --device cuda

Six 128x128 crops, blurred around a circular border by a camera-motion kernel of 35x25 pixels (seed 0) or a Gaussian,
with white noise of 2.55/255 that is known to all.  Compared: the MAP denoiser on a falling schedule (ours) and at one
level (the paper), and its least-squares twin of the same size at one level, on our schedule, on DPIR's, and in DMSP's
gradient descent of 300 steps (the peer).  ``ours`` and ``peer`` are seconds for all crops to the common PSNR, the
highest that every method reaches, less 0.05 dB: the iterations that takes, times the median seconds of an iteration
(processor time on a CPU); one value for each kernel.  The details hold every method's curve, times and multiply-adds
(of the network, which is all but the FFTs), also to the higher PSNR that our schedule and DPIR's both reach.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import bench_parser, print_result
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.denoisers import Denoiser, Problem, restore
from synthpipe.denoisers.blur_kernels import gaussian_kernel, motion_kernel
from synthpipe.denoisers.blur_operators import CircularBlur
from synthpipe.denoisers.plug_and_play import Method, method_named, psnr
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import luma, to_float

SIGMA = 2.55 / 255
SIDE = 128
#: How far below its best a method may be to count as there.
SLACK = 0.05
#: Of the denoiser in methods of one level, as in the paper's experiments.
CONSTANT = 11 / 255

#: name -> (which network, method, its settings).
METHODS: dict[str, tuple[str, str, dict[str, float]]] = {
    "annealed MAP": ("map", "annealed", {}),
    "constant MAP": ("map", "map", {"first": CONSTANT, "last": CONSTANT}),
    "constant MMSE": ("mmse", "map", {"first": CONSTANT, "last": CONSTANT}),
    "annealed MMSE": ("mmse", "annealed", {}),
    "DPIR schedule": ("mmse", "dpir", {}),
    "DMSP": ("mmse", "dmsp", {"level": CONSTANT}),
}
OURS, PEER, SCHEDULE = "annealed MAP", "DMSP", "DPIR schedule"


def main() -> None:
    """Measure, print."""
    args = parse_arguments()
    found = measure(args)
    kernels = found["kernels"].values()
    print_result(
        "restoration",
        [row["methods"][OURS]["seconds_to_common"] for row in kernels],
        [row["methods"][PEER]["seconds_to_common"] for row in kernels],
        "s to equal PSNR",
        torch.device(args.device),
        save=args.save,
        compared="DMSP with the least-squares twin, 300 steps",
        **found,
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every method on every kernel; see :func:`parse_arguments` for what ``args`` holds."""
    if args.threads:
        torch.set_num_threads(args.threads)
    networks = {"map": load(args.map, args.device), "mmse": load(args.mmse, args.device)}
    crops = cut_crops(args.data, args.crops, networks["map"].channels).to(args.device)
    result: dict[str, Any] = {"crops": len(crops), "sigma": SIGMA, "networks": {}, "kernels": {}}
    for name, model in networks.items():
        result["networks"][name] = {"kmac_per_pixel": round(multiply_adds(model) / 1000, 1), "config": model.config}
    for name in args.kernels:
        generator = torch.Generator().manual_seed(args.seed)
        kernel = motion_kernel(35, 25, generator) if name == "motion" else gaussian_kernel(2.0)
        operator = CircularBlur(kernel).to(args.device)
        y = operator(crops)
        y = y + SIGMA * torch.randn(y.shape, generator=generator).to(y)
        problem = Problem(operator, y, SIGMA)
        rows = {}
        for method, (network, kind, settings) in METHODS.items():
            runs = args.steps if kind == "dmsp" else None
            rows[method] = run_method(
                problem, networks[network], method_named(kind, iterations=runs, **settings), crops
            )
        result["kernels"][name] = compare(rows, float(psnr(y, crops).mean()))
    return result


def run_method(problem: Problem, model: Denoiser, method: Method, crops: Tensor) -> dict[str, Any]:
    """PSNR after each iteration and the seconds of one."""
    curve, seconds = [], []
    device = problem.y.device
    clock = _clock(device)
    started = clock()

    def note(_: int, image: Tensor) -> None:
        """Seconds of one iteration and PSNR after it; what PSNR takes is not counted."""
        nonlocal started
        seconds.append(clock() - started)
        curve.append(float(psnr(image, crops).mean()))
        started = clock()

    restore(problem, model, method, callback=note)
    return {"psnr": curve, "seconds_per_iteration": statistics.median(seconds), "network": multiply_adds(model)}


def compare(rows: dict[str, dict[str, Any]], start: float) -> dict[str, Any]:
    """Times to the common PSNR (what all methods reach), and to the higher one that the two schedules reach."""
    best = {name: max(row["psnr"]) for name, row in rows.items()}
    targets = {"common": min(best.values()) - SLACK, "schedules": min(best[OURS], best[SCHEDULE]) - SLACK}
    methods = {}
    for name, row in rows.items():
        curve, each = row["psnr"], row["seconds_per_iteration"]
        entry: dict[str, Any] = {
            "best_db": round(max(curve), 2),
            "last_db": round(curve[-1], 2),
            "iterations": len(curve),
            "ms_per_iteration": round(1000 * each, 2),
        }
        for target, level in targets.items():
            steps = next((number for number, value in enumerate(curve, 1) if value >= level), None)
            entry[f"iterations_to_{target}"] = steps
            entry[f"seconds_to_{target}"] = None if steps is None else steps * each
            entry[f"kmac_per_pixel_to_{target}"] = None if steps is None else round(steps * row["network"] / 1000)
        entry["curve_db"] = [round(curve[place], 2) for place in _places(len(curve))]
        methods[name] = entry
    return {
        "observed_db": round(start, 2),
        "targets_db": {name: round(level, 2) for name, level in targets.items()},
        "curve_at": "1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, 80, ... 300, as far as it goes",
        "methods": methods,
    }


def multiply_adds(model: nn.Module) -> int:
    """Of all convolutions for one pixel, none of which reduces the size."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d))


def load(weights: str, device: str) -> Denoiser:
    """A denoiser in the layout that is fastest for it."""
    model = checkpoints.load(weights)
    assert isinstance(model, Denoiser), f"{weights} holds no denoiser"
    model.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def cut_crops(data: Path, count: int, channels: int) -> Tensor:
    """The middles of every so many pictures, ``(count, channels, SIDE, SIDE)``."""
    paths = list_images(data)
    crops = []
    for path in paths[:: max(1, len(paths) // count)][:count]:
        x = to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
        top, left = ((side - SIDE) // 2 for side in x.shape[2:])
        x = x[..., top : top + SIDE, left : left + SIDE]
        crops.append(luma(x) if channels == 1 else x)
    return torch.cat(crops)


def _places(length: int) -> list[int]:
    wanted = [1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, *range(60, 301, 20)]
    return [number - 1 for number in wanted if number <= length]


def _clock(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        """Seconds, when all that was asked of the device is done."""
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the command; other benchmarks take the defaults of ``parse_arguments([])``."""
    parser = bench_parser(__doc__)
    parser.add_argument("--map", default="map_small", help="weights of the MAP denoiser")
    parser.add_argument("--mmse", default="mmse_small", help="weights of its least-squares twin")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--crops", type=int, default=6)
    parser.add_argument("--kernels", nargs="+", choices=["motion", "gaussian"], default=["motion", "gaussian"])
    parser.add_argument("--steps", type=int, default=300, help="of DMSP")
    parser.add_argument("--seed", type=int, default=0, help="of kernel and noise")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; 0: PyTorch's choice")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

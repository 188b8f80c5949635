#!/usr/bin/env python
"""A student beside its teacher: PSNR at three levels of white noise, on real noise, and seconds of processor time.

    python recipes/blind_spot_distilled/evaluate.py --teacher blind_spot_small --data ../shared/data \
        --student runs/blind_spot_distilled/final.safetensors

Synthetic noise is neither clipped nor rounded, from a generator of each picture and level; output clamped to [0, 1],
PSNR over RGB of each picture, then the mean.  Real noise is of the SIDD pairs, its level estimated from each picture.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import Denoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.files.image_files import list_images
from synthpipe.seeds import generator_for, sample_seed

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from picture_quality import picture, psnr

LEVELS = (15, 25, 50)
SETS = ("cbsd68", "kodim", "set14")
SIDE, ROUNDS = 256, 5


@torch.no_grad()
def main() -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="blind_spot_small", help="weights of a denoiser")
    parser.add_argument("--student", required=True, help="weights of a plain denoiser")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument("--count", type=int, help="pictures of each set; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    teacher, student = load(args.teacher), load(args.student)
    print("| set | sigma | noisy | teacher | student | student - teacher |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in SETS:
        paths = [path for path in list_images(args.data / "clean_test") if path.name.startswith(name)][: args.count]
        for level in LEVELS:
            sigma = torch.tensor([level / 255])
            examples = [(noisy_of(path, level), picture(path), sigma) for path in paths]
            show(f"{name}, {len(paths)} | {level}", examples, teacher, student)
    folder = args.data / "real_noise_sidd"
    real = [(picture(path), picture(folder / "clean" / path.name)) for path in list_images(folder / "noisy")]
    show(f"SIDD, {len(real)} | estimated", [(y, x, estimate_sigma(y)) for y, x in real], teacher, student)
    seconds = [time_of(model) for model in (teacher, student)]
    print(f"\nOne core, {SIDE}x{SIDE}: teacher {seconds[0]:.3f} s, student {seconds[1]:.3f} s, ", end="")
    print(f"{seconds[0] / seconds[1]:.1f} times faster")


def show(name: str, examples: list[tuple[Tensor, Tensor, Tensor]], teacher: Denoiser, student: Denoiser) -> None:
    """One row, of ``(noisy, clean, level)``."""
    rows = [
        [psnr(result.clamp(0, 1), x) for result in (y, teacher(y, level), student(y, level))]
        for y, x, level in examples
    ]
    noisy, taught, learnt = torch.tensor(rows).mean(0).tolist()
    print(f"| {name} | {noisy:.2f} | {taught:.2f} | {learnt:.2f} | {learnt - taught:+.2f} |", flush=True)


def load(weights: str) -> Denoiser:
    """In the layout that is fastest on a CPU."""
    model = checkpoints.load(weights)
    assert isinstance(model, Denoiser), f"{weights}: no denoiser"
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def noisy_of(path: Path, level: int) -> Tensor:
    """The picture with white noise of its own."""
    clean = picture(path)
    generator = generator_for(sample_seed(0, 0, path.name), f"sigma {level}")
    return clean + level / 255 * torch.randn(clean.shape, generator=generator)


def time_of(model: Denoiser) -> float:
    """Median processor seconds of one image."""
    x, sigma = torch.rand(1, 3, SIDE, SIDE), torch.tensor([0.1])
    times = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        model(x, sigma)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()

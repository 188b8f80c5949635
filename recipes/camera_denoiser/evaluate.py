#!/usr/bin/env python
"""What the network itself reaches when it is told the measured level, or more or less: no guard, no other network.

    python recipes/camera_denoiser/evaluate.py --data ../shared/data

Real pairs, the middle of each picture, PSNR over RGB in dB; the level is that of ``estimate_noise`` on the whole one,
times a factor.  ``tools/bench/denoise.py`` measures what the command does in the end, on whole pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import estimate_noise
from synthpipe.transforms.denoise import load_denoiser

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen
from picture_quality import picture, psnr

FACTORS = (0.8, 1.0, 1.25, 1.6, 2.0)


@torch.no_grad()
def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="camera_denoiser", help="of any denoiser")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument("--side", type=int, default=256, help="of the middle that is looked at, pixels")
    args = parser.parse_args()
    model = load_denoiser(args.weights).eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"| set | pictures | noisy | {' | '.join(f'told {factor} times' for factor in FACTORS)} |")
    print("|---|---:|---:|" + "---:|" * len(FACTORS))
    for name in ("real_noise", "real_noise_sidd"):
        rows: dict[bool, list[list[float]]] = {True: [], False: []}
        for chosen, noisy, clean, level in pairs(args.data / name, args.side):
            told = [model(noisy, torch.tensor([factor * level])) for factor in FACTORS]
            rows[chosen].append([psnr(noisy, clean), *(psnr(result.clamp(0, 1), clean) for result in told)])
        for chosen, values in rows.items():
            means = " | ".join(f"{value:.2f}" for value in torch.tensor(values).mean(0).tolist())
            print(f"| {name}, {'chosen on' if chosen else 'judged'} | {len(values)} | {means} |", flush=True)


def pairs(folder: Path, side: int) -> Iterator[tuple[bool, Tensor, Tensor, float]]:
    """Whether settings were chosen on it; the middles ``(1, 3, h, w)``, noisy and clean; the measured level."""
    for path in list_images(folder / "noisy"):
        noisy, clean = picture(path), picture(folder / "clean" / path.name)
        found = estimate_noise(noisy[0])
        if found is None:
            raise SystemExit(f"{path}: no noise can be measured")
        top, left = (max(0, (length - side) // 16 * 8) for length in noisy.shape[2:])
        middle = (..., slice(top, top + side), slice(left, left + side))
        yield is_chosen(path.name), noisy[middle].contiguous(), clean[middle].contiguous(), found.level


if __name__ == "__main__":
    main()

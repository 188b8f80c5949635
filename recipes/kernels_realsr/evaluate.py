#!/usr/bin/env python3
"""Learned blur against the truth: known kernels behind photographs, and amplitudes that real pairs gave.

    python recipes/kernels_realsr/evaluate.py known --clean CLEAN_TRAIN --test CLEAN_TEST
    python recipes/kernels_realsr/evaluate.py real runs/kernels_realsr/*/final.safetensors

``known`` degrades photographs that are reduced by 4, and estimates against the first half of the clean ones: the other
half of them (settings were chosen there), and CBSD68 and Kodak (judged).  ``real`` prints the mean of each bank.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_float
from synthpipe.kernels import KernelBank
from synthpipe.kernels.edges import edge_powers
from synthpipe.kernels.estimate import estimate_kernels
from synthpipe.kernels.response import FREQUENCIES, amplitudes

WHERE = (0.2, 0.3, 0.4)
SCALE, SIDE = 4, 21


def gaussian(along: float, across: float, angle: float = 0.0) -> Tensor:
    """``(S, S)`` float64 with the sum 1, of these standard deviations."""
    place = torch.arange(SIDE, dtype=torch.float64) - SIDE // 2
    u = math.cos(angle) * place + math.sin(angle) * place[:, None]
    v = math.cos(angle) * place[:, None] - math.sin(angle) * place
    kernel = (-0.5 * ((u / along).square() + (v / across).square())).exp()
    return kernel / kernel.sum()


def lens(radius: float, fine: int = 8) -> Tensor:
    """A disc."""
    place = (torch.arange(SIDE * fine, dtype=torch.float64) + 0.5) / fine - SIDE / 2
    disc = (torch.hypot(place[:, None], place) < radius).double().reshape(SIDE, fine, SIDE, fine).mean((1, 3))
    return disc / disc.sum()


def sharpened(sigma: float, amount: float, radius: float) -> Tensor:
    """A Gaussian behind which an unsharp mask adds ``amount``."""
    wide = math.hypot(sigma, radius)
    return (1 + amount) * gaussian(sigma, sigma) - amount * gaussian(wide, wide)


KNOWN = {
    **{f"Gaussian {sigma}": gaussian(sigma, sigma) for sigma in (0.4, 0.6, 0.8, 1.0, 1.2)},
    "Gaussian 1.0 x 0.5": gaussian(1.0, 0.5, 0.6),
    "disc 1.2": lens(1.2),
    "disc 1.8": lens(1.8),
    "Gaussian 0.6, unsharp mask 0.8": sharpened(0.6, 0.8, 1.2),
    "Gaussian 0.8, unsharp mask 1.2": sharpened(0.8, 1.2, 1.5),
}


def reduced(path: Path) -> Tensor:
    """``(3, H / 4, W / 4)`` in [0, 1], 8 bits."""
    image = to_float(torch.from_numpy(decode_file(path)[0]).permute(2, 0, 1))[None]
    return quantize_8bit(downscale_bicubic(crop_to_multiple(image, SCALE), SCALE))[0]


def degraded(image: Tensor, kernel: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Behind the kernel, with white noise of ``sigma`` of 255."""
    half = SIDE // 2
    padded = torch.nn.functional.pad(image[:, None], (half, half, half, half), mode="reflect")
    soft = torch.nn.functional.conv2d(padded, kernel[None, None].float())[:, 0]
    return quantize_8bit(soft + sigma / 255 * torch.randn(soft.shape, generator=generator))


def powers(images: list[Tensor]) -> dict[str, Tensor]:
    """Of the edges of each."""
    return {f"{number:04}": edge_powers(image) for number, image in enumerate(images)}


def known(args: argparse.Namespace) -> None:
    """A row for each kernel, pile and noise: amplitudes found and true, and the largest error."""
    clean = [reduced(path) for path in list_images(args.clean)]
    judged = [path for path in list_images(args.test) if path.name.startswith(("cbsd68", "kodim"))]
    piles = {"other half": clean[1::4], "CBSD68, Kodak": [reduced(path) for path in judged]}
    sharp = powers(clean[::2])
    for pile, images in piles.items():
        for name, kernel in KNOWN.items():
            for sigma in args.sigma:
                generator = torch.Generator().manual_seed(0)
                found = estimate_kernels(sharp, powers([degraded(x, kernel, sigma, generator) for x in images]))
                ours = amplitudes(found.bank.mean()[None], WHERE)[0].tolist()
                truth = amplitudes(kernel[None], WHERE)[0].tolist()
                worst = max(abs(a - b) for a, b in zip(ours, truth, strict=True))
                cells = " / ".join(f"{a:.2f} ({b:.2f})" for a, b in zip(ours, truth, strict=True))
                print(f"| {pile} | {name} | {sigma:g} | {cells} | {worst:.2f} |", flush=True)


def real(args: argparse.Namespace) -> None:
    """A row for each bank: mean amplitudes, and their spread over the kernels."""
    print("cycles per pixel:", *FREQUENCIES)
    for path in args.banks:
        bank = checkpoints.load(path, kind="kernels")
        assert isinstance(bank, KernelBank)
        own = amplitudes(bank.kernels)
        mean, spread = amplitudes(bank.mean()[None])[0], own.std(0, correction=0)
        cells = " / ".join(f"{a:.2f} +- {b:.2f}" for a, b in zip(mean.tolist(), spread.tolist(), strict=True))
        print(f"| {path.parent.name} | {len(own)} | {cells} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Learned blur against the truth.")
    parts = parser.add_subparsers(required=True)
    first = parts.add_parser("known")
    first.add_argument("--clean", type=Path, required=True)
    first.add_argument("--test", type=Path, required=True)
    first.add_argument("--sigma", type=float, nargs="+", default=[2.0])
    first.set_defaults(run=known)
    second = parts.add_parser("real")
    second.add_argument("banks", type=Path, nargs="+")
    second.set_defaults(run=real)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

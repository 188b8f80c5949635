#!/usr/bin/env python
"""What the shipped blind-spot denoiser reaches: white noise at three levels, and real noise with holes of 0 to 3.

    python recipes/blind_spot_small/evaluate.py --weights blind_spot_small --data ../shared/data

Synthetic noise is neither clipped nor rounded, from a generator of each picture and level; output clamped to [0, 1],
PSNR over RGB of each picture, then the mean.  ``--real NAME`` measures weights on the pairs of ``real_noise_sidd`` or
``real_noise`` instead: level by the model, holes of 0 to 3, without and with the pixel, and strides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import BlindSpotDenoiser
from synthpipe.denoisers.noise_level import choose_hole, estimate_sigma, noise_correlation
from synthpipe.denoisers.pixel_shuffle import denoise_by_stride
from synthpipe.files.image_files import list_images
from synthpipe.seeds import generator_for, sample_seed

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from picture_quality import picture, psnr

LEVELS = (15, 25, 50)
SETS = ("cbsd68", "kodim", "set14")


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="blind_spot_small", help="weights of kind blind_spot")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument("--real", choices=("real_noise_sidd", "real_noise"), help="pairs of real noise, by folder")
    parser.add_argument("--count", type=int, help="pictures of each set; all by default")
    args = parser.parse_args()
    model = checkpoints.load(args.weights, kind="blind_spot").requires_grad_(False)
    assert isinstance(model, BlindSpotDenoiser)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{args.weights}: {sum(p.numel() for p in model.parameters())} parameters, hole {model.hole}\n")
    if args.real is None:
        synthetic(model, args.data / "clean_test", args.count)
    else:
        real(model, args.data / args.real, args.count)


@torch.no_grad()
def synthetic(model: BlindSpotDenoiser, folder: Path, count: int | None) -> None:
    """A row for each set and level."""
    print("| set | sigma | noisy | without the pixel | posterior mean | level estimated | estimate, of 255 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in SETS:
        paths = [path for path in list_images(folder) if path.name.startswith(name)][:count]
        for level in LEVELS:
            sigma, rows, estimates = torch.tensor([level / 255]), [], []
            for path in paths:
                clean = picture(path)
                generator = generator_for(sample_seed(0, 0, path.name), f"sigma {level}")
                noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
                own = estimate_sigma(noisy)
                estimates.append(float(own) * 255)
                results = (model.predict(noisy)[0], model(noisy, sigma), model(noisy, own))
                rows.append([psnr(noisy, clean), *(psnr(x.clamp(0, 1), clean) for x in results)])
            numbers = " | ".join(f"{x:.2f}" for x in torch.tensor(rows).mean(0).tolist())
            print(f"| {name}, {len(paths)} | {level} | {numbers} | {sum(estimates) / len(paths):.1f} |", flush=True)


@torch.no_grad()
def real(model: BlindSpotDenoiser, folder: Path, count: int | None) -> None:
    """A row for each way to use the model."""
    paths = list_images(folder / "noisy")[:count]
    pairs = [(picture(path), picture(folder / "clean" / path.name)) for path in paths]
    correlation = noise_correlation(noisy[0] for noisy, _ in pairs)
    lags = ", ".join(f"{x:.2f}" for x in correlation[0, 1:5].tolist())
    print(f"{len(pairs)} pairs of {folder}; correlation at 1..4 pixels: {lags}; hole {choose_hole(correlation)}\n")
    levels = [model.own_sigma(y) if model.level != "known" else estimate_sigma(y) for y, _ in pairs]
    print(f"level by the model: {sum(float(x) for x in levels) / len(levels) * 255:.1f} of 255\n")
    print("| use | PSNR, dB |\n|---|---:|")

    def row(title: str, run: Callable[[Tensor, Tensor], Tensor]) -> None:
        values = [psnr(run(y, sigma).clamp(0, 1), x) for (y, x), sigma in zip(pairs, levels, strict=True)]
        print(f"| {title} | {sum(values) / len(values):.2f} |", flush=True)

    row("noisy", lambda y, _: y)
    for hole in range(4):
        row(f"hole {hole}, without the pixel", lambda y, _, h=hole: model.predict(y, h)[0])
        row(f"hole {hole}", lambda y, sigma, h=hole: model(y, sigma, h))

    def by_hole_0(y: Tensor, sigma: Tensor) -> Tensor:
        return model(y, sigma, 0)

    for stride in (2, 3):
        row(f"stride {stride}", lambda y, sigma, s=stride: denoise_by_stride(by_hole_0, y, sigma, s))


if __name__ == "__main__":
    main()

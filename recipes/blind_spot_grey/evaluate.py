#!/usr/bin/env python
"""What the grey blind-spot networks of this recipe reach, beside the figures of the founders' page (section 9).

    python recipes/blind_spot_grey/evaluate.py --runs runs --data ../shared/data/clean_test

The 24 pictures of BSD68 that are at hand, grey; noise of standard deviation 25 of 255, neither clipped nor rounded, of
a generator for each picture; output clamped to [0, 1], PSNR of each picture, then the mean.  Runs that are absent are
left out.  ``--bm3d`` needs the package of that name, whose terms are its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import BlindSpotDenoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.denoisers.pixel_shuffle import denoise_by_stride
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import luma, to_float
from synthpipe.seeds import generator_for, sample_seed

SIGMA = 25 / 255
#: Pairs of noisy and clean, each ``(1, 1, H, W)``.
Pictures = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs of README.md")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--count", type=int, default=24, help="pictures")
    parser.add_argument("--bm3d", action="store_true", help="measure BM3D too")
    args = parser.parse_args()
    paths = [path for path in list_images(args.data) if path.name.startswith("cbsd68_")][: args.count]
    clean = [luma(to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])) for path in paths]
    white = [(noisy_of(x, path.name, binomial=False), x) for x, path in zip(clean, paths, strict=True)]
    correlated = [(noisy_of(x, path.name, binomial=True), x) for x, path in zip(clean, paths, strict=True)]
    print(f"{len(paths)} pictures of {args.data}\n\n| white noise | PSNR, dB |\n|---|---:|")
    row("noisy", white, lambda y: y, clamp=False)
    row("noisy, clipped", white, lambda y: y)
    if args.bm3d:
        row("BM3D", white, bm3d)
    networks = {path.parent.name.removeprefix("blind_spot_grey"): load(path) for path in found(args.runs)}
    for name in ("_250", ""):
        if name in networks:
            white_rows(f"{name or '_2000'} steps"[1:], networks[name], white)
    if "_total" in networks:
        unknown_rows(networks["_total"], white)
    print("\n| correlated noise | PSNR, dB |\n|---|---:|")
    row("noisy", correlated, lambda y: y, clamp=False)
    correlated_rows(networks, correlated)


def found(runs: Path) -> list[Path]:
    """The weights of this recipe's runs."""
    return sorted(runs.glob("blind_spot_grey*/final.safetensors"))


def load(path: Path) -> BlindSpotDenoiser:
    """Weights in the layout that is fast on a CPU."""
    model = checkpoints.load(path, kind="blind_spot").requires_grad_(False)
    assert isinstance(model, BlindSpotDenoiser)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def white_rows(name: str, model: BlindSpotDenoiser, pictures: Pictures) -> None:
    """Mean alone and posterior mean; levels that are wrong; clipped files."""
    row(f"{name}, without the pixel", pictures, lambda y: model.predict(y)[0])
    row(f"{name}, posterior mean", pictures, lambda y: model.denoise(y, torch.tensor([SIGMA])))
    if name.startswith("250"):
        return
    for level in (5, 10, 15, 20, 30, 35, 50):
        row(f"{name}, told {level}", pictures, lambda y, v=level: model.denoise(y, torch.tensor([v / 255])))
    row(f"{name}, level estimated from the picture", pictures, model.denoise)
    files = [((y.clamp(0, 1) * 255).round() / 255, x) for y, x in pictures]
    row(f"{name}, picture of 8 bits", files, lambda y: model.denoise(y, torch.tensor([SIGMA])))
    # A value at the end of the range that is moved off it is taken at its word.
    inside = [(y.clamp(1e-6, 1 - 1e-6), x) for y, x in files]
    row(f"{name}, 8 bits, saturation ignored", inside, lambda y: model.denoise(y, torch.tensor([SIGMA])))


def unknown_rows(model: BlindSpotDenoiser, pictures: Pictures) -> None:
    """Trained without the level: what it finds, and what not knowing costs."""
    row("level unknown, without the pixel", pictures, lambda y: model.predict(y)[0])
    row("level unknown, told from the prediction", pictures, model.denoise)
    row("level unknown in training, told 25", pictures, lambda y: model.denoise(y, torch.tensor([SIGMA])))
    for name, estimate in (("prediction", model.own_sigma), ("flat blocks", estimate_sigma)):
        levels = torch.cat([estimate(y) for y, _ in pictures]) * 255
        print(f"| level by the {name}, of 255 | {float(levels.mean()):.2f} +- {float(levels.std()):.2f} |")


def correlated_rows(networks: dict[str, BlindSpotDenoiser], pictures: Pictures) -> None:
    """Holes in training and in use, and a network of white noise with and without strides."""
    level = torch.tensor([SIGMA])
    for name, title in (
        ("_hole0", "trained with hole 0"),
        ("_hole2", "trained with hole 2"),
        ("", "white, 2000 steps"),
    ):
        for hole in range(4) if name in networks else ():
            model = networks[name]
            row(f"{title}, used with {hole}: mean", pictures, lambda y, m=model, h=hole: m.predict(y, h)[0])
            row(f"{title}, used with {hole}", pictures, lambda y, m=model, h=hole: m(y, level, h))
    for stride in (2, 3) if "" in networks else ():
        by_stride = lambda y, s=stride: denoise_by_stride(networks[""], y, level, s)  # noqa: E731
        row(f"white, 2000 steps, stride {stride}", pictures, by_stride)


def noisy_of(clean: Tensor, name: str, binomial: bool) -> Tensor:
    """White noise, or behind the 3x3 binomial kernel and scaled to the same level; a function of the name alone."""
    generator = generator_for(sample_seed(0, 0, name), "correlated" if binomial else "white")
    height, width = clean.shape[2:]
    noise = torch.randn(1, 1, height + 2, width + 2, generator=generator)
    if not binomial:
        return clean + SIGMA * noise[..., 1:-1, 1:-1]
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line)
    return clean + SIGMA * F.conv2d(noise, kernel[None, None]) / kernel.square().sum().sqrt()


def bm3d(noisy: Tensor) -> Tensor:
    """The library's default profile, told the level."""
    from bm3d import bm3d as run

    return torch.from_numpy(run(noisy[0, 0].double().numpy(), SIGMA)).float()[None, None]


@torch.no_grad()
def row(name: str, pictures: Pictures, run: Callable[[Tensor], Tensor], clamp: bool = True) -> None:
    """Print the mean PSNR of what ``run`` makes of the noisy pictures."""
    values = []
    for noisy, clean in pictures:
        got = run(noisy)
        values.append(-10 * ((got.clamp(0, 1) if clamp else got) - clean).square().mean().log10())
    print(f"| {name} | {float(torch.stack(values).mean()):.2f} |", flush=True)


if __name__ == "__main__":
    main()

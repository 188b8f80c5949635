#!/usr/bin/env python3
"""Learned blur against the truth: known kernels behind photographs, and amplitudes that real pairs gave.

    python recipes/kernels_realsr/evaluate.py known --clean CLEAN_TRAIN --test CLEAN_TEST
    python recipes/kernels_realsr/evaluate.py real runs/kernels_realsr/*/final.safetensors
    python recipes/kernels_realsr/evaluate.py errors --clean CLEAN_TRAIN
    python recipes/kernels_realsr/evaluate.py pairs real_sr/realsr_x4/dev

``known`` degrades photographs that are reduced by 4, and estimates against the first half of the clean ones: every
second of the other half, and CBSD68 with Kodak.  ``none`` is noise without a blur: what is found there is the content
of the two piles.  ``errors`` prints by how much single photographs differ, how far estimates from few of them are off,
and what they say of it, at each ``--contrast`` of those photographs; ``real`` the mean of each bank and how much edges
counted in it, ``pairs`` what aligned pairs say.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.files.image_files import decode_file, list_images
from synthpipe.images import crop_to_multiple, downscale_bicubic, luma, quantize_8bit, to_float
from synthpipe.kernels import KernelBank
from synthpipe.kernels.estimate import estimate_kernels
from synthpipe.kernels.evidence import Pile, evidence_of
from synthpipe.kernels.joint import estimate_groups
from synthpipe.kernels.response import FREQUENCIES, amplitudes, at_frequencies
from synthpipe.kernels.spectra import log_amplitudes

WHERE = (0.2, 0.3, 0.4)
SCALE, SIDE = 4, 21
ESTIMATORS = ("both", "spectra", "edges")
#: Kernels of a bank that get a row each.
_MOST_ROWS = 9


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
    # What an estimate says here is the content of the two piles: no estimate without pairs can know it.
    "none": gaussian(0.05, 0.05),
    **{f"Gaussian {sigma}": gaussian(sigma, sigma) for sigma in (0.4, 0.6, 0.8, 1.0, 1.2)},
    "Gaussian 1.0 x 0.5": gaussian(1.0, 0.5, 0.6),
    "disc 1.2": lens(1.2),
    "disc 1.8": lens(1.8),
    "Gaussian 0.6, unsharp mask 0.8": sharpened(0.6, 0.8, 1.2),
    "Gaussian 0.8, unsharp mask 1.2": sharpened(0.8, 1.2, 1.5),
}


def reduced(path: Path, scale: int = SCALE) -> Tensor:
    """``(3, H / scale, W / scale)`` in [0, 1], 8 bits."""
    image = to_float(torch.from_numpy(decode_file(path)[0]).permute(2, 0, 1))[None]
    return quantize_8bit(downscale_bicubic(crop_to_multiple(image, scale), scale))[0]


def at_contrast(image: Tensor, contrast: float) -> Tensor:
    """So many times as far from its mean."""
    return (image.mean() + contrast * (image - image.mean())).clamp(0, 1)


def degraded(image: Tensor, kernel: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Behind the kernel, with white noise of ``sigma`` of 255."""
    half = SIDE // 2
    padded = torch.nn.functional.pad(image[:, None], (half, half, half, half), mode="reflect")
    soft = torch.nn.functional.conv2d(padded, kernel[None, None].float())[:, 0]
    return quantize_8bit(soft + sigma / 255 * torch.randn(soft.shape, generator=generator))


def pile_of(images: list[Tensor]) -> Pile:
    """What each image tells."""
    return {f"{number:04}": evidence_of(image) for number, image in enumerate(images)}


def kernel_of(clean: Pile, pile: Pile, estimator: str) -> Tensor:
    """``(1, S, S)``: the mean of the bank that `synthpipe train` would write."""
    if estimator == "edges":
        sharp, blurred = ({name: each.edges for name, each in some.items()} for some in (clean, pile))
        return estimate_kernels(sharp, blurred).bank.mean()[None]
    return estimate_groups(clean, {"all": pile}, 25, estimator, chroma=False).bank.mean()[None]


def known(args: argparse.Namespace) -> None:
    """A row for each kernel, pile and noise: amplitudes found and true, and the largest error, by each estimator."""
    clean = [reduced(path) for path in list_images(args.clean)]
    judged = [path for path in list_images(args.test) if path.name.startswith(("cbsd68", "kodim"))]
    piles = {"other half": clean[1::4], "CBSD68, Kodak": [reduced(path) for path in judged]}
    sharp = pile_of(clean[::2])
    rows = []
    for name, images in piles.items():
        for kernel_name, kernel in KNOWN.items():
            for sigma in args.sigma:
                generator = torch.Generator().manual_seed(0)
                pile = pile_of([degraded(x, kernel, sigma, generator) for x in images])
                truth = amplitudes(kernel[None], WHERE)[0].tolist()
                row = {"pile": name, "kernel": kernel_name, "noise": sigma, "true": truth}
                cells = ""
                for estimator in args.estimator:
                    ours = amplitudes(kernel_of(sharp, pile, estimator), WHERE)[0].tolist()
                    worst = max(abs(a - b) for a, b in zip(ours, truth, strict=True))
                    row[estimator] = {"found": ours, "error": worst}
                    cells += f" {' / '.join(f'{a:.2f}' for a in ours)} | {worst:.2f} |"
                rows.append(row)
                print(f"| {name} | {kernel_name} | {' / '.join(f'{b:.2f}' for b in truth)} |{cells}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def errors(args: argparse.Namespace) -> None:
    """Piles of few photographs behind a known kernel: root mean square error, and the standard error that is told."""
    clean = [reduced(path) for path in list_images(args.clean)]
    sharp, others = pile_of(clean[::2]), clean[3::4]
    single = torch.stack([log_amplitudes(each.spectra)[0] for each in sharp.values()])
    spread = at_frequencies(single[single.isfinite().all(1)], WHERE).std(0).tolist()
    print(f"single photographs differ by {' / '.join(f'{value:.2f}' for value in spread)} at {WHERE}, as logarithms")
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(len(others), generator=generator)[: args.images].tolist() for _ in range(args.piles)]
    kernels = ("none", "Gaussian 0.6", "Gaussian 0.6, unsharp mask 0.8")
    for name, contrast in itertools.product(kernels, args.contrast):
        own = pile_of([degraded(at_contrast(x, contrast), KNOWN[name], 2.0, generator) for x in others])
        off, told = [], []
        for draw in draws:
            few = {str(number): own[f"{number:04}"] for number in draw}
            found = estimate_groups(sharp, {"all": few}, 25, chroma=False, resamplings=30)
            off.append((amplitudes(found.bank.kernels) - amplitudes(KNOWN[name][None]))[0])
            told.append(found.errors[0])
        both = (torch.stack(off).square().mean(0).sqrt(), torch.stack(told).mean(0))
        cells = (" / ".join(f"{value:.3f}" for value in row.tolist()) for row in both)
        print(f"| {args.images} | {name} | {contrast:g} | {' | '.join(cells)} |", flush=True)


def real(args: argparse.Namespace) -> None:
    """A row for each bank: mean amplitudes, and their spread over the kernels."""
    print("cycles per pixel:", *args.at)
    for path in args.banks:
        bank = checkpoints.load(path, kind="kernels")
        assert isinstance(bank, KernelBank)
        own = amplitudes(bank.kernels, args.at)
        mean, spread = amplitudes(bank.mean()[None], args.at)[0], own.std(0, correction=0)
        cells = " / ".join(f"{a:.2f} +- {b:.2f}" for a, b in zip(mean.tolist(), spread.tolist(), strict=True))
        print(f"| {path.parent.name} | {len(own)} | {cells} |")
        info = checkpoints.read_header(path)["info"]
        names, shares = info["names"], info.get("edge_shares")
        for number, name in enumerate(names if len(names) < _MOST_ROWS else []):
            colour = None if bank.chroma is None else amplitudes(bank.chroma[number : number + 1], args.at)[0].tolist()
            both = [own[number].tolist()] + ([colour] if colour else [])
            counted = f", edges {shares[number]:.0%}" if shares else ""
            print(f"|   {name}{counted} | {' | '.join(' / '.join(f'{a:.2f}' for a in each) for each in both)} |")


def pairs(args: argparse.Namespace) -> None:
    """Amplitudes of aligned pairs, of scenes that choose: by powers, and of what small and large photograph share.

    Powers count what the small photograph has beside that (noise, aliasing, processing); no kernel makes it.  A wave's
    sum over windows of small times conjugate of large, over the power of large, does not (Wiener's response).
    """
    print("cycles per pixel:", *args.at)
    names = [path.name for path in list_images(args.pairs / "lr")]
    groups = {"all": names} if args.judged else {camera: _choosing(names, camera) for camera in ("Canon", "Nikon")}
    for group, some in groups.items():
        sums = []
        for name in some:
            small = to_float(torch.from_numpy(decode_file(args.pairs / "lr" / name)[0]).permute(2, 0, 1))
            both = [_windows(x, args.window) for x in (small, reduced(args.pairs / "hr" / name, args.scale))]
            common = (both[0] * both[1].conj()).sum(0).abs()
            sums.append(torch.stack([common, *(x.abs().square().sum(0) for x in both)]))
        common, power, reference = _rings(torch.stack(sums).sum(0))
        rows = {"powers": (power / reference).sqrt(), "shared": common / reference}
        for what, row in rows.items():
            found = at_frequencies(row[None], args.at)[0].tolist()
            print(f"| {group}, {len(some)} scenes | {what} | {' / '.join(f'{a:.2f}' for a in found)} |")


def _choosing(names: list[str], camera: str) -> list[str]:
    """Of RealSR's pairs of a camera those that choose: scenes 2, 6, 10, ..."""
    own = [name for name in names if name.startswith(camera)]
    return [name for name in own if int(name.split(".")[0].split("_")[1]) % 4 == 2]


def _windows(image: Tensor, side: int) -> Tensor:
    """``(windows, side, side)``: spectra of luma in Hann windows, without their means."""
    line = torch.hann_window(side)
    window = line[:, None] * line
    parts = luma(image[None])[0, 0].unfold(0, side, side // 4).unfold(1, side, side // 4).flatten(0, 1)
    mean = (parts * window).sum((1, 2), keepdim=True) / window.sum()
    return torch.fft.fft2((parts - mean) * window)


def _rings(planes: Tensor) -> Tensor:
    """``(C, side, side)`` -> ``(C, side / 2 + 1)``: sums by frequency."""
    side = planes.shape[-1]
    frequency = torch.fft.fftfreq(side)
    ring = (torch.hypot(frequency[:, None], frequency) * side).round().long()
    return torch.stack([planes[:, ring == number].sum(1) for number in range(side // 2 + 1)], 1)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Learned blur against the truth.")
    parts = parser.add_subparsers(required=True)
    first = parts.add_parser("known")
    first.add_argument("--clean", type=Path, required=True)
    first.add_argument("--test", type=Path, required=True)
    first.add_argument("--sigma", type=float, nargs="+", default=[2.0])
    first.add_argument("--estimator", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    first.add_argument("--json", type=Path, help="where the rows are written, too")
    first.set_defaults(run=known)
    second = parts.add_parser("real")
    second.add_argument("banks", type=Path, nargs="+")
    second.add_argument("--at", type=float, nargs="+", default=list(FREQUENCIES), help="cycles per pixel")
    second.set_defaults(run=real)
    fourth = parts.add_parser("errors")
    fourth.add_argument("--clean", type=Path, required=True)
    fourth.add_argument("--images", type=int, default=13, help="photographs of a pile")
    fourth.add_argument("--piles", type=int, default=9)
    fourth.add_argument("--contrast", type=float, nargs="+", default=[1.0], help="of the degraded photographs")
    fourth.set_defaults(run=errors)
    third = parts.add_parser("pairs")
    third.add_argument("pairs", type=Path, help="a folder with lr and hr, such as realsr_x4/dev")
    third.add_argument("--at", type=float, nargs="+", default=list(FREQUENCIES), help="cycles per pixel")
    third.add_argument("--window", type=int, default=32, help="side of the windows that are compared")
    third.add_argument("--scale", type=int, default=SCALE)
    third.add_argument("--judged", action="store_true", help="all pairs of the folder, those that judge as well")
    third.set_defaults(run=pairs)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

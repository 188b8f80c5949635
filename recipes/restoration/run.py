#!/usr/bin/env python
"""Restoration with trained denoisers: acceptance checks 6 to 9 and 11 of the MAP denoiser, noise, super-resolution.

    synthpipe train recipes/map_grey/teacher.yml && synthpipe train recipes/map_grey/train.yml
    python recipes/restoration/run.py --data ../shared/data/clean_test --out runs/restoration

Six crops of 128x128 from the middle of held-out pictures, blur around a circular border, white noise of 2.55/255 that
is known.  ``--map`` and ``--mmse`` are a MAP denoiser and its least-squares twin for one level (11/255) and grey
pictures; ``--any-level`` is a MAP denoiser for all levels and RGB.  Prints tables and writes pictures.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from setting import SIGMA, best_wiener, kernels, load, middles, noisy
from torch import Tensor

from synthpipe.denoisers import Denoiser, Problem, restore
from synthpipe.denoisers.blur_operators import CircularBlur, bicubic_reduction
from synthpipe.denoisers.deepinv_adapter import deepinv_denoiser, deepinv_parameters, import_deepinv
from synthpipe.denoisers.degradation_operators import Mask
from synthpipe.denoisers.plug_and_play import Method, Splitting, method_named, psnr
from synthpipe.errors import SynthPipeError
from synthpipe.files.decode import encode_png
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_uint8

CONSTANT = 11 / 255
NOISES = (1, 2.55, 5, 7.65, 15, 25)
PLACES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 40, 60, 120, 300)

Denoise = Denoiser | Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Everything, in the order of the page."""
    args = parse_arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    grey, twin, any_level = load(args.map), load(args.mmse), load(args.any_level)
    crops = middles(args.data, args.crops, grey.channels)
    for name, kernel in kernels().items():
        deblur(name, kernel, crops, grey, twin, args)
    deblur_any_level(kernels()["motion 35x25"], any_level, args)
    deblur_more_noise(any_level, load(args.any_level_mmse), args)
    compare_deepinv(kernels()["motion 35x25"], crops, grey)
    inpaint(crops, grey, twin, args)
    inpaint_any_level(any_level, args)
    for scale in (2, 3):
        enlarge(scale, any_level, args)


def deblur(name: str, kernel: Tensor, truth: Tensor, grey: Denoise, twin: Denoise, args: argparse.Namespace) -> None:
    """Checks 6, 7 and 8."""
    operator = CircularBlur(kernel)
    y = noisy(operator(truth), seed=1)
    problem = Problem(operator, y, SIGMA)
    print(f"\n## Deblurring, {name}, grey\n")
    wiener = [best_wiener(kernel, y, truth, gradient) for gradient in (False, True)]
    print(
        f"observed {float(psnr(y, truth).mean()):.2f} dB; best Wiener filters: constant weight {wiener[0][0]:.2f}",
        end="",
    )
    print(f" (weight {wiener[0][1]:.3g}), gradient penalty {wiener[1][0]:.2f} (weight {wiener[1][1]:.3g})\n")
    constant = method_named("map", first=CONSTANT, last=CONSTANT)
    runs: dict[str, tuple[Denoise, Method]] = {
        "identity in ADMM": (lambda x, _: x, constant),
        "MAP in ADMM": (grey, constant),
        "MMSE in ADMM": (twin, constant),
        "DMSP (MMSE)": (twin, method_named("dmsp", level=CONSTANT, iterations=args.steps)),
    }
    curves, images = run_all(problem, runs, truth)
    shown = [truth, y, wiener[1][2], images["DMSP (MMSE)"], images["MAP in ADMM"], images["MMSE in ADMM"]]
    write_pictures(args.out / f"deblur_{name.split()[0].lower()}.png", shown)
    if name.startswith("motion"):  # of the page
        judge_deblurring(curves, wiener[1][0])


def judge_deblurring(curves: dict[str, list[float]], wiener: float) -> None:
    """What the page asks of the curves."""
    own, shift = curves["MAP in ADMM"], curves["DMSP (MMSE)"]
    drop = max(max(own[:40]) - own[39], 0.0)
    say(
        6,
        own[14] >= wiener + 2,
        f"iteration 15 is {own[14] - wiener:+.2f} dB from the gradient Wiener, asked +2",
    )
    say(6, own[14] >= 28.3, f"iteration 15: {own[14]:.2f} dB, asked 28.3 on the page's kernel and pictures")
    say(6, drop <= 0.05, f"falls by {drop:.3f} dB up to iteration 40, allowed 0.05")
    say(6, own[14] > shift[119], f"DMSP at 120: {shift[119]:.2f} dB")
    identity = curves["identity in ADMM"]
    say(7, identity[39] < identity[4] - 2, f"identity: {identity[4]:.2f} dB at 5, {identity[39]:.2f} at 40")
    twin_db = curves["MMSE in ADMM"]
    print(f"check 8: MAP {own[39]:.2f} dB, MMSE {twin_db[39]:.2f} dB at 40 (best {max(own):.2f}, {max(twin_db):.2f})")


def deblur_any_level(kernel: Tensor, model: Denoiser, args: argparse.Namespace) -> None:
    """The schedules with a denoiser for all levels."""
    truth = middles(args.data, args.crops, model.channels)
    operator = CircularBlur(kernel)
    y = noisy(operator(truth), seed=1)
    print("\n## Deblurring, motion 35x25, RGB, a MAP denoiser for all levels\n")
    wiener = best_wiener(kernel, y, truth, gradient=True)
    print(f"observed {float(psnr(y, truth).mean()):.2f} dB; best Wiener filter, gradient penalty: {wiener[0]:.2f} dB\n")
    runs: dict[str, tuple[Denoise, Method]] = {
        "annealed ADMM": (model, method_named("annealed")),
        "DPIR's schedule": (model, method_named("dpir")),
        "one level": (model, method_named("map", first=CONSTANT, last=CONSTANT)),
    }
    _, images = run_all(Problem(operator, y, SIGMA), runs, truth)
    write_pictures(
        args.out / "deblur_any_level.png", [truth, y, wiener[2], images["one level"], images["annealed ADMM"]]
    )


def deblur_more_noise(model: Denoiser, twin: Denoiser, args: argparse.Namespace) -> None:
    """The best PSNR along each schedule, by the noise of the observation; RGB."""
    truth = middles(args.data, args.crops, model.channels)
    runs: dict[str, tuple[Denoise, Method]] = {
        "annealed ADMM": (model, method_named("annealed")),
        "the same, one penalty for all noise": (model, method_named("annealed", noise_exponent=0.0)),
        "DPIR's schedule, least-squares twin": (twin, method_named("dpir")),
    }
    print("\n## Deblurring by noise, RGB, best PSNR of the schedule, motion / Gaussian\n")
    print(
        "| noise, of 255 | " + " | ".join(f"{level:g}" for level in NOISES) + " |\n|---" + "|---:" * len(NOISES) + "|"
    )
    operators = [CircularBlur(kernel) for kernel in kernels().values()]

    def best(denoiser: Denoise, method: Method, operator: CircularBlur, sigma: float) -> float:
        problem = Problem(operator, noisy(operator(truth), seed=1, sigma=sigma), sigma)
        found = restore(problem, denoiser, method, reference=truth).psnr
        assert found is not None
        return float(found.mean(1).max())

    for name, run in runs.items():
        cells = [" / ".join(f"{best(*run, operator, level / 255):.2f}" for operator in operators) for level in NOISES]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def compare_deepinv(kernel: Tensor, truth: Tensor, model: Denoiser) -> None:
    """Check 9."""
    print("\n## deepinv\n")
    from synthpipe.basicsr_plugin import compat

    try:
        compat.prepare()  # PyPI's torchvision on a CPU-only torch
        deepinv = import_deepinv()
    except SynthPipeError as error:
        print(f"check 9: skipped, {error}")
        return
    operator = CircularBlur(kernel)
    y = noisy(operator(truth), seed=1)
    method = Splitting(iterations=20, first=CONSTANT, last=CONSTANT, penalty=1.0, dual=True)
    ours = restore(Problem(operator, y, SIGMA), model, method).image
    algorithm = deepinv.optim.ADMM(
        data_fidelity=deepinv.optim.L2(sigma=SIGMA),
        prior=deepinv.optim.PnP(deepinv_denoiser(model)),
        **deepinv_parameters(method, SIGMA),
    )
    physics = deepinv.physics.BlurFFT(img_size=tuple(truth.shape[1:]), filter=kernel.float()[None, None])
    with torch.no_grad():
        theirs = algorithm(y, physics, init=(y, torch.zeros_like(y)))
    pair = [float(psnr(image, truth).mean()) for image in (ours, theirs)]
    say(9, abs(pair[0] - pair[1]) <= 0.05, f"ADMM, 20 iterations: ours {pair[0]:.3f} dB, deepinv's {pair[1]:.3f} dB")


def inpaint(truth: Tensor, grey: Denoise, twin: Denoise, args: argparse.Namespace) -> None:
    """Check 11."""
    problem, start = with_holes(truth)
    print("\n## Inpainting, 80 % missing, grey\n")
    print(f"filled with local means: {float(psnr(start, truth).mean()):.2f} dB\n")
    method = method_named("map", first=CONSTANT, last=CONSTANT, iterations=60)
    curves, images = run_all(problem, {"MAP in ADMM": (grey, method), "MMSE in ADMM": (twin, method)}, truth)
    own = curves["MAP in ADMM"]
    gain = own[59] - float(psnr(start, truth).mean())
    fall = max(max(before - after, 0.0) for before, after in itertools.pairwise(own))
    say(11, gain >= 2, f"{gain:+.2f} dB over local means at iteration 60, asked +2")
    say(11, fall <= 0.005, f"largest fall of an iteration {fall:.4f} dB, monotone asked")
    write_pictures(args.out / "inpaint.png", [truth, problem.y, start, images["MAP in ADMM"], images["MMSE in ADMM"]])


def inpaint_any_level(model: Denoiser, args: argparse.Namespace) -> None:
    """The same with a falling schedule, RGB."""
    truth = middles(args.data, args.crops, model.channels)
    problem, start = with_holes(truth)
    print("\n## Inpainting, 80 % missing, RGB, a MAP denoiser for all levels\n")
    print(f"filled with local means: {float(psnr(start, truth).mean()):.2f} dB\n")
    method = method_named("annealed", iterations=20, first=30 / 255, last=15 / 255)  # as `synthpipe restore inpaint`
    _, images = run_all(problem, {"annealed ADMM": (model, method)}, truth)
    write_pictures(args.out / "inpaint_any_level.png", [truth, problem.y, start, images["annealed ADMM"]])


def enlarge(scale: int, model: Denoiser, args: argparse.Namespace) -> None:
    """Bicubically reduced, rounded to 8 bits, enlarged again; PSNR over RGB without 4 pixels at the border."""
    truth = crop_to_multiple(middles(args.data, args.crops, model.channels), scale)
    y = quantize_8bit(downscale_bicubic(truth, scale))
    operator = bicubic_reduction(scale)
    start = operator.aligned(operator.first_guess(y), *y.shape[2:])
    print(f"\n## Super-resolution x{scale}, RGB, a MAP denoiser for all levels\n")
    print(f"bicubic enlargement: {float(psnr(start, truth, 4).mean()):.2f} dB\n")
    runs: dict[str, tuple[Denoise, Method]] = {
        "annealed ADMM": (model, method_named("annealed")),
        "DPIR's schedule": (model, method_named("dpir")),
    }
    _, images = run_all(Problem(operator, y, 1 / 255), runs, truth, border=4)
    write_pictures(args.out / f"enlarge_x{scale}.png", [truth, start, images["annealed ADMM"]])


def with_holes(truth: Tensor) -> tuple[Problem, Tensor]:
    """20 % of the pixels of each picture, noisy; and local means in the holes."""
    generator = torch.Generator().manual_seed(2)
    operator = Mask((torch.rand(1, 1, *truth.shape[2:], generator=generator) > 0.8).float())
    y = operator(noisy(truth, seed=1))
    return Problem(operator, y, SIGMA), operator.first_guess(y)


def run_all(
    problem: Problem, runs: dict[str, tuple[Denoise, Method]], truth: Tensor, border: int = 0
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Run, print a table of PSNR by iteration; curves and results."""
    curves, images = {}, {}
    for name, (denoiser, method) in runs.items():
        found = restore(problem, denoiser, method, reference=truth, border=border)
        assert found.psnr is not None
        curves[name], images[name] = found.psnr.mean(1).tolist(), found.image
    places = [place for place in PLACES if place <= max(len(curve) for curve in curves.values())]
    print("| iteration | " + " | ".join(map(str, places)) + " |\n|---" + "|---:" * len(places) + "|")
    for name, curve in curves.items():
        cells = [f"{curve[place - 1]:.2f}" if place <= len(curve) else "" for place in places]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print()
    return curves, images


def say(check: int, holds: bool, text: str) -> None:
    """One line on a check of the page."""
    print(f"check {check} {'holds' if holds else 'MISSED'}: {text}", flush=True)


def write_pictures(path: Path, columns: list[Tensor], rows: int = 3) -> None:
    """The first pictures below each other, what was made of them side by side."""
    sheet = torch.cat([torch.cat(list(column[:rows].clamp(0, 1)), 1) for column in columns], 2).expand(3, -1, -1)
    path.write_bytes(encode_png(to_uint8(sheet).permute(1, 2, 0).contiguous().numpy()))


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", default="runs/map_grey/final.safetensors", help="a MAP denoiser for one level")
    parser.add_argument("--mmse", default="runs/map_grey_teacher/final.safetensors", help="its least-squares twin")
    parser.add_argument("--any-level", default="map_small", help="a MAP denoiser for all levels")
    parser.add_argument("--any-level-mmse", default="mmse_small", help="its least-squares twin")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/restoration"), help="folder of the pictures to write")
    parser.add_argument("--crops", type=int, default=6)
    parser.add_argument("--steps", type=int, default=120, help="of DMSP, at least 120")
    return parser.parse_args()


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""What to assume beyond the border of a blurred image: three ways, on crops of real pictures.

    python recipes/restoration/borders.py --weights map_small --data ../shared/data/clean_test

A crop is blurred with what lies around it, as a camera would; only pixels whose whole kernel is in the picture are
observed.  *wrapped*: the observation is taken for circular.  *tapered*: its edges are blended into circular ones first.
*refilled*: the authors' way (VISAPP 2020, released code): the observation is extended by what the current
estimate predicts, at each iteration, and the data step is circular on the larger frame.  *unknown*: ``ValidBlur``,
the exact data step.  PSNR over the observed frame, and over the band of half a kernel along its edges.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from setting import SIDE, SIGMA, kernels, load, middles, noisy
from torch import Tensor

from synthpipe.denoisers import Denoiser, Problem, restore
from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur
from synthpipe.denoisers.plug_and_play import Method, method_named, psnr


class RefilledBlur(ValidBlur):
    """The authors' data step: one circular step on the observation, extended by the last estimate's own blur."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__(kernel)
        self._circular = CircularBlur(kernel)
        self._last: Tensor | None = None

    def data_step(self, v: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        full = self._circular(v if self._last is None else self._last)
        top, left = self.offset
        full[..., top : top + y.shape[2], left : left + y.shape[3]] = y
        self._last = self._circular.data_step(v, full, weight)
        return self._last


def main() -> None:
    """Measure, print a table."""
    args = parse_arguments()
    model = load(args.weights)
    print("| kernel | method | border | PSNR | of the edge band | s of processor time |")
    print("|---|---|---|---:|---:|---:|")
    for kernel_name, kernel in kernels().items():
        truth, y = observe(kernel, args.data, args.crops, model.channels)
        band = kernel.shape[0] // 2
        for method_name, method in (("annealed", method_named("annealed")), ("map", method_named("map"))):
            for border in ("wrapped", "tapered", "refilled", "unknown"):
                started = time.process_time()
                x = restore_with(border, kernel, y, model, method)
                seconds = time.process_time() - started
                whole, edge = float(psnr(x, truth).mean()), float(band_psnr(x, truth, band).mean())
                print(
                    f"| {kernel_name} | {method_name} | {border} | {whole:.2f} | {edge:.2f} | {seconds:.1f} |",
                    flush=True,
                )


def restore_with(border: str, kernel: Tensor, y: Tensor, model: Denoiser, method: Method) -> Tensor:
    """The estimate under the observation."""
    if border in ("wrapped", "tapered"):
        seen = tapered(y, kernel) if border == "tapered" else y
        return restore(Problem(CircularBlur(kernel), seen, SIGMA), model, method).image
    operator = RefilledBlur(kernel) if border == "refilled" else ValidBlur(kernel)
    return restore(Problem(operator, y, SIGMA), model, method).image


def tapered(y: Tensor, kernel: Tensor) -> Tensor:
    """Edges blended, over the width of the kernel, into the circularly blurred image, as MATLAB's edgetaper does."""
    ramps = []
    for side, width in zip(y.shape[2:], kernel.shape, strict=True):
        line = torch.ones(side)
        rise = (torch.arange(width, dtype=torch.float32) + 0.5) / width
        line[:width] = (0.5 - 0.5 * torch.cos(torch.pi * rise)).clamp(max=1)
        line[-width:] = torch.minimum(line[-width:], line[:width].flip(0))
        ramps.append(line)
    weight = torch.outer(*ramps)
    return weight * y + (1 - weight) * CircularBlur(kernel)(y)


def band_psnr(x: Tensor, truth: Tensor, band: int) -> Tensor:
    """``(B,)`` over the pixels within ``band`` of an edge."""
    error = (x.clamp(0, 1) - truth).square()
    error[..., band:-band, band:-band] = 0
    count = error[0].numel() - error[0, :, band:-band, band:-band].numel()
    return -10 * (error.sum((1, 2, 3)) / count).log10()


def observe(kernel: Tensor, data: Path, count: int, channels: int) -> tuple[Tensor, Tensor]:
    """Crops of the middle of pictures and what a camera sees of them, both ``(count, channels, SIDE, SIDE)``."""
    operator = ValidBlur(kernel)
    scene = middles(data, count, channels, *operator.clean_size(SIDE, SIDE))
    return operator.aligned(scene, SIDE, SIDE), noisy(operator(scene), seed=1)


def parse_arguments() -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="map_small", help="weights of any denoiser")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--crops", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Denoising gain of a trained density on pictures that it never saw, by noise level.

    python recipes/dde_photos/evaluate.py --weights runs/dde_photos/final.safetensors --data ../shared/data/clean_test

The middle of each picture, as it is and reduced to half, grey where the density is; white Gaussian noise that is not
clipped; PSNR is the mean over pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.density import DDE
from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import crop_to_multiple, downscale_bicubic, luma, quantize_8bit, to_float
from synthpipe.seeds import generator_for, sample_seed

LEVELS = (0.02, 0.05, 0.1, 0.2)
#: Gains of reference/dde.md, section 10, check 11: grey pictures at half size.
ASKED = (2.4, 4.8, 6.9, 9.2)
SIDE = 256


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="weights of kind dde")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/clean_test"), help="folder of pictures")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = checkpoints.load(args.weights, kind="dde").requires_grad_(False)
    assert isinstance(model, DDE)
    model.to(memory_format=torch.channels_last)
    paths = list_images(args.data)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters} parameters, {len(paths)} pictures of {args.data}, seed {args.seed}\n")
    print("| size | " + " | ".join(f"sigma {level:g}" for level in LEVELS) + " |")
    print("|---" + "|---:" * len(LEVELS) + "|")
    for factor, name in ((1, "full"), (2, "half")):
        gains = torch.tensor([picture_gains(model, path, factor, args.seed) for path in paths]).mean(0).tolist()
        print(f"| {name} | " + " | ".join(f"+{gain:.2f} dB" for gain in gains) + " |")
    print("| asked | " + " | ".join(f"+{gain:.2f} dB" for gain in ASKED) + " |")


def picture_gains(model: DDE, path: Path, factor: int, seed: int) -> list[float]:
    """By how many dB denoising raises the PSNR of one picture, at each level."""
    clean = middle(model, path, factor)
    gains = []
    for level in LEVELS:
        generator = generator_for(sample_seed(seed, factor, path.name), f"sigma {level}")
        noisy = clean + level * torch.randn(clean.shape, generator=generator)
        denoised = model.denoise(noisy, torch.tensor([level]))
        gains.append(float(10 * ((noisy - clean).square().mean() / (denoised - clean).square().mean()).log10()))
    return gains


def middle(model: DDE, path: Path, factor: int) -> Tensor:
    """Up to 256x256 pixels from the middle of the reduced picture, ``(1, C, h, w)`` in [0, 1]."""
    picture = to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None])
    picture = quantize_8bit(downscale_bicubic(crop_to_multiple(picture, factor), factor))
    top, left = (max(0, side - SIDE) // 2 for side in picture.shape[2:])
    picture = picture[:, :, top : top + SIDE, left : left + SIDE]
    return luma(picture) if model.channels == 1 else picture


if __name__ == "__main__":
    main()

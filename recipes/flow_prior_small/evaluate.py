"""PSNR of denoisers at several noise levels, on the middles of photographs that no training saw.

    python recipes/flow_prior_small/evaluate.py flow_prior_small runs/flow_prior_small/twin/final.safetensors

Of each image of ../shared/data/clean_test (24 of CBSD68, 12 of Kodak's, 10 of Set14), the middle 192x192; white
Gaussian noise, not clipped, seed 0; the level told, or estimated from the image (--estimate).  PSNR over RGB of the
clipped output, mean over images; high frequencies: energy above a Gaussian blur of standard deviation 1, as a share of
the clean images'; residual: its variance as a share of the noise's.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import Denoiser

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from picture_quality import psnr

SIDE = 192


def main() -> None:
    """Print one JSON object for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--images", type=Path, default=Path("../shared/data/clean_test"))
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth image")
    parser.add_argument("--sigma", type=float, nargs="+", default=[5, 15, 25, 50], help="of 255")
    parser.add_argument("--estimate", action="store_true", help="do not tell the level")
    args = parser.parse_args()
    pictures = read_middles(args.images)[:: args.every]
    for path in args.weights:
        model = checkpoints.load(path)
        assert isinstance(model, Denoiser)
        rows = {f"{s:g}": figures(model, pictures, s / 255, args.estimate) for s in args.sigma}
        print(json.dumps({"weights": path, "images": len(pictures), "by_sigma": rows}), flush=True)


def read_middles(folder: Path) -> list[Tensor]:
    """``(1, 3, side, side)`` in [0, 1] by name, side 192 or what the image has."""
    found = []
    for file in sorted(folder.glob("*.png")):
        x = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None] / 255
        top, left = (max(0, side - SIDE) // 2 for side in x.shape[2:])
        found.append(x[:, :, top : top + SIDE, left : left + SIDE])
    if not found:
        raise SystemExit(f"{folder}: no PNG images; give a folder of clean photographs with --images")
    return found


@torch.no_grad()
def figures(model: Denoiser, pictures: list[Tensor], sigma: float, estimate: bool) -> dict[str, float]:
    """Means over images at one level."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for clean in pictures:
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        output = model.denoise(noisy, None if estimate else torch.tensor([sigma]))
        shown = output.clamp(0, 1)
        rows.append(
            {
                "noisy": psnr(noisy.clamp(0, 1), clean),
                "unclipped": psnr(noisy, clean),
                "psnr": psnr(shown, clean),
                "high": fine_energy(shown),
                "due": fine_energy(clean),
                "residual": float((noisy - output).square().mean()) / sigma**2,
            }
        )
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    found = {
        "noisy": mean["noisy"],
        "psnr": mean["psnr"],
        "gain": mean["psnr"] - mean["unclipped"],
        "high_frequency": mean["high"] / mean["due"],
        "residual": mean["residual"],
    }
    return {name: round(value, 3) for name, value in found.items()}


def fine_energy(x: Tensor) -> float:
    """Mean square of what a Gaussian blur of standard deviation 1 takes away."""
    line = torch.exp(-torch.arange(-3, 4).square() / 2)
    line = (line / line.sum()).view(1, 1, -1, 1)
    planes = F.pad(x.transpose(0, 1), [3] * 4, mode="reflect")
    return float((x.transpose(0, 1) - F.conv2d(F.conv2d(planes, line), line.transpose(2, 3))).square().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

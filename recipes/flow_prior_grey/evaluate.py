"""Figures of denoisers on the grey test pictures, as the table of the flow-prior page has them.

    python recipes/flow_prior_grey/evaluate.py runs/flow_prior_grey/train/final.safetensors

900 patches of 16x16 from the six test pictures at sigma 25, seed 0: PSNR over all patches together, output clipped;
bits per dimension of the output under the prior; energy above a Gaussian blur of standard deviation 1, as a share of
the clean patches'; variance of the residual as a share of the noise's; correlation of the residual between neighbours;
PSNR as Stein's estimate has it, from the noisy patches alone.  Then the mean PSNR of the six pictures as a whole.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from picture_quality import psnr

SIGMA = 25 / 255
PATCHES, SIDE = 900, 16

Denoise = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Print one JSON object for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--pictures", type=Path, default=Path("runs/grey_pictures/test"))
    parser.add_argument("--prior", help="weights of the flow, for the bits of the output")
    args = parser.parse_args()
    for path in args.weights:
        print(json.dumps({"weights": path} | figures(checkpoints.load(path), args.pictures, args.prior)))


@torch.no_grad()
def figures(denoise: Denoise, folder: Path, prior: str | None = None) -> dict[str, float]:
    """All figures of one denoiser; see the module's docstring."""
    generator = torch.Generator().manual_seed(0)
    pictures = read_pictures(folder)
    clean = patches(pictures, generator)
    noisy = clean + SIGMA * torch.randn(clean.shape, generator=generator)
    level = torch.full((len(clean),), SIGMA)
    output = denoise(noisy, level)
    residual, shown = noisy - output, output.clamp(0, 1)
    probe = torch.randn(clean.shape, generator=generator)
    response = (denoise(noisy + 0.1 * SIGMA * probe, level) - output) / (0.1 * SIGMA)
    risk = residual.square().mean() - SIGMA**2 + 2 * SIGMA**2 * (probe * response).mean()
    found = {
        "psnr": psnr(shown, clean),
        "high_frequency": float(above_blur(shown) / above_blur(clean)),
        "residual_variance": float(residual.square().mean() / SIGMA**2),
        "residual_correlation": float(neighbours(residual) / residual.square().mean()),
        "psnr_by_stein": -10 * math.log10(max(float(risk), 1e-9)),
        "psnr_whole": float(np.mean([whole(denoise, picture, generator) for picture in pictures])),
    }
    if prior is not None:
        flow = checkpoints.load(prior, kind="glow")
        bits = -flow.log_prob(shown, generator) / (SIDE**2 * math.log(2))  # type: ignore[operator]
        found["bits"] = float(bits.mean())
    return {name: round(value, 4) for name, value in found.items()}


def read_pictures(folder: Path) -> list[Tensor]:
    """Grey ``(1, 1, H, W)`` in [0, 1], by name."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise SystemExit(f"{folder}: no pictures; run: python recipes/glow_grey/prepare.py")
    return [torch.from_numpy(np.array(Image.open(file).convert("L"))).float()[None, None] / 255 for file in files]


def patches(pictures: list[Tensor], generator: torch.Generator) -> Tensor:
    """``(900, 1, 16, 16)``, as many of each picture."""
    found = []
    for picture in pictures:
        for _ in range(PATCHES // len(pictures)):
            top = int(torch.randint(picture.shape[2] - SIDE + 1, (1,), generator=generator))
            left = int(torch.randint(picture.shape[3] - SIDE + 1, (1,), generator=generator))
            found.append(picture[0, :, top : top + SIDE, left : left + SIDE])
    return torch.stack(found)


def whole(denoise: Denoise, picture: Tensor, generator: torch.Generator) -> float:
    """PSNR of one picture denoised in one piece."""
    noisy = picture + SIGMA * torch.randn(picture.shape, generator=generator)
    return psnr(denoise(noisy, torch.tensor([SIGMA])).clamp(0, 1), picture)


def blur(x: Tensor, std: float) -> Tensor:
    """Gaussian blur of ``(B, 1, H, W)``, edges mirrored."""
    reach = math.ceil(3 * std)
    line = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * std**2))
    line = (line / line.sum()).view(1, 1, -1, 1)
    return F.conv2d(F.conv2d(F.pad(x, [reach] * 4, mode="reflect"), line), line.transpose(2, 3))


def above_blur(x: Tensor) -> Tensor:
    return (x - blur(x, 1.0)).square().mean()


def neighbours(x: Tensor) -> Tensor:
    return ((x[..., 1:] * x[..., :-1]).mean() + (x[..., 1:, :] * x[..., :-1, :]).mean()) / 2


if __name__ == "__main__":
    main()

"""How irregular spectra of noise and of drawn patterns are told, and what ``synthpipe denoise auto`` makes of patterns.

    python recipes/noise_levels/patterns.py --data ../shared/data

``roughness`` of :func:`synthpipe.flat_noise.estimate_noise`: of noise on every so many photographs of ``clean_train``,
and of gratings, checks, dots, bricks and hatching of random period, angle and contrast.  Patterns are clean, and so are
views of the photographs: they should stay within 45 dB of themselves, and 44 dB leave room for rounding to 8 bits.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from run import coloured
from samples import luma, read
from simulate import blurred, jpeg
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import estimate_noise
from synthpipe.transforms.denoise_by_image import DenoiseByImage

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from picture_quality import psnr

SIDE, SIGMA, STRONG, KEPT = 256, 8.0, 20.0, 44.0
#: Factors by which photographs are seen.
VIEWS = (0.5, 1.0, 1.5)
#: Periods in pixels, and how far a pattern's two values are apart, of 255.
PERIODS, CONTRASTS = (3.0, 16.0), (10.0, 120.0)
#: Of two phases, in periods: 1 or 0 at each pixel.
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gratings": lambda u, v: u % 1 < 0.5,
    "checks": lambda u, v: (u % 1 < 0.5) ^ (v % 1 < 0.5),
    "dots": lambda u, v: (u % 1 - 0.5).square() + (v % 1 - 0.5).square() < 0.1,
    "bricks": lambda u, v: (v % 1 < 0.15) | (((u / 2 + 0.5 * v.floor()) % 1) < 0.08),
    "hatching": lambda u, v: (u % 1 < 0.2) | (v % 1 < 0.2),
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train")
    parser.add_argument("--photographs", type=int, default=24, help="that noise is added to")
    parser.add_argument("--patterns", type=int, default=60, help="of each kind, half of them grey")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = list_images(arguments.data / "clean_train")
    photographs = [read(path) for path in paths[:: max(1, len(paths) // arguments.photographs)]]
    print("| noise | images | roughness, median | most |\n" + "| --- " * 4 + "|")
    for title, sigma, rho, quality, soft in (
        ("white", SIGMA, 0.0, None, 0.0),
        ("lag-1 0.5", SIGMA, 0.5, None, 0.0),
        ("blurred by a Gaussian of 0.8", SIGMA, 0.0, None, 0.8),
        ("strong, coded at quality 75", STRONG, 0.0, 75, 0.0),
    ):
        told = [roughness(noisy(x, sigma, rho, quality, soft, at)) for at, x in enumerate(photographs)]
        print(f"| {title} | {len(told)} | {statistics.median(told):.2f} | {max(told):.2f} |", flush=True)
    denoise = DenoiseByImage(checkpoints.load("camera_denoiser"), checkpoints.load("blind_spot_small"))
    print(f"| clean | images | roughness, least | median | below {KEPT:g} dB |\n" + "| --- " * 5 + "|")
    for colour, title in ((False, "grey"), (True, "in colour")):
        for kind in KINDS:
            row(f"{kind}, {title}", denoise, drawn(kind, colour, arguments.patterns // 2))
        for factor in VIEWS:
            seen = (resized(x if colour else luma(x), factor) for x in photographs)
            row(f"photographs, size times {factor:g}, {title}", denoise, seen)


def row(title: str, denoise: DenoiseByImage, images: Iterator[Tensor]) -> None:
    """Roughness, and how many of the clean images, uint8 ``(3, H, W)``, do not stay as they are."""
    told, far = [], 0
    for image in images:
        told.append(roughness(image))
        x = image[None].float() / 255
        far += psnr(denoise.clean(x), x) < KEPT
    print(f"| {title} | {len(told)} | {min(told):.2f} | {statistics.median(told):.2f} | {far} |", flush=True)


def resized(image: Tensor, factor: float) -> Tensor:
    """Smaller or larger, uint8."""
    if factor == 1:
        return image
    size = [round(factor * side) for side in image.shape[1:]]
    return F.interpolate(image[None].float(), size, mode="bicubic", antialias=True).round().clamp(0, 255)[0].byte()


def roughness(image: Tensor) -> float:
    """Of uint8 ``(3, H, W)``; 0 where nothing is told."""
    found = estimate_noise(image)
    return 0.0 if found is None else found.roughness


def noisy(clean: Tensor, sigma: float, rho: float, quality: int | None, soft: float, seed: int) -> Tensor:
    """A photograph in grey with noise of ``sigma`` of 255."""
    noise = coloured(clean.shape[1:], rho, seed)[:1]
    if soft:
        noise = blurred(noise, soft)
        noise = noise / noise.std()
    image = (luma(clean).float() + sigma * noise).round().clamp(0, 255).byte()
    return image if quality is None else luma(jpeg(image, quality, 0))


def drawn(kind: str, colour: bool, count: int) -> Iterator[Tensor]:
    """So many patterns, uint8 ``(3, SIDE, SIDE)``."""
    place = torch.arange(SIDE, dtype=torch.float64)
    for seed in range(count):
        draws = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
        period, contrast = (
            math.exp(math.log(low) + draw * math.log(high / low))
            for (low, high), draw in zip((PERIODS, CONTRASTS), draws[:2], strict=True)
        )
        angle = draws[2] * math.pi if seed % 3 else 0.0
        u = (math.cos(angle) * place + math.sin(angle) * place[:, None]) / period
        v = (math.cos(angle) * place[:, None] - math.sin(angle) * place) / period
        tint = torch.tensor(draws[3:6] if colour else [1.0] * 3)[:, None, None]
        image = 40 + 100 * draws[6] + contrast * tint * KINDS[kind](u, v)
        yield image.round().clamp(0, 255).byte()


if __name__ == "__main__":
    main()

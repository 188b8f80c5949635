"""What ``synthpipe denoise auto`` does to grey pictures: of noise that is added, of real noise, and of clean ones.

    python recipes/noise_levels/grey.py --data ../shared/data
    python recipes/noise_levels/grey.py --data ../shared/data --judge

Colour is turned into luma.  Settings are chosen on ``clean_train`` and the chosen pairs; ``--judge`` asks the others.
PSNR in dB; *to itself* is the PSNR of results to what came in, of clean pictures.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from run import coloured
from samples import luma, read
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import estimate_noise
from synthpipe.transforms.denoise_by_image import DenoiseByImage

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen
from picture_quality import psnr

CORRELATIONS, STRENGTHS = (0.0, 0.45, 0.7), (5.0, 10.0, 20.0)
SETS = ("real_noise", "real_noise_sidd")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean_train, real_noise and the others")
    parser.add_argument("--judge", action="store_true", help="what nothing was chosen on")
    parser.add_argument("--photographs", type=int, default=12, help="that noise is added to")
    parser.add_argument("--clean", type=int, default=132, help="clean photographs that are to stay as they are")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    denoise = DenoiseByImage(checkpoints.load("camera_denoiser"), checkpoints.load("blind_spot_small"))
    data, judge = arguments.data, arguments.judge
    clean = "clean_test" if judge else "clean_train"
    print("| grey pictures | images | lag-1 told | certainty | noisy | denoised | gain, least |\n" + "| --- " * 7 + "|")
    for rho in CORRELATIONS:
        for sigma in STRENGTHS:
            pairs = with_noise(spread(list_images(data / clean), arguments.photographs), rho, sigma)
            gains(f"{clean}, lag-1 {rho}, sigma {sigma:.0f}", denoise, pairs)
    for folder in SETS:
        gains(f"{folder}, {'judged' if judge else 'chosen on'}", denoise, real(data / folder, judge))
    for title, scale in ((clean, 1), (f"{clean}, half the size", 2)):
        stays(title, denoise, spread(list_images(data / clean), arguments.clean), scale)


def with_noise(paths: list[Path], rho: float, sigma: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Noisy and clean, ``(1, 3, H, W)`` in [0, 1], rounded to 8 bits."""
    for at, path in enumerate(paths):
        clean = luma(read(path)).float()
        noise = coloured(clean.shape[1:], rho, at)[:1]
        yield (clean + sigma * noise).round().clamp(0, 255)[None] / 255, clean[None] / 255


def real(folder: Path, judge: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The same of real pairs."""
    for path in list_images(folder / "noisy"):
        if is_chosen(path.name) != judge:
            reference = next((folder / "clean").glob(path.stem + ".*"))
            yield luma(read(path))[None].float() / 255, luma(read(reference))[None].float() / 255


def gains(title: str, denoise: DenoiseByImage, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
    """A row of the table: what is told (medians), PSNR before and after (means), and the least gain."""
    rows = []
    for noisy, clean in pairs:
        found = estimate_noise(noisy[0])
        lag, certainty = (sum(found.lag1) / 2, found.certainty) if found else (math.nan, math.nan)
        rows.append((lag, certainty, psnr(noisy, clean), psnr(denoise.clean(noisy), clean)))
    lags, certainties, before, after = zip(*rows, strict=True)
    least = min(b - a for a, b in zip(before, after, strict=True))
    told = f"{statistics.median(lags):.2f} | {statistics.median(certainties):.2f}"
    levels = f"{statistics.mean(before):.2f} | {statistics.mean(after):.2f} | {least:+.2f}"
    print(f"| {title} | {len(rows)} | {told} | {levels} |", flush=True)


def stays(title: str, denoise: DenoiseByImage, paths: list[Path], scale: int) -> None:
    """How near clean pictures stay to themselves: the least PSNR, and which are below 45 dB."""
    nearness = {}
    for path in paths:
        image = luma(read(path))[None].float()
        image = F.avg_pool2d(image, scale).round() / 255 if scale > 1 else image / 255
        nearness[path.name] = psnr(denoise.clean(image), image)
    far = sorted(name for name, value in nearness.items() if value < 45)
    print(f"{title}: {len(paths)} clean, to itself at least {min(nearness.values()):.2f}; below 45: {far}", flush=True)


def spread(paths: list[Path], count: int) -> list[Path]:
    """So many of the files, evenly."""
    return paths[:: max(1, len(paths) // count)][:count]


if __name__ == "__main__":
    main()

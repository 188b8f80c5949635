"""Noise of flat areas without references against what aligned pairs say of the same images, as a table.

    python recipes/noise_levels/run.py --data ../shared/data
    python recipes/noise_levels/run.py --synthetic ../shared/data/clean_train --every 50
    python recipes/noise_levels/run.py --coded ../shared/data/real_noise_full/clean --every 4 --crop 1200

The first compares pairs ``SET/noisy`` and ``SET/clean`` of equal names, the second adds noise of known covariance and
correlation to clean photographs.  The third adds noise to photographs reduced by 2 and asks what is left of it in pairs
and in flat areas when either side is coded as JPEG.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from simulate import jpeg
from torch import Tensor

from synthpipe.files.decode import decode_image
from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import LAGS, FlatNoise, measure_flat_noise
from synthpipe.images import downscale_bicubic, to_float, to_uint8
from synthpipe.noise_statistics import (
    BRIGHTNESS_EDGES,
    LOCAL_MEAN_WINDOW,
    as_planes,
    flat_mask,
    local_mean,
    measure_noise,
    residual_of,
)

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import SCENES, is_chosen

SETS = ("real_noise_full", "real_noise_sidd", "real_noise")
#: What is coded, and the qualities of the noisy image and of the reference.
CODINGS = (("neither", None, None), ("the noisy one", 92, None), ("the reference", None, 75), ("both", 92, 75))
#: Fewer flat pixels of a reference say too little of a bin.
LEAST_PIXELS = 3000
CAMERA = torch.tensor([[1.32, 0.49, 0.63], [0.49, 0.72, 0.51], [0.63, 0.51, 1.21]])
GREY = torch.tensor([[1.0, 0.9, 0.9], [0.9, 1.0, 0.9], [0.9, 0.9, 1.0]])


@dataclass
class Row:
    """What was found over what is true, of one image."""

    name: str
    #: Sigma by channel and brightness bin, ``(bins, 3)``, as ratios; the level as one.
    sigma: Tensor
    level: float
    #: Differences: lag-1 horizontal and vertical, lag-4 horizontal; correlations RG, GB, RB.
    lags: Tensor
    correlations: Tensor


def main() -> None:
    """Print a row for each image, and the summary of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds real_noise_full, real_noise_sidd, real_noise")
    parser.add_argument("--synthetic", type=Path, help="folder of clean photographs")
    parser.add_argument("--coded", type=Path, help="folder of clean photographs whose JPEG coding does not matter")
    parser.add_argument("--every", type=int, default=50, help="take every so many of them")
    parser.add_argument("--crop", type=int, default=0, help="take the middle of so many pixels of each; 0: all")
    arguments = parser.parse_args()
    if arguments.synthetic:
        synthetic(arguments.synthetic, arguments.every, arguments.crop)
    if arguments.coded:
        coded(arguments.coded, arguments.every, arguments.crop)
    for name in SETS if arguments.data else ():
        rows = list(real_rows(arguments.data / name))
        for row in rows:
            print_row(row)
        for title, part in (("chosen on", True), ("judged", False)):
            summary(f"{name}, {title}", [row for row in rows if is_chosen(row.name, SCENES) == part])


def real_rows(folder: Path) -> Iterator[Row]:
    """One row for each pair with enough flat area."""
    for path in list_images(folder / "noisy"):
        noisy, reference = read(path), read(next((folder / "clean").glob(path.stem + ".*")))
        row = compare_pair(path.stem, noisy, reference)
        if row is not None:
            yield row


def compare_pair(name: str, noisy: Tensor, reference: Tensor) -> Row | None:
    """What flat areas of ``noisy`` alone say, over what the pair says."""
    mask = flat_mask(reference)
    if int(mask.sum()) < LEAST_PIXELS:
        return None
    found = measure_flat_noise([noisy])
    truth = measure_noise([(noisy, reference)], LOCAL_MEAN_WINDOW, flat_only=True)
    residual = residual_of(noisy, reference, LOCAL_MEAN_WINDOW)
    brightness = local_mean(as_planes(reference, "reference").mean(0, keepdim=True), 9)[0]
    sigma, pixels = [], []
    for low, high in pairwise(BRIGHTNESS_EDGES):
        here = mask & (brightness >= low) & (brightness < high)
        if int(here.sum()) >= LEAST_PIXELS:
            true = residual[:, here].var(1).sqrt()
            sigma.append(sigma_between(found, low, high) / true)
            pixels.append(int(here.sum()))
    far = lag_4(residual, mask)
    return Row(
        name,
        torch.stack(sigma),
        math.exp(
            sum(n * math.log(float(s.square().mean().sqrt())) for n, s in zip(pixels, sigma, strict=True)) / sum(pixels)
        ),
        lags_of(found) - torch.tensor([truth.lag1_h, truth.lag1_v, far]),
        correlations_of(mean_covariance(found)) - torch.tensor(truth.channel_correlation),
    )


def synthetic(folder: Path, every: int, crop: int) -> None:
    """Noise of several spectra, strengths and covariances on clean photographs."""
    images = [middle(read(path), crop) for path in list_images(folder)[::every]]
    for spectrum in ("white", "0.3", "0.5", "0.7", "0.8"):
        correlation = 0.0 if spectrum == "white" else float(spectrum)
        for at, sigma in enumerate((3.0, 6.0, 12.0)):
            covariance = (torch.eye(3), CAMERA, GREY)[at]
            rows = [
                compare_known(f"{seed}", image, sigma, correlation, covariance, seed)
                for seed, image in enumerate(images)
            ]
            summary(f"lag-1 {correlation}, sigma {sigma:.0f}, {('independent', 'camera', 'nearly grey')[at]}", rows)


def compare_known(name: str, clean: Tensor, sigma: float, correlation: float, covariance: Tensor, seed: int) -> Row:
    """What flat areas say, over the noise that was added."""
    noise = coloured(clean.shape[1:], correlation, seed)
    lags = torch.stack(
        [
            (noise[:, : noise.shape[1] - y, : noise.shape[2] - x] * noise[:, y:, x:]).mean()
            for y, x in ((0, 1), (1, 0), (0, 4))
        ]
    )
    noise = (torch.linalg.cholesky(covariance) @ noise.flatten(1)).unflatten(1, clean.shape[1:])
    found = measure_flat_noise([(clean + sigma * noise).round().clamp(0, 255).to(torch.uint8)])
    used = found.counts > 0.03 * found.counts.sum()
    true = ((sigma**2 * covariance.diagonal() + 1 / 12).sqrt() / 255).double()
    ratio = found.covariance.diagonal(dim1=1, dim2=2).sqrt()[used] / true
    level = found.level / float(true.square().mean().sqrt())
    return Row(
        name, ratio, level, lags_of(found) - lags, correlations_of(mean_covariance(found)) - correlations_of(covariance)
    )


def coded(folder: Path, every: int, crop: int) -> None:
    """What pairs and flat areas tell where the noisy image, the reference or both are JPEG files."""
    images = [middle(read(path), crop) for path in list_images(folder)[::every]]
    images = [to_uint8(downscale_bicubic(to_float(image[None]), 2))[0] for image in images]
    for sigma in (1.5, 2.5, 4.0):
        for title, noisy_quality, reference_quality in CODINGS:
            pairs, flat = [], []
            for seed, clean in enumerate(images):
                noise = torch.linalg.cholesky(CAMERA) @ coloured(clean.shape[1:], 0.5, seed).flatten(1)
                noisy = (clean + sigma * noise.unflatten(1, clean.shape[1:])).round().clamp(0, 255).to(torch.uint8)
                noisy, reference = jpeg(noisy, noisy_quality, 1), jpeg(clean, reference_quality, 2)
                truth = measure_noise([(noisy, reference)], LOCAL_MEAN_WINDOW, flat_only=True)
                pairs.append([rms(truth.sigma), truth.sigma_by_brightness[0], mean(truth.channel_correlation)])
                found = measure_flat_noise([noisy])
                covariance = mean_covariance(found)
                dark = sigma_between(found, *BRIGHTNESS_EDGES[:2])
                flat.append([rms(covariance.diagonal().sqrt()), rms(dark), mean(correlations_of(covariance))])
            added = sigma * float(CAMERA.diagonal().mean().sqrt())
            print(f"| {added:.2f} | {title} | {medians(pairs)} | {medians(flat)} |", flush=True)


def rms(sigma: Iterable[float | Tensor]) -> float:
    """Root mean square over channels."""
    return math.sqrt(mean([float(value) ** 2 for value in sigma]))


def mean(values: Iterable[float | Tensor]) -> float:
    """As a plain number."""
    return statistics.fmean(float(value) for value in values)


def medians(rows: Sequence[Sequence[float | None]]) -> str:
    """Over images, of sigma, sigma in the darkest bin and correlation of channels, as cells."""
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    overall, dark, channels = (statistics.median(column) for column in columns)
    return f"{255 * overall:.2f} / {255 * dark:.2f} / {channels:.2f}"


def coloured(size: torch.Size, correlation: float, seed: int) -> Tensor:
    """Independent planes of unit variance; neighbours have ``correlation``, pixels ``d`` apart its power; no drift."""
    noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        lines = noise.clone()
        for at in range(1, lines.shape[2]):
            lines[:, :, at] = correlation * lines[:, :, at - 1] + math.sqrt(1 - correlation**2) * noise[:, :, at]
        noise = lines.transpose(1, 2)
    noise = noise - local_mean(noise.double(), LOCAL_MEAN_WINDOW).float()
    return noise / noise.flatten(1).std(1)[:, None, None]


def sigma_between(found: FlatNoise, low: float, high: float) -> Tensor:
    """Sigma of R, G, B between two brightnesses, weighted by flat area, ``(3,)``."""
    places = torch.linspace(low, high, 9, dtype=torch.float64)
    near = (1 - (places[:, None] - found.nodes).abs() * len(found.nodes)).clamp(min=0)
    near = near / near.sum(1, keepdim=True).clamp(min=1e-9)  # beyond the ends: as there
    weight = near @ found.counts + 1e-9
    return ((weight[:, None] * (near @ found.covariance.diagonal(dim1=1, dim2=2))).sum(0) / weight.sum()).sqrt()


def lags_of(found: FlatNoise) -> Tensor:
    """Lag-1 horizontal and vertical and lag-4 horizontal, means of the channels."""
    mean = found.autocorrelation.mean(0)
    return torch.stack([mean[LAGS, LAGS + 1], mean[LAGS + 1, LAGS], mean[LAGS, LAGS + 4]])


def lag_4(residual: Tensor, mask: Tensor) -> float:
    """Horizontal, of the flat pixels of a pair."""
    both = mask[:, :-4] & mask[:, 4:]
    pairs = torch.stack([residual[:, :, :-4][:, both], residual[:, :, 4:][:, both]], 1)
    return sum(float(torch.corrcoef(channel)[0, 1]) for channel in pairs) / 3


def mean_covariance(found: FlatNoise) -> Tensor:
    """Over the brightnesses of the image, ``(3, 3)``."""
    return torch.einsum("k,kij->ij", found.counts, found.covariance) / found.counts.sum()


def correlations_of(covariance: Tensor) -> Tensor:
    """RG, GB, RB."""
    spread = covariance.diagonal().sqrt()
    matrix = covariance / (spread[:, None] * spread)
    return torch.stack([matrix[0, 1], matrix[1, 2], matrix[0, 2]])


def read(path: Path) -> Tensor:
    """``(3, H, W)`` uint8."""
    return torch.from_numpy(decode_image(path.read_bytes(), str(path))[0]).permute(2, 0, 1)


def middle(image: Tensor, side: int) -> Tensor:
    """The middle square of ``side`` pixels, or all."""
    if not side:
        return image
    top, left = (max(0, (n - side) // 2) for n in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def print_row(row: Row) -> None:
    """One image."""
    bins = " | ".join(" ".join(f"{value:.2f}" for value in line) for line in row.sigma.tolist())
    differences = " ".join(f"{value:+.2f}" for value in [*row.lags.tolist(), *row.correlations.tolist()])
    print(f"{row.name}: level {row.level:.2f}; sigma {bins}; lag-1 h, v, lag-4, RG, GB, RB {differences}", flush=True)


def summary(title: str, rows: list[Row]) -> None:
    """Median level and shares within 10%, 0.05 and 0.07, as a row of the README's table."""
    if not rows:
        return
    levels = torch.tensor([row.level for row in rows])
    sigma = (torch.cat([row.sigma.flatten() for row in rows]) - 1).abs()
    lags = torch.stack([row.lags[:2].abs().max() for row in rows])
    correlations = torch.stack([row.correlations.abs().max() for row in rows])
    cells = [
        title,
        str(len(rows)),
        f"{float(levels.median()):.2f} ({float(levels.min()):.2f} to {float(levels.max()):.2f})",
        f"{float(sigma.median()):.1%}",
        f"{float((sigma < 0.1).float().mean()):.0%}",
        f"{float(lags.median()):.3f}",
        f"{float((lags < 0.05).float().mean()):.0%}",
        f"{float(correlations.median()):.3f}",
        f"{float((correlations < 0.07).float().mean()):.0%}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

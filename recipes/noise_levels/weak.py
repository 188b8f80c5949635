"""What flat areas tell of weak, of strong and of uneven noise that was added to references, by grey and by colour.

    python recipes/noise_levels/weak.py --data ../shared/data

Noise of known strength over brightness, correlation of channels and lag-1 correlation on references of the Canon 5D
Mark II, as they are and reduced by 2, and on photographs of BSDS; some of it is coded with the tables of a file of the
Canon 80D.  What is true is measured on flat pixels of the pair, after coding.  The last rows are noise alone.
"""

from __future__ import annotations

import argparse
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from run import LEAST_PIXELS, coloured, correlations_of, lags_of, read
from simulate import blurred
from torch import Tensor

from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import FlatNoise, measure_flat_noise
from synthpipe.images import downscale_bicubic, to_float, to_uint8
from synthpipe.noise_statistics import (
    BRIGHTNESS_EDGES,
    LOCAL_MEAN_WINDOW,
    as_planes,
    flat_mask,
    local_mean,
    residual_of,
)

SCENES = ("desk", "recie", "bag")
#: Sigma, correlation of channels, lag-1, curve over brightness, whether uneven, whether coded.
Case = tuple[float, float, float, str, bool, bool]
CASES: tuple[Case, ...] = (
    (1.3, 0.3, 0.5, "dark", False, True),
    (1.3, 0.3, 0.5, "dark", False, False),
    (1.6, 0.5, 0.7, "even", False, True),
    (1.6, 0.7, 0.5, "even", False, True),
    (1.6, 0.5, 0.3, "dark", False, False),
    (2.2, 0.5, 0.5, "dark", False, True),
    (3.0, 0.3, 0.5, "even", False, True),
    (3.0, 0.7, 0.6, "steep", True, False),
    (3.0, 0.7, 0.6, "steep", False, True),
    (3.0, 0.5, 0.5, "even", True, False),
    (2.0, 0.5, 0.6, "steep", True, True),
    (4.5, 0.5, 0.5, "even", False, False),
    (6.0, 0.5, 0.5, "even", True, False),
    (1.5, 0.5, 0.5, "even", True, True),
    (3.0, 0.85, 0.5, "dark", False, True),
)
#: Of these, those that go on references as they are, and on BSDS.
WHOLE, SMALL = (0, 5, 9, 10), (0, 9)
GAINS = torch.tensor([1.1, 0.9, 1.0])
#: Unevenness: standard deviation of the logarithm of strength, and over how many pixels.
UNEVEN, WIDTH = 0.25, 24
#: Noise alone: lag-1 and sigma.
ALONE = tuple((lag, sigma) for lag in (0.5, 0.6, 0.7, 0.8) for sigma in (1.5, 3.0, 6.0))


def main() -> None:
    """Print a row for each kind of picture and of noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds real_noise_full and clean_train")
    arguments = parser.parse_args()
    full = arguments.data / "real_noise_full"
    with Image.open(full / "noisy" / "Canon80D_GO.jpg") as camera:
        tables = camera.quantization  # type: ignore[attr-defined]
    print("| pictures | noise | readings | sigma | off by (rms) | grey | colour | channels | off by (rms) | lag-1 |")
    print("| --- " * 10 + "|")
    rows = defaultdict(list)
    for picture, clean, numbers, seed in pictures(full / "clean", arguments.data / "clean_train"):
        for number in numbers:
            case = CASES[number]
            noisy = degraded(clean, case, seed + number, tables)
            rows[picture, kind(case)] += readings(noisy, clean)
    for (picture, noise), found in sorted(rows.items()):
        print_row(f"{picture} | {noise}", found)
    for lag, sigma in ALONE:
        print_row(f"none | lag-1 {lag}, sigma {sigma}", [alone(lag, sigma, seed) for seed in range(3)])


def pictures(references: Path, photographs: Path) -> Iterator[tuple[str, Tensor, Sequence[int], int]]:
    """Kind of picture, the picture, numbers of its cases, seed."""
    for number, scene in enumerate(SCENES):
        whole = read(references / f"Canon5D2_{scene}.jpg")
        reduced = blurred(downscale_bicubic(to_float(whole[None]), 2)[0], 0.6)
        yield "references, reduced", to_uint8(reduced[None].clamp(0, 1))[0], range(len(CASES)), 100 * number
        yield "references", whole, WHOLE, 1000 + 100 * number
    for number, path in enumerate(list_images(photographs)[7::50]):
        yield "BSDS", read(path), SMALL, 2000 + 100 * number


def kind(case: Case) -> str:
    """The row of the table."""
    if case[3] == "steep":
        return "falls by 3, sigma 2 and 3"
    if case[0] < 2.1:
        return "weak, sigma 1.3 to 1.6"
    return "uneven, sigma 3 and 6" if case[4] else "even, sigma 2.2 to 4.5"


def degraded(clean: Tensor, case: Case, seed: int, tables: dict[int, list[int]]) -> Tensor:
    """``(3, H, W)`` uint8 with noise."""
    sigma, channels, lag, curve, uneven, coded = case
    covariance = GAINS[:, None] * (channels + (1 - channels) * torch.eye(3)) * GAINS
    noise = (torch.linalg.cholesky(covariance) @ coloured(clean.shape[1:], lag, seed).flatten(1)).view(clean.shape)
    noise = sigma * noise * strength(local_mean(clean.double() / 255, 9).float().mean(0, keepdim=True), curve)
    if uneven:
        noise = noise * unevenness(clean.shape[1:], seed)
    image = (clean + noise).round().clamp(0, 255).to(torch.uint8)
    if not coded:
        return image
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "jpeg", qtables=tables, subsampling=1)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)


def strength(brightness: Tensor, curve: str) -> Tensor:
    """By brightness: even, less in the dark, or as tone curves press what is bright."""
    if curve == "dark":
        return 0.7 + brightness.clamp(0, 0.3)
    if curve == "steep":
        return (-math.log(3) * ((brightness - 0.3) / 0.4).clamp(0, 1)).exp()
    return torch.ones_like(brightness)


def unevenness(size: torch.Size, seed: int) -> Tensor:
    """Lognormal strength ``(1, H, W)`` of a mean square of about 1."""
    draws = torch.randn(1, *(-(-side // 6) for side in size), generator=torch.Generator().manual_seed(seed + 1))
    field = F.interpolate(blurred(draws, WIDTH / 6)[None], size=tuple(size), mode="bilinear")[0]
    return (UNEVEN * field / field.std() - UNEVEN**2).exp()


def readings(noisy: Tensor, clean: Tensor) -> list[list[float]]:
    """For each brightness that is flat enough: logarithms of sigma, grey and colour over true; channels; lag-1."""
    found, mask = measure_flat_noise([noisy]), flat_mask(clean)
    if int(mask.sum()) < LEAST_PIXELS:
        return []
    residual = residual_of(noisy, clean, LOCAL_MEAN_WINDOW)
    lag = float(lags_of(found)[:2].mean()) - true_lag(residual, mask)
    brightness = local_mean(as_planes(clean, "clean").mean(0, keepdim=True), 9)[0]
    rows = []
    for low, high in pairwise(BRIGHTNESS_EDGES):
        here = mask & (brightness >= low) & (brightness < high)
        if int(here.sum()) >= LEAST_PIXELS:
            rows.append([*compared(between(found, low, high), torch.cov(residual[:, here])), lag])
    return rows


def true_lag(residual: Tensor, mask: Tensor) -> float:
    """Lag-1, mean of both directions and of the channels, where ``mask`` holds."""
    found = []
    for values, flat in ((residual, mask), (residual.mT, mask.T)):
        both = flat[:, :-1] & flat[:, 1:]
        here, there = values[:, :, :-1][:, both], values[:, :, 1:][:, both]
        found.append(((here * there).mean(1) / (here.square().mean(1) * there.square().mean(1)).sqrt()).mean())
    return float(sum(found)) / 2


def between(found: FlatNoise, low: float, high: float) -> Tensor:
    """Covariance ``(3, 3)`` between two brightnesses, weighted by flat area."""
    places = torch.linspace(low, high, 9, dtype=torch.float64)
    near = (1 - (places[:, None] - found.nodes).abs() * len(found.nodes)).clamp(min=0)
    near = near / near.sum(1, keepdim=True).clamp(min=1e-9)  # beyond the ends: as there
    weight = near @ found.counts + 1e-9
    return torch.einsum("p,pk,kij->ij", weight, near, found.covariance) / weight.sum()


def compared(told: Tensor, true: Tensor) -> list[float]:
    """Two covariances: logarithms of ratios of sigma, of all, of the mean of channels, of the rest; channels."""
    parts = [(float(c.trace()), float(c.sum()) / 3) for c in (told, true)]
    (all_told, grey_told), (all_true, grey_true) = parts
    ratios = (all_told / all_true, grey_told / grey_true, (all_told - grey_told) / (all_true - grey_true))
    channels = float((correlations_of(told) - correlations_of(true)).mean())
    return [*(math.log(max(ratio, 1e-9)) / 2 for ratio in ratios), channels]


def alone(lag: float, sigma: float, seed: int) -> list[float]:
    """Of noise on one brightness."""
    size = torch.Size([800, 800])
    noise = sigma / 255 * torch.linalg.cholesky(0.5 + 0.5 * torch.eye(3)) @ coloured(size, lag, seed).flatten(1)
    found = measure_flat_noise([0.5 + noise.view(3, *size)])
    told = found.covariance[int(found.counts.argmax())]
    return [*compared(told, torch.cov(noise.double())), float(lags_of(found)[:2].mean()) - lag]


def print_row(title: str, rows: list[list[float]]) -> None:
    """Means over readings, and root mean squares."""
    table = torch.tensor(rows)
    sigma, grey, colour, channels, lag = table.mean(0).tolist()
    off, _, _, apart, _ = table.square().mean(0).sqrt().tolist()
    ratios = f"{math.exp(sigma):.2f} | {off:.1%} | {math.exp(grey):.2f} | {math.exp(colour):.2f}"
    print(f"| {title} | {len(rows)} | {ratios} | {channels:+.2f} | {apart:.2f} | {lag:+.3f} |", flush=True)


if __name__ == "__main__":
    main()

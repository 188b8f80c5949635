"""How right ``synthpipe.flat_noise.estimate_noise`` is, image by image, as tables.

    python recipes/noise_levels/estimates.py --data ../shared/data
    python recipes/noise_levels/estimates.py --data ../shared/data --photographs 24

The first asks real pairs, the second adds noise to clean photographs.  Truth of a pair: flat pixels of its residual
without the 65-pixel local mean.  References of PolyU are JPEG files, whose own error is in that; the second column has
it taken off (:func:`samples.coding_error`).  Truth of added noise: what was added; in the second column, too, what is
told of the photograph itself.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from run import CAMERA, GREY, coloured, middle
from samples import HELD_OUT, coding_error, read
from torch import Tensor

from synthpipe.files.image_files import list_images
from synthpipe.flat_noise import NoiseEstimate, estimate_noise

# Shared by recipes and benches; behind this recipe's own folder, whose modules come first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from evidence import is_chosen

SETS = ("real_noise", "real_noise_full", "real_noise_sidd")
#: Of ``pairs.csv``, whose figures are of flat pixels: sigma, lag-1 and correlation of channels.
COLUMNS = (("sigma_r", "sigma_g", "sigma_b"), ("lag1_h", "lag1_v"), ("corr_rg", "corr_gb", "corr_rb"))
#: Of added noise: sigma and covariance of the channels; correlation of neighbours.
STRENGTHS = ((3.0, torch.eye(3)), (6.0, CAMERA), (12.0, GREY))
CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.8)


@dataclass
class Row:
    """One image: levels on the scale of 255, differences of correlations."""

    name: str
    level: float
    #: What is true, and what is true with the second column's correction.
    true: float
    corrected: float
    lag: float
    channels: float
    certainty: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of real_noise, clean_train and the others")
    parser.add_argument("--photographs", type=int, help="add noise to so many photographs of each clean set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.photographs:
        held_out = list_images(arguments.data / "clean_train")[::HELD_OUT]
        for title, paths in (("clean_train", held_out), ("clean_test", list_images(arguments.data / "clean_test"))):
            added(title, spread(paths, arguments.photographs))
        return
    rows = list(real(arguments.data))
    for _, row in rows:
        levels = f"{row.level:.2f} of {row.true:.2f} ({row.corrected:.2f}), certainty {row.certainty:.2f}"
        print(f"{row.name}: {levels}; lag-1 {row.lag:.3f}, channels {row.channels:.3f}", flush=True)
    for folder in SETS:
        for part, chosen in (("chosen on", True), ("judged", False)):
            summary(
                f"{folder}, {part}",
                [row for place, row in rows if place == folder and is_chosen(row.name) == chosen],
            )


def real(data: Path) -> Iterator[tuple[str, Row]]:
    """All pairs of ``pairs.csv``, with their folders."""
    with (data / "pairs.csv").open() as table:
        for line in csv.DictReader(table):
            noisy = read(data / line["noisy"])
            sigma, lags, channels = (torch.tensor([float(line[key]) for key in keys]) for keys in COLUMNS)
            folder, name = line["noisy"].split("/")[0], Path(line["noisy"]).name
            error = (
                torch.zeros(3)
                if folder == "real_noise_sidd"
                else coding_error(middle(read(data / line["clean"]), 1024))
            )
            corrected = (sigma.square() - error.square()).clamp(min=0)
            yield (
                folder,
                compare(name, noisy, (rms(sigma), rms(corrected.sqrt())), (float(lags[0]), float(lags[1])), channels),
            )


def added(title: str, paths: list[Path]) -> None:
    """What is told of clean photographs, and of noise on them."""
    photographs = [read(path) for path in paths]
    own = [255 * told(photograph).level for photograph in photographs]
    cuts = statistics.quantiles(own, n=10, method="inclusive")
    spread_of = f"10% {cuts[0]:.2f}, 90% {cuts[-1]:.2f}, most {max(own):.2f}"
    print(f"{title}, {len(own)} clean: level {statistics.median(own):.2f}, {spread_of}", flush=True)
    for correlation in CORRELATIONS:
        for sigma, covariance in STRENGTHS:
            rows = [
                noisy_row(photograph, own[at], correlation, sigma, covariance, at)
                for at, photograph in enumerate(photographs)
            ]
            summary(f"{title}, lag-1 {correlation}, sigma {sigma:.0f}", rows)


def noisy_row(clean: Tensor, own: float, correlation: float, sigma: float, covariance: Tensor, seed: int) -> Row:
    """Of one photograph with noise added."""
    noise = coloured(clean.shape[1:], correlation, seed)
    lags = (float((noise[:, :, :-1] * noise[:, :, 1:]).mean()), float((noise[:, :-1] * noise[:, 1:]).mean()))
    noise = (torch.linalg.cholesky(covariance) @ noise.flatten(1)).unflatten(1, clean.shape[1:])
    image = (clean + sigma * noise).round().clamp(0, 255).to(torch.uint8)
    true = rms((sigma**2 * covariance.diagonal() + 1 / 12).sqrt())
    spread_of = covariance.diagonal().sqrt()
    matrix = covariance / (spread_of[:, None] * spread_of)
    channels = torch.stack([matrix[0, 1], matrix[1, 2], matrix[0, 2]])
    return compare(str(seed), image, (true, math.hypot(true, own)), lags, channels)


def compare(name: str, image: Tensor, true: tuple[float, float], lags: tuple[float, float], channels: Tensor) -> Row:
    """What is told of an image beside what is true."""
    found = told(image)
    return Row(
        name,
        255 * found.level,
        *true,
        max(abs(a - b) for a, b in zip(found.lag1, lags, strict=True)),
        float((found.channel_correlation - channels).abs().max()),
        found.certainty,
    )


def told(image: Tensor) -> NoiseEstimate:
    """The estimate; a photograph that has none is an error here."""
    found = estimate_noise(image)
    if found is None:
        raise ValueError(f"no estimate of an image {tuple(image.shape)}: all is clipped")
    return found


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def spread(paths: list[Path], count: int) -> list[Path]:
    """So many of the files, evenly."""
    return paths[:: max(1, len(paths) // count)][:count]


def summary(title: str, rows: list[Row]) -> None:
    """A row of the README's table."""
    if not rows:
        return
    ratios = [row.level / row.true for row in rows]
    within = sum(abs(ratio - 1) <= 0.15 for ratio in ratios) / len(rows)
    cells = [
        title,
        str(len(rows)),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{within:.0%}",
        f"{statistics.median(row.level / row.corrected for row in rows):.2f}",
        f"{statistics.median(row.lag for row in rows):.3f}",
        f"{sum(row.lag <= 0.1 for row in rows) / len(rows):.0%}",
        f"{statistics.median(row.channels for row in rows):.2f}",
        f"{statistics.median(row.certainty for row in rows):.2f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

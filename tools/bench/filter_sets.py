"""What ``filter.py`` judges on: pictures corrupted by Pillow, NumPy and SciPy, and real noisy photographs with theirs.

Shares no code with what scorers are fitted on, but for libwebp.  Pictures are ``(H, W, 3)`` uint8.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

sys.path.append(str(Path(__file__).resolve().parents[1]))
from evidence import is_chosen

TILE = 64
#: Mostly text: a screenshot among the photographs.
TEXT_PICTURES = ("set14_ppt3.png",)
#: Scanned and drawn text of ``ood``.
TEXT_FOLDER_NAMES = ("bw_text.png", "page.png", "text.png")
SYNTHETIC_TILES = 100
#: Rows of today's mean, and the kind whose own detector should see each row.
OWN_KIND = {
    "jpeg 5": "compression",
    "jpeg 10": "compression",
    "jpeg 30": "compression",
    "jpeg 75": "compression",
    "blur 0.7": "blur",
    "blur 1": "blur",
    "blur 2": "blur",
    "upscaled x2": "enlargement",
    "noise 5": "noise",
    "noise 10": "noise",
    "noise 25": "noise",
    "screenshots, text": "graphics",
    "constant": "graphics",
    "uniform noise": "noise",
}
#: Rows that were added with the scorer by kinds; no part of the mean.
NEW_OWN_KIND = {
    "blur 0.7 and noise 2": ("blur", "noise"),
    "noise 2": ("noise",),
    "correlated noise 3": ("noise",),
    "interlaced": ("pattern",),
    "halftone": ("pattern",),
    "jpeg twice": ("compression",),
    "webp 60": ("compression",),
    "upscaled x1.5": ("enlargement",),
}

Picture = np.ndarray


def jpeg(picture: Picture, quality: int) -> Picture:
    """Through a JPEG file with Pillow's defaults (4:2:0)."""
    return coded(picture, "JPEG", quality)


def coded(picture: Picture, form: str, quality: int) -> Picture:
    """Through a lossy file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def jpeg_twice(picture: Picture) -> Picture:
    """Quality 75, then 90 on another grid of blocks; as large as before, by repeating the border."""
    once = jpeg(picture, 75)[3:, 5:]
    return np.pad(jpeg(once, 90), ((3, 0), (5, 0), (0, 0)), mode="edge")


def blur(picture: Picture, sigma: float) -> Picture:
    """Gaussian of ``sigma`` pixels."""
    return rounded(gaussian_filter(picture.astype(np.float64), (sigma, sigma, 0)))


def upscaled(picture: Picture, factor: float) -> Picture:
    """Reduced and enlarged by Pillow's bicubic filter."""
    image = Image.fromarray(picture)
    small = image.resize((int(image.width / factor), int(image.height / factor)), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def noisy(picture: Picture, sigma: float, rng: np.random.Generator, grey: bool, spread: float = 0.0) -> Picture:
    """Normal noise, independent in each channel (one noise for all where ``grey``); ``spread`` correlates pixels."""
    shape = (*picture.shape[:2], 1) if grey else picture.shape
    noise = rng.normal(0, sigma, shape)
    if spread:
        noise = gaussian_filter(noise, (spread, spread, 0))
        noise *= sigma / noise.std()
    return rounded(picture + noise)


def soft_and_noisy(picture: Picture, rng: np.random.Generator, grey: bool) -> Picture:
    """Blur 0.7, then white noise 2."""
    return noisy(blur(picture, 0.7), 2, rng, grey)


def interlaced(picture: Picture) -> Picture:
    """Two fields, the second of a scene that has moved by 3 pixels."""
    out = picture.copy()
    out[1::2] = np.roll(picture, 3, 1)[1::2]
    return out


def halftone(picture: Picture, period: float = 4.0) -> Picture:
    """Printed with dots, each channel at its own angle, and scanned a little soft."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    out = np.empty(picture.shape)
    for channel, angle in enumerate(np.deg2rad((15, 75, 40))):
        u = (columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period
        v = (rows * np.cos(angle) - columns * np.sin(angle)) * 2 * np.pi / period
        threshold = 127.5 * (1 + (np.sin(u) + np.sin(v)) / 2)
        out[..., channel] = gaussian_filter(255.0 * (picture[..., channel] > threshold), 0.8)
    return rounded(out)


def rounded(values: np.ndarray) -> Picture:
    """Back to 8 bits."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def corruptions(rng: np.random.Generator, grey: bool) -> dict[str, Callable[[Picture], Picture]]:
    """The rows of the mean that have an original beside them."""
    return {
        **{f"jpeg {quality}": partial(jpeg, quality=quality) for quality in (5, 10, 30, 75)},
        **{f"blur {sigma:g}": partial(blur, sigma=sigma) for sigma in (0.7, 1.0, 2.0)},
        "upscaled x2": partial(upscaled, factor=2),
        **{f"noise {sigma}": partial(noisy, sigma=sigma, rng=rng, grey=grey) for sigma in (5, 10, 25)},
    }


def more_corruptions(rng: np.random.Generator, grey: bool) -> dict[str, Callable[[Picture], Picture]]:
    """The rows that were added later, with a generator of their own."""
    return {
        "blur 0.7 and noise 2": partial(soft_and_noisy, rng=rng, grey=grey),
        "noise 2": partial(noisy, sigma=2, rng=rng, grey=grey),
        "correlated noise 3": partial(noisy, sigma=3, rng=rng, grey=grey, spread=0.7),
        "interlaced": interlaced,
        "halftone": halftone,
        "jpeg twice": jpeg_twice,
        "webp 60": partial(coded, form="WEBP", quality=60),
        "upscaled x1.5": partial(upscaled, factor=1.5),
    }


def test_tiles(data: Path, count: int, seed: int, grey: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Clean tiles ``(N, 3, 64, 64)``, and the tiles of each row; the paired rows in the order of the clean ones."""
    rng, later = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    kinds, more = corruptions(rng, grey), more_corruptions(later, grey)
    clean: list[Picture] = []
    drawn = ("screenshots, text", "constant", "uniform noise")
    rows: dict[str, list[Picture]] = {name: [] for name in (*kinds, *drawn, *more)}
    for path in sorted((data / "clean_test").iterdir()):
        picture = read(path, grey)
        places = draw_places(picture, count, rng)
        if path.name in TEXT_PICTURES:
            rows["screenshots, text"] += cut(picture, places)
            continue
        clean += cut(picture, places)
        for name, corrupt in {**kinds, **more}.items():
            rows[name] += cut(corrupt(picture), places)
    for name in TEXT_FOLDER_NAMES:
        picture = read(data / "ood" / name, grey)
        rows["screenshots, text"] += cut(picture, draw_places(picture, 4 * count, rng))
    for _ in range(SYNTHETIC_TILES):
        colour = rng.integers(0, 256, 1 if grey else 3)
        rows["constant"].append(np.broadcast_to(colour, (TILE, TILE, 3)).astype(np.uint8))
        values = rng.integers(0, 256, (TILE, TILE, 1 if grey else 3))
        rows["uniform noise"].append(np.broadcast_to(values, (TILE, TILE, 3)).astype(np.uint8))
    return to_tensor(clean), {name: to_tensor(tiles) for name, tiles in rows.items()}


def real_pairs(data: Path) -> Iterator[tuple[str, bool, Picture, Picture]]:
    """Set (``polyu`` or ``sidd``), whether it may only judge, the noisy shot, and its reference."""
    with (data / "pairs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = {"polyu_crop": "polyu", "sidd": "sidd"}.get(row["set"])
            if name is not None:
                judged = not is_chosen(row["noisy"])
                yield name, judged, read(data / row["noisy"], False), read(data / row["clean"], False)


def read(path: Path, grey: bool) -> Picture:
    """An image as RGB, or as grey in three equal channels."""
    image = Image.open(path).convert("RGB")
    return np.asarray(image.convert("L").convert("RGB") if grey else image)


def draw_places(picture: Picture, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of ``count`` tiles."""
    height, width = picture.shape[:2]
    return [(int(rng.integers(height - TILE + 1)), int(rng.integers(width - TILE + 1))) for _ in range(count)]


def cut(picture: Picture, places: list[tuple[int, int]]) -> list[Picture]:
    """The tiles at ``places``."""
    return [picture[top : top + TILE, left : left + TILE] for top, left in places]


def to_tensor(tiles: list[Picture]) -> torch.Tensor:
    """``(N, 3, 64, 64)`` float32 in [0, 1]."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255

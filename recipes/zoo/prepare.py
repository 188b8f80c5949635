"""Piles for the zoo's members that are no cameras: a telephone, the web, film; nothing is redistributed.

    python recipes/zoo/prepare.py --data ../shared/data --out runs/zoo

The data root holds ``clean_train/`` and ``clean_test/`` (photographs), ``real_noise_sidd/`` (crops of a telephone, two
scenes) and ``real_unpaired/`` (two photographs on film).  For each member ``OUT/MEMBER/train/{clean,noisy}`` are the
two piles and ``OUT/MEMBER/held_back/{noisy,clean}`` what judges: pairs, or the degraded side alone.

=====  ======================================  =================================  =====================================
name   clean pile                              degraded pile                      held back
=====  ======================================  =================================  =====================================
sidd   all photographs                         5 crops of a chess set             1 crop of letter tiles, a pair
web    every other photograph, squares of 64   the others, recompressed           photographs of ``clean_test``, pairs
film   all photographs                         left half of an autochrome         its right half, without a partner
=====  ======================================  =================================  =====================================
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deflow_cameras"))
from cropped_pairs import link_all, read

Pixels = NDArray[np.uint8]

#: Of the recompressed pile, which begin on the grid of their coding units: JPEG with reduced colour has units of 16.
SQUARE = 64
QUALITY = (30, 80)
SIDD_PILE = ("01", "02", "04", "06", "10")
SIDD_HELD_BACK = ("00",)
FILM = "oldphoto_d.png"


def main() -> None:
    """Make the piles of the members that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data root")
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"), help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of the qualities of recompression")
    args = parser.parse_args()
    if not (args.data / "clean_train").is_dir():
        parser.error(f"{args.data}: no folder clean_train in it; --data must name the data root described above")
    photos = sorted((args.data / "clean_train").glob("*.jpg"))
    sidd(args.data / "real_noise_sidd", photos, args.out / "sidd")
    web(photos, sorted((args.data / "clean_test").glob("kodim*.png")), args.out / "web", args.seed)
    film(args.data / "real_unpaired" / FILM, photos, args.out / "film")
    print(f"{args.out}: sidd, web, film")


def sidd(source: Path, photos: Sequence[Path], out: Path) -> None:
    """Noise of a telephone in the dark: one scene is the pile, the other one judges."""
    link_all(photos, out / "train" / "clean")
    link_all([source / "noisy" / f"sidd_{number}.png" for number in SIDD_PILE], out / "train" / "noisy")
    for side in ("noisy", "clean"):
        link_all([source / side / f"sidd_{number}.png" for number in SIDD_HELD_BACK], out / "held_back" / side)


def web(photos: Sequence[Path], test: Sequence[Path], out: Path, seed: int) -> None:
    """Recompression, once or twice, as JPEG or WebP.

    The grid of the last recompression begins at the corner of each image, and each square at the corner of a unit.
    """
    for number, path in enumerate(photos):
        pixels = read(path)
        folder = out / "train" / ("noisy" if number % 2 else "clean")
        made = recompressed(pixels, np.random.default_rng([seed, number])) if number % 2 else pixels
        save_squares(made, path.stem, folder)
    for number, path in enumerate(test):
        pixels = read(path)
        made = recompressed(pixels, np.random.default_rng([seed, len(photos) + number]))
        save(made, out / "held_back" / "noisy" / path.name)
        save(pixels, out / "held_back" / "clean" / path.name)


def recompressed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """As the web does: once or twice, quality drawn, JPEG more often than WebP, the first grid at any offset."""
    for last in (False, True) if rng.random() < 0.5 else (True,):
        quality, form = int(rng.integers(*QUALITY, endpoint=True)), "JPEG" if rng.random() < 0.75 else "WEBP"
        if not last:  # its grid lies anywhere on the last one's
            top, left = (int(value) for value in rng.integers(0, 16, 2))
            padded = np.pad(pixels, ((top, 0), (left, 0), (0, 0)), mode="symmetric")
            pixels = coded(padded, form, quality)[top:, left:]
        else:
            pixels = coded(pixels, form, quality)
    return pixels


def coded(pixels: Pixels, form: str, quality: int) -> Pixels:
    """Through libjpeg (colour reduced by 2, as by default) or libwebp and back."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, form, quality=quality)
    return read(buffer)


def film(source: Path, photos: Sequence[Path], out: Path) -> None:
    """The grain of one autochrome, whose left half is the pile; it has no clean partner."""
    link_all(photos, out / "train" / "clean")
    pixels = read(source)
    middle = pixels.shape[1] // 32 * 16
    save(pixels[:, :middle], out / "train" / "noisy" / "left.png")
    save(pixels[:, middle:], out / "held_back" / "noisy" / "right.png")


def save_squares(pixels: Pixels, stem: str, folder: Path) -> None:
    for row in range(pixels.shape[0] // SQUARE):
        for column in range(pixels.shape[1] // SQUARE):
            y, x = row * SQUARE, column * SQUARE
            save(pixels[y : y + SQUARE, x : x + SQUARE], folder / f"{stem}_{row}_{column}.png")


def save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


if __name__ == "__main__":
    main()

"""Links to frames, and crops of aligned pairs of frames; for the recipes whose noise is a camera's."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["CROP", "GRID", "choose_corners", "link_all", "measured_shifts", "read", "save_crops"]

CROP = 256
#: Both sides of a pair are JPEG files; crops begin at whole coding units.
GRID = 16


def link_all(files: Sequence[Path], folder: Path) -> None:
    """Exactly these links, and nothing else; links that are right stay untouched (a training run may be reading)."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {file.name: file.resolve(strict=True) for file in files}
    for old in folder.iterdir():
        if old.name not in wanted or old.resolve() != wanted[old.name]:
            old.unlink()
    for name, file in wanted.items():
        if not (folder / name).exists():
            (folder / name).symlink_to(file)


def measured_shifts(table: Path) -> dict[str, list[float]]:
    """Displacement of noisy against reference, which no degradation model makes and every figure contains."""
    if not table.is_file():
        return {}
    with table.open() as file:
        return {row["noisy"]: [float(row["shift_y"]), float(row["shift_x"])] for row in csv.DictReader(file)}


def choose_corners(height: int, width: int, count: int, rng: np.random.Generator) -> list[list[int]]:
    """Corners of crops that do not overlap."""
    rows, columns = height // CROP, width // CROP
    cells = rng.permutation(rows * columns)[:count]
    # Each crop is somewhere on the grid inside the frame, moved together so that cells stay apart.
    offset_y = int(rng.integers(0, (height - rows * CROP) // GRID + 1)) * GRID
    offset_x = int(rng.integers(0, (width - columns * CROP) // GRID + 1)) * GRID
    return [[offset_y + int(cell) // columns * CROP, offset_x + int(cell) % columns * CROP] for cell in sorted(cells)]


def save_crops(pair: list[np.ndarray], name: str, corners: list[list[int]], folder: Path) -> None:
    """Crops of a noisy frame and its reference as PNG files of equal names in ``folder/noisy`` and ``folder/clean``."""
    for side, image in zip(("noisy", "clean"), pair, strict=True):
        (folder / side).mkdir(parents=True, exist_ok=True)
        for number, (y, x) in enumerate(corners):
            crop = image[y : y + CROP, x : x + CROP]
            Image.fromarray(crop).save(folder / side / f"{name}_{number:02d}.png")


def read(path: Path) -> np.ndarray:
    """``(H, W, 3)`` uint8."""
    return np.array(Image.open(path).convert("RGB"))

"""Lay out the training folders and the held-back pairs of this recipe; nothing is redistributed.

    python recipes/deflow_small/prepare.py --data ../shared/data --out runs/deflow_small

The data root holds ``clean_train/`` (BSDS500 photographs), ``real_noise_full/`` (PolyU full frames: one noisy shot and
the mean of many of the same scene), ``real_noise/`` (PolyU crops, recompressed) and ``pairs.csv`` (measured shifts).

Training, unpaired: the clean photographs, and the *noisy* frames of a Canon 5D Mark II at ISO 6400, scenes bag, bicyc
and circu; their references are not touched.  Held back: scenes desk and recie of the same camera and ISO, as aligned
crops with their references.  Training folders are symbolic links; crops are PNG files below ``--out``.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

CAMERA = "Canon5D2"
TRAIN_SCENES = ("bag", "bicyc", "circu")
HELD_BACK_SCENES = ("desk", "recie")
CROP = 256
#: Both sides of a pair are JPEG files; crops begin at whole coding units.
GRID = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data root")
    parser.add_argument("--out", type=Path, default=Path("runs/deflow_small"), help="folder to make")
    parser.add_argument("--crops", type=int, default=24, help="crops of 256x256 from each held-back frame")
    parser.add_argument("--seed", type=int, default=0, help="where the crops lie")
    args = parser.parse_args()
    full = args.data / "real_noise_full"
    if not full.is_dir():
        parser.error(f"{full}: no such folder; --data must name the data root described above")
    link_all(sorted((args.data / "clean_train").glob("*.jpg")), args.out / "train" / "clean")
    link_all([full / "noisy" / f"{CAMERA}_{scene}.jpg" for scene in TRAIN_SCENES], args.out / "train" / "noisy")
    shifts = measured_shifts(args.data / "pairs.csv")
    notes = {}
    for number, scene in enumerate(HELD_BACK_SCENES):
        name = f"{CAMERA}_{scene}"
        pair = [read(full / side / f"{name}.jpg") for side in ("noisy", "clean")]
        rng = np.random.default_rng([args.seed, number])
        corners = choose_corners(*pair[0].shape[:2], args.crops, rng)
        save_crops(pair, name, corners, args.out / "held_back")
        notes[name] = {"shift_yx_pixels": shifts.get(f"real_noise_full/noisy/{name}.jpg"), "corners_yx": corners}
    (args.out / "held_back" / "notes.json").write_text(json.dumps(notes, indent=1))
    # The data set's own crops of these scenes: recompressed at quality 75 on both sides, so another noise.
    for side in ("noisy", "clean"):
        crops = [
            p for s in HELD_BACK_SCENES for p in (args.data / "real_noise" / side).glob(f"{CAMERA}_*_6400_{s}*.jpg")
        ]
        link_all(sorted(crops), args.out / "held_back_recompressed" / side)
    print(f"{args.out}: training folders, and {args.crops} held-back pairs from each of {', '.join(HELD_BACK_SCENES)}")


def link_all(files: list[Path], folder: Path) -> None:
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
    for side, image in zip(("noisy", "clean"), pair, strict=True):
        (folder / side).mkdir(parents=True, exist_ok=True)
        for number, (y, x) in enumerate(corners):
            crop = image[y : y + CROP, x : x + CROP]
            Image.fromarray(crop).save(folder / side / f"{name}_{number:02d}.png")


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    main()

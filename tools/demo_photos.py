"""Photographs for the demo, from scikit-image: ``python tools/demo_photos.py OUT_DIR``.

Writes ``OUT_DIR/train/*.png``, whole photographs, and ``OUT_DIR/val/*.png``, two crops of one that is not among them.
All come with scikit-image's wheel (0.26 and later), so no network is asked; where they come from and that they are free
to use is said in scikit-image's ``skimage/data/README.txt`` and in the docstring of each function.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

#: Natural photographs in colour, at least 300 pixels high.
TRAIN = ("astronaut", "chelsea", "rocket", "motorcycle")
VAL_SIDE = 192


def photograph(name: str) -> np.ndarray:
    """One photograph, uint8 ``(H, W, 3)``."""
    if name == "motorcycle":
        return np.asarray(data.stereo_motorcycle()[0])  # type: ignore[no-untyped-call]
    return np.asarray(getattr(data, name)())


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Photographs that scikit-image ships, as PNG files.")
    parser.add_argument("target", type=Path, metavar="OUT_DIR")
    target = parser.parse_args().target
    for folder in ("train", "val"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for name in TRAIN:
        Image.fromarray(photograph(name)).save(target / "train" / f"{name}.png")
    coffee = photograph("coffee")
    for name, left in (("coffee_left", 60), ("coffee_right", 340)):
        crop = coffee[150 : 150 + VAL_SIDE, left : left + VAL_SIDE]
        Image.fromarray(crop).save(target / "val" / f"{name}.png")
    print(f"{len(TRAIN)} photographs and 2 crops for validation in {target}")


if __name__ == "__main__":
    main()

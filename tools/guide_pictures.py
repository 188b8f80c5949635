"""Small pictures for the commands of the guides: what ``/data`` holds in the examples.

Crops of the photographs that scikit-image ships, made noisy, blurred or full of holes where an example wants that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from demo_photos import photograph
from numpy.typing import NDArray
from PIL import Image

__all__ = ["write_pictures"]

_SIDE = 256
_CLEAN = ("astronaut", "rocket", "motorcycle")
_OTHERS = ("chelsea", "coffee")

Pixels = NDArray[np.uint8]


def write_pictures(folder: Path) -> None:
    """Fill ``folder``, which stands for ``/data``; always the same pictures."""
    rng = np.random.default_rng(0)
    crops = [crop for name in _CLEAN for crop in _crops(photograph(name), _SIDE)]
    others = [crop for name in _OTHERS for crop in _crops(photograph(name), 192)]
    for number, crop in enumerate(crops):
        place = "old" if number % 3 == 2 else "new"  # nested, of two formats
        _save(folder / "clean_photos" / place / f"photo{number}.{'jpg' if place == 'old' else 'png'}", crop)
    for number, crop in enumerate(others):
        _save(folder / "noisy_photos" / f"noisy{number}.png", _noisy(crop, rng))
    for number, crop in enumerate(others[:2]):
        small = crop[:96, :96]
        _save(folder / "my_val" / "gt" / f"val{number}.png", crop[:128, :128])
        _save(folder / "my_val" / "lq" / f"val{number}.png", crop[:128:4, :128:4])
        _save(folder / "val_photos" / f"val{number}.jpg", crop[:128, :128])
        _save(folder / "small" / f"small{number}.png", np.asarray(Image.fromarray(small).resize((48, 48))))
        _save(folder / "blurred" / f"blurred{number}.png", _blurred(small))
        missing = rng.random(small.shape[:2]) < 0.5
        _save(folder / "holes" / f"holes{number}.png", np.where(missing[..., None], 0, small).astype(np.uint8))
        _save(folder / "masks" / f"holes{number}.png", (255 * missing).astype(np.uint8))
    _save(folder / "kernel.png", np.full((5, 5), 10, np.uint8))


def _crops(image: Pixels, side: int) -> Iterator[Pixels]:
    height, width = image.shape[:2]
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            yield image[top : top + side, left : left + side]


def _noisy(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Noise of 10 grey levels that neighbours share."""
    noise = rng.normal(0, 10, (image.shape[0] + 1, image.shape[1] + 1, 3))
    shared = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 2
    return (image + shared).clip(0, 255).round().astype(np.uint8)


def _blurred(image: Pixels) -> Pixels:
    """By the kernel of 5x5 that :func:`write_pictures` writes beside it, except near the border."""
    padded = np.pad(image.astype(np.float64), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    shifted = [padded[y : y + height, x : x + width] for y in range(5) for x in range(5)]
    return np.asarray(np.mean(shifted, axis=0).round(), np.uint8)


def _save(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)

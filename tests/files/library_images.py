"""Image files made in memory by Pillow and tifffile, and the random samples that go into them."""

from __future__ import annotations

import io

import numpy as np
import tifffile
from PIL import Image


def samples(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def saved(image: Image.Image, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def tiff(array: np.ndarray, **how: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **how)  # type: ignore[arg-type]
    return buffer.getvalue()

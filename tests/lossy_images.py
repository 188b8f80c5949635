"""Images of which a decoder must give something up, and what: known from how they are made, not from the decoder."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.file_corpus.colour_math import ADOBE
from tests.file_corpus.icc import rgb_profile

__all__ = ["Lossy", "lossy_images", "saved", "sum_of", "write_images"]


class Lossy(NamedTuple):
    """A file and what it has lost as 8-bit sRGB."""

    data: bytes
    given_up: dict[str, int]


def lossy_images(height: int = 64, width: int = 72) -> dict[str, Lossy]:
    """By file name: one or two of each reason that ordinary files have, and a plain one."""
    rgb = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    grey, ramp = rgb[..., 0], np.linspace(0, 255, width).astype(np.uint8)
    alpha = np.broadcast_to(ramp[None, :, None], (height, width, 1))
    deep = grey.astype(np.uint16) * 256 + 7
    palette = Image.fromarray(rgb).quantize(16)
    frames = [Image.fromarray(np.roll(rgb, step, 0)) for step in (1, 2)]
    profile = rgb_profile(ADOBE)
    return {
        "plain.png": Lossy(saved(rgb, "PNG"), {}),
        "grey.jpg": Lossy(saved(grey, "JPEG"), {"grey_to_rgb": 1}),
        "sprite.webp": Lossy(saved(np.concatenate([rgb, alpha], 2), "WEBP", lossless=True), {"flattened_alpha": 1}),
        "palette.png": Lossy(saved(palette, "PNG", transparency=0), {"flattened_alpha": 1}),
        "camera.jpg": Lossy(saved(rgb, "JPEG", icc_profile=profile), {"converted_profile": 1}),
        "camera.tif": Lossy(saved(rgb, "TIFF", icc_profile=profile), {"converted_profile": 1}),
        "torn_profile.png": Lossy(saved(rgb, "PNG", icc_profile=profile[:200]), {"unknown_profile": 1}),
        "deep.png": Lossy(saved(deep, "PNG"), {"grey_to_rgb": 1, "reduced_depth": 1}),
        "stack.tif": Lossy(saved(rgb, "TIFF", save_all=True, append_images=frames), {"further_pages": 2}),
    }


def write_images(folder: Path, images: dict[str, Lossy]) -> Path:
    """The files, in a folder that is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        (folder / name).write_bytes(image.data)
    return folder


def sum_of(images: Iterable[Lossy], times: int = 1) -> dict[str, int]:
    """What all of them have lost, each read so many times, in alphabetical order."""
    total: Counter[str] = Counter()
    for image in images:
        total.update(image.given_up)
    return {reason: times * total[reason] for reason in sorted(total)}


def saved(image: Image.Image | np.ndarray, format: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **how)
    return buffer.getvalue()

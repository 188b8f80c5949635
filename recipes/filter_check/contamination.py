"""Tiles of clean pictures, the same tiles corrupted as scraped pictures are, and mixtures of the two.

The corruptions are Pillow's own and share nothing with ``synthpipe.transforms.corruptions``, on which scorers are
fitted: libjpeg against a differentiable transform, Pillow's blur and resampling against convolutions and torch's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import downscale_bicubic, to_float, to_uint8

__all__ = ["CORRUPTIONS", "Corpus", "contaminated", "make_corpus", "reduced"]

CORRUPTIONS = ("jpeg", "blur", "upscale")
#: Pixels around a tile that are corrupted with it, so that it has no border of its own.
_APRON = 16
_JPEG_QUALITY = 10
_BLUR_SIGMA = (1.0, 2.0)
#: Of the corruptions and of who is corrupted; no scorer has seen either.
_SEED = 20_260_917

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Corpus:
    """N tiles, clean and corrupted.

    Attributes:
        clean, corrupted: ``(N, 3, side, side)`` uint8; ``corrupted[n]`` is ``clean[n]`` after one corruption.
        clean_lq, corrupted_lq: ``(N, 3, side / scale, side / scale)`` uint8, their bicubic reductions.
        family: ``(N,)`` index into ``kinds``.
        names: file name of the picture that each tile was cut from.
        kinds: names of the corruptions.
    """

    clean: Bytes
    corrupted: Bytes
    clean_lq: Bytes
    corrupted_lq: Bytes
    family: NDArray[np.int64]
    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = CORRUPTIONS

    def __len__(self) -> int:
        return len(self.clean)


def make_corpus(folder: Path, side: int, most: int, scale: int) -> Corpus:
    """Cut the pictures below ``folder`` into tiles side by side, and corrupt a copy of each.

    Args:
        folder: clean pictures.
        side: of a tile, pixels.
        most: at most so many tiles, evenly spread over pictures and places.
        scale: of the reductions.
    """
    places = [(path, top, left) for path in list_images(folder) for top, left in _grid(path, side)]
    if not places:
        raise SystemExit(f"{folder}: expected pictures of at least {side}x{side} pixels, found none")
    places = [places[n * len(places) // most] for n in range(most)] if len(places) > most else places
    clean = np.empty((len(places), 3, side, side), np.uint8)
    corrupted = np.empty_like(clean)
    family = np.empty(len(places), np.int64)
    names = tuple(path.name for path, _, _ in places)
    picture, opened = np.empty(0, np.uint8), None
    for n, (path, top, left) in enumerate(places):
        if path != opened:
            picture, opened = read_image(path), path
        rng = np.random.default_rng((_SEED, 0, n))
        family[n] = rng.integers(len(CORRUPTIONS))
        clean[n] = picture[top : top + side, left : left + side].transpose(2, 0, 1)
        corrupted[n] = _corrupted_tile(picture, top, left, side, CORRUPTIONS[family[n]], rng).transpose(2, 0, 1)
    return Corpus(clean, corrupted, reduced(clean, scale), reduced(corrupted, scale), family, names)


def contaminated(tiles: int, percent: int, seed: int) -> NDArray[np.bool_]:
    """Which of the tiles are corrupted, ``(tiles,)``: ``percent`` of them; a higher share includes the lower one."""
    order = np.random.default_rng((_SEED, 1, seed)).permutation(tiles)
    mask = np.zeros(tiles, bool)
    mask[order[: round(tiles * percent / 100)]] = True
    return mask


def reduced(tiles: Bytes, scale: int) -> Bytes:
    """Bicubic reduction to 8 bits, ``(N, 3, H, W)`` -> ``(N, 3, H / scale, W / scale)``."""
    parts = np.array_split(tiles, max(1, len(tiles) // 256))
    return np.concatenate([to_uint8(downscale_bicubic(to_float(torch.from_numpy(p)), scale)).numpy() for p in parts])


def _grid(path: Path, side: int) -> Sequence[tuple[int, int]]:
    with Image.open(path) as image:
        width, height = image.size
    rows, columns = height // side, width // side
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    return [(top + row * side, left + column * side) for row in range(rows) for column in range(columns)]


def _corrupted_tile(picture: Bytes, top: int, left: int, side: int, kind: str, rng: np.random.Generator) -> Bytes:
    """Corrupt a region around the tile, which begins anywhere in the grid of JPEG's blocks, and cut the tile out."""
    dy, dx = rng.integers(0, 8, 2).tolist()
    up, before = max(0, top - _APRON + dy), max(0, left - _APRON + dx)
    region = picture[up : top + side + _APRON, before : left + side + _APRON]
    sigma = rng.uniform(*_BLUR_SIGMA)
    out = np.array(_corrupt(Image.fromarray(region), kind, sigma))
    return out[top - up : top - up + side, left - before : left - before + side]


def _corrupt(image: Image.Image, kind: str, sigma: float) -> Image.Image:
    if kind == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_JPEG_QUALITY)
        return Image.open(file).convert("RGB")
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(sigma))
    small = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)

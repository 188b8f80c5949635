"""Squares out of images: where to cut, flips and turns, all decided by the sample's own seed."""

from __future__ import annotations

import random

import numpy as np

from synthpipe.errors import ImageError

__all__ = ["augment", "check_size", "cut_square", "drawn_flips", "spread_positions"]

_CANDIDATES = 8


def check_size(image: np.ndarray, size: int, name: str) -> None:
    """Refuse an image (H, W, 3) with a side under ``size``.

    Raises:
        ImageError: reason ``"too_small"``.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise ImageError(
            f"{name}: {width}x{height} pixels is smaller than the tile of {size}; remove such images from the corpus "
            "or set a smaller tile",
            reason="too_small",
        )


def spread_positions(height: int, width: int, size: int, count: int, rng: random.Random) -> list[tuple[int, int]]:
    """``count`` top-left corners of squares inside ``height`` x ``width``, spread out.

    The first is uniform; each further one is the best of a few uniform draws, the one that overlaps least with those
    already placed (best-candidate sampling, Mitchell, SIGGRAPH 1991).  Positions stay uniform enough for training
    and squares seldom show the same content twice.
    """
    placed: list[tuple[int, int]] = []
    for _ in range(count):
        # random() alone repeats in every Python version
        candidates = [
            (int(rng.random() * (height - size + 1)), int(rng.random() * (width - size + 1)))
            for _ in range(_CANDIDATES if placed else 1)
        ]
        placed.append(min(candidates, key=lambda corner: sum(_overlap(corner, other, size) for other in placed)))
    return placed


def cut_square(image: np.ndarray, corner: tuple[int, int], size: int) -> np.ndarray:
    """A view of ``image`` (H, W, 3): ``size`` x ``size`` from ``corner`` (row, column)."""
    top, left = corner
    return image[top : top + size, left : left + size]


def drawn_flips(rng: random.Random, *, hflip: bool, rotate: bool) -> tuple[bool, int]:
    """Whether a tile is mirrored, with probability 1/2, and k of its turn by k * 90 degrees, uniform in 0..3."""
    # Both numbers are always drawn, so that one option does not change the other's outcome.
    mirror, turns = rng.random() < 0.5, int(rng.random() * 4)
    return hflip and mirror, turns if rotate else 0


def augment(tile: np.ndarray, mirror: bool, turns: int) -> np.ndarray:
    """A view of ``tile`` (S, S, 3), mirrored left to right, then turned by ``turns`` * 90 degrees, anticlockwise."""
    if mirror:
        tile = tile[:, ::-1]
    return np.rot90(tile, turns) if turns else tile


def _overlap(a: tuple[int, int], b: tuple[int, int], size: int) -> int:
    return max(size - abs(a[0] - b[0]), 0) * max(size - abs(a[1] - b[1]), 0)

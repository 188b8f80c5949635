"""RGB to the Y'CbCr of video, 4:2:0 in limited range (ITU-R BT.601 and BT.709), and back.

Chroma values stand in the middle of the four pixels that they are the mean of, and are interpolated from there, so that
colours stay where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["KR_KB", "Planes", "to_planes", "to_rgb"]

#: What red and blue weigh in Y', by recommendation.
KR_KB = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}


class Planes(NamedTuple):
    """``(h, w)`` uint8 16..235, and two of ``(h / 2, w / 2)`` uint8 16..240."""

    y: np.ndarray
    cb: np.ndarray
    cr: np.ndarray


def to_planes(levels: np.ndarray, matrix: str) -> Planes:
    """``(h, w, 3)`` uint8 with even sides; ``matrix`` is a key of :data:`KR_KB`."""
    height, width, _ = levels.shape
    y, cb, cr = np.moveaxis(levels.astype(np.float32) @ _forward(matrix).astype(np.float32).T, -1, 0)
    chroma = (c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) + 128 for c in (cb, cr))
    return Planes(_whole(y + 16), *map(_whole, chroma))


def to_rgb(planes: Planes, matrix: str) -> np.ndarray:
    """``(h, w, 3)`` uint8."""
    y = planes.y.astype(np.float32) - 16
    cb, cr = (_doubled(_doubled(c.astype(np.float32) - 128).T).T for c in planes[1:])
    rgb = np.stack((y, cb, cr), -1) @ np.linalg.inv(_forward(matrix)).astype(np.float32).T
    return _whole(rgb)


def _forward(matrix: str) -> np.ndarray:
    """Y', Cb, Cr without their offsets, of R, G, B in 0..255."""
    red, blue = KR_KB[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    cb = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    cr = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    rows: np.ndarray = np.stack([219 * luma, 224 * cb, 224 * cr]) / 255
    return rows


def _doubled(plane: np.ndarray) -> np.ndarray:
    """Twice the rows, interpolated at 1/4 and 3/4, border rows repeated."""
    around = np.concatenate([plane[:1], plane, plane[-1:]])
    pairs = np.stack([0.75 * plane + 0.25 * around[:-2], 0.75 * plane + 0.25 * around[2:]], 1)
    return pairs.reshape(2 * len(plane), plane.shape[1])


def _whole(values: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.rint(values).clip(0, 255).astype(np.uint8)
    return whole

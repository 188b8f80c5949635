"""Colour conversions by their formulas, in float64: what a decoder that asks LittleCMS is held against.

Curves and primaries: IEC 61966-2-1 (sRGB), Adobe RGB (1998) 4.3, SMPTE EG 432-1 (Display P3 with sRGB's curve),
ISO 22028-2 (ProPhoto, here with a plain exponent of 1.8).  Chromatic adaptation is Bradford's (ICC.1:2022, annex E).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ADOBE", "D50", "P3", "PROPHOTO", "SRGB", "Space", "grey_to_srgb", "srgb_encode", "to_srgb"]

Floats = NDArray[np.float64]

#: The white of the ICC's connection space.
D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Space(NamedTuple):
    """An RGB space: chromaticities (x, y) of white, red, green and blue; ``gamma`` None is sRGB's curve."""

    white: tuple[float, float]
    primaries: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    gamma: float | None

    def decode(self, values: Floats) -> Floats:
        """Stored values in [0, 1] to linear light."""
        if self.gamma is not None:
            return values**self.gamma
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)

    def to_d50(self) -> Floats:
        """Matrix ``(3, 3)`` from linear RGB to XYZ under D50."""
        columns = np.array([_xyz(*primary) for primary in self.primaries]).T
        white = _xyz(*self.white)
        absolute = columns * np.linalg.solve(columns, white)
        gains = (_BRADFORD @ D50) / (_BRADFORD @ white)
        return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ absolute


_D65 = (0.3127, 0.3290)
SRGB = Space(_D65, ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), None)
ADOBE = Space(_D65, ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256)
P3 = Space(_D65, ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), None)
PROPHOTO = Space((0.3457, 0.3585), ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8)


def to_srgb(values: NDArray[np.integer], space: Space, peak: int = 255) -> Floats:
    """Stored values ``(H, W, 3)`` from 0 to ``peak`` to sRGB in [0, 1], clipped, relative to white."""
    linear = space.decode(values / peak)
    matrix = np.linalg.inv(SRGB.to_d50()) @ space.to_d50()
    return srgb_encode(np.clip(linear @ matrix.T, 0, 1))


def grey_to_srgb(values: NDArray[np.integer], gamma: float, peak: int = 255) -> Floats:
    """Grey of an exponent to sRGB's grey in [0, 1]."""
    return srgb_encode((values / peak) ** gamma)


def srgb_encode(linear: Floats) -> Floats:
    """Linear light in [0, 1] to sRGB's values."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _xyz(x: float, y: float) -> Floats:
    return np.array([x / y, 1.0, (1 - x - y) / y])

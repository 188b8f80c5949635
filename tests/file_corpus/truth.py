"""What each odd file must become, computed from the samples that went into it and never by the code under test."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAKE", "OddFile", "Truth", "deep_picture", "picture", "rounded", "seen", "stored"]

#: What the EXIF of these files calls the maker of the camera: it must come out of commands that write images.
MAKE = "Odd cameras"


@dataclass(frozen=True)
class Truth:
    """An image at its full depth, upright and in sRGB, and what an 8-bit RGB picture of it lacks.

    Args:
        color: ``(H, W, 1)`` or ``(H, W, 3)``, uint8 or uint16.
        alpha: ``(H, W, 1)`` of the same type, None where there is none.
        reasons: names of what is given up, each once, apart by spaces; further pages by their number.
        peak: the value of white, None for the type's largest.
        tolerance: of each channel, in levels of 255 (what a conversion by another formula may be off).
        further_pages: what follows the first page, ``color`` of each.
        exif: whether :data:`MAKE` stands in its metadata.
        preview: what follows is another size of the same picture, which commands that write images leave out.
    """

    color: NDArray[np.integer]
    alpha: NDArray[np.integer] | None = None
    reasons: str = ""
    peak: int | None = None
    tolerance: int = 0
    further_pages: tuple[NDArray[np.integer], ...] = ()
    exif: bool = False
    preview: bool = False

    @property
    def white(self) -> int:
        """The value of white."""
        return self.peak or np.iinfo(self.color.dtype).max

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W, 3)`` as a decoder gives them: on white, rounded once, exact in integers."""
        return seen(self.color, self.alpha, self.white)

    @property
    def given_up(self) -> Mapping[str, int]:
        """How often each reason counts."""
        pages = {"further_pages": len(self.further_pages)} if self.further_pages else {}
        return dict.fromkeys(self.reasons.split(), 1) | pages


@dataclass(frozen=True)
class OddFile:
    """One file: its name below the corpus, its bytes, and what they are worth.

    ``truth`` is the reason of the error where the image cannot be used.  ``taken`` is False where the name says that
    it is no image.
    """

    name: str
    data: bytes = field(repr=False)
    truth: Truth | str
    taken: bool = True


def seen(color: NDArray[np.integer], alpha: NDArray[np.integer] | None, white: int) -> NDArray[np.uint8]:
    """``color`` over white, ``(H, W, 3)`` uint8: ``round(255 (c a + w (w - a)) / w^2)`` in integers."""
    wide = color.astype(np.uint64)
    scale = white
    if alpha is not None:
        opacity = alpha.astype(np.uint64)
        wide = wide * opacity + white * (white - opacity)
        scale = white * white
    levels = ((2 * 255 * wide + scale) // (2 * scale)).astype(np.uint8)
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def deep_picture(seed: str, height: int = 112, width: int = 128) -> NDArray[np.uint16]:
    """``(H, W, 3)``, 16 bits: waves of strong colours and some noise, another picture for each seed."""
    rng = np.random.default_rng(zlib.crc32(seed.encode("utf-8", "surrogateescape")))
    y, x = np.mgrid[0:height, 0:width] / 112
    turns = rng.uniform(0.7, 1.6, (3, 2))
    phases = rng.uniform(0, 6.28, 3)
    waves = [np.sin(6.28 * (a * x + b * y) + phase) for (a, b), phase in zip(turns, phases, strict=True)]
    values = 0.5 + 0.46 * np.stack(waves, 2) + rng.normal(0, 0.015, (height, width, 3))
    return np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def picture(seed: str, height: int = 112, width: int = 128) -> NDArray[np.uint8]:
    """:func:`deep_picture` with 8 bits."""
    return ((deep_picture(seed, height, width).astype(np.uint32) + 128) // 257).astype(np.uint8)


def rounded(values: NDArray[np.float64], dtype: type[np.unsignedinteger] = np.uint8) -> NDArray[np.unsignedinteger]:
    """Values in [0, 1] to whole levels."""
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores a scene, by EXIF 2.32: the tag says which sides of it row 0 and column 0 are."""
    turned = upright.swapaxes(0, 1)
    return {
        1: upright,  # (top, left)
        2: upright[:, ::-1],  # (top, right)
        3: upright[::-1, ::-1],  # (bottom, right)
        4: upright[::-1],  # (bottom, left)
        5: turned,  # (left, top)
        6: turned[::-1],  # (right, top)
        7: turned[::-1, ::-1],  # (right, bottom)
        8: turned[:, ::-1],  # (left, bottom)
    }[orientation]

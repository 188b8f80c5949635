"""Few colours by Pillow, as a GIF or a PNG with a palette holds them."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["in_palette", "median_cut"]

_ENTRIES = 256
#: A side of the square of pixels that a palette is made from: enough for one as good, and much quicker.
_SEEN = 64


def median_cut(levels: np.ndarray, colours: int) -> np.ndarray:
    """A palette made for an image by median cut (Heckbert 1982), from 4096 pixels of a larger one, always the same.

    Args:
        levels: ``(h, w, 3)`` uint8, RGB.
        colours: 2..256, at most so many.

    Returns:
        ``(n, 3)`` uint8.
    """
    if levels.shape[0] * levels.shape[1] > _SEEN**2:
        chosen = np.random.default_rng(0).integers(levels.shape[0] * levels.shape[1], size=(_SEEN, _SEEN))
        levels = levels.reshape(-1, 3)[chosen]
    indexed = Image.fromarray(levels).quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    used = int(np.asarray(indexed).max()) + 1
    return np.asarray(indexed.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)[:used]


def in_palette(levels: np.ndarray, palette: np.ndarray, diffused: bool) -> np.ndarray:
    """Each pixel in the nearest colour of a palette; ``diffused``: with Floyd and Steinberg's error diffusion (1976).

    Args:
        levels: ``(h, w, 3)`` uint8, RGB.
        palette: ``(n, 3)`` uint8, n up to 256.
        diffused: whether the pixels to the right and below take what a pixel could not show.
    """
    # Pillow takes entries that nobody set for colours as well.
    entries = palette[np.minimum(np.arange(_ENTRIES), len(palette) - 1)]
    holder = Image.new("P", (1, 1))
    holder.putpalette(entries.tobytes(), "RGB")
    dither = Image.Dither.FLOYDSTEINBERG if diffused else Image.Dither.NONE
    indexed = Image.fromarray(levels).quantize(palette=holder, dither=dither)
    shown: np.ndarray = entries[np.asarray(indexed)]
    return shown

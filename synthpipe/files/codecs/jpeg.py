"""JPEG through libjpeg-turbo."""

from __future__ import annotations

import imagecodecs
import numpy as np

__all__ = ["jpeg_round_trip"]


def jpeg_round_trip(levels: np.ndarray, quality: int, sampling: str) -> np.ndarray:
    """What is left of an image that was a JPEG file; leaves the interpreter free meanwhile.

    The codec is the one that comes with imagecodecs, not Pillow's: it knows 4:1:1 and 4:4:0, and is libjpeg-turbo
    everywhere (another libjpeg upsamples chroma in another way).

    Args:
        levels: ``(h, w, 3)`` uint8, RGB.
        quality: 1..100, libjpeg's.
        sampling: of chroma: 420, 422, 444, 411 or 440.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    # imagecodecs refuses strides of its own that NumPy takes as contiguous, as along a side of one pixel.
    data = imagecodecs.jpeg8_encode(levels.copy(order="C"), level=quality, subsampling=sampling)
    decoded: np.ndarray = imagecodecs.jpeg8_decode(data)
    return decoded

"""WebP through libwebp."""

from __future__ import annotations

import imagecodecs
import numpy as np

__all__ = ["webp_round_trip"]


def webp_round_trip(levels: np.ndarray, quality: int, method: int) -> np.ndarray:
    """What is left of an image that was a lossy WebP file; leaves the interpreter free meanwhile.

    Args:
        levels: ``(h, w, 3)`` uint8, RGB.
        quality: 0..100, libwebp's.
        method: 0..6, how hard the encoder tries for a small file.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    # As for JPEG, strides along a side of one pixel must be the usual ones.
    data = imagecodecs.webp_encode(levels.copy(order="C"), level=quality, lossless=False, method=method)
    decoded: np.ndarray = imagecodecs.webp_decode(data)
    return decoded

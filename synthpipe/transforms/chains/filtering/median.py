"""Medians of square windows by minima and maxima of whole images, which is faster than to sort each window.

Batcher's merge exchange (Knuth, The Art of Computer Programming 3, section 5.2.2, algorithm M) sorts n images pixel by
pixel; what the middle one does not depend on is left out.  NaN in a window makes its median NaN.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["median_filter"]

#: Bytes of the images that are compared at a time: what a processor's cache holds, and what a GPU has at hand.
_CPU_BYTES, _GPU_BYTES = 1 << 22, 1 << 28


def median_filter(extended: Tensor, window: int) -> Tensor:
    """``(B, C, H + window - 1, W + window - 1)`` -> ``(B, C, H, W)``, ``window`` odd."""
    if window == 1:
        return extended
    height, width = (side - window + 1 for side in extended.shape[2:])
    row = extended.element_size() * extended.shape[0] * extended.shape[1] * width * window**2
    rows = max(1, (_CPU_BYTES if extended.device.type == "cpu" else _GPU_BYTES) // row)
    made = []
    for top in range(0, height, rows):
        some = extended[:, :, top : min(top + rows, height) + window - 1]
        made.append(_median([_shifted(some, y, x, window) for y in range(window) for x in range(window)]))
    return torch.cat(made, 2)


def _shifted(x: Tensor, top: int, left: int, window: int) -> Tensor:
    height, width = (side - window + 1 for side in x.shape[2:])
    return x[:, :, top : top + height, left : left + width]


def _median(images: list[Tensor]) -> Tensor:
    for low, high, keep_low, keep_high in _network(len(images)):
        a, b = images[low], images[high]
        if keep_low:
            images[low] = torch.minimum(a, b)
        if keep_high:
            images[high] = torch.maximum(a, b)
    return images[len(images) // 2]


@cache
def _network(count: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """Places to compare, and which of minimum and maximum the middle depends on."""
    needed, kept = {count // 2}, []
    for low, high in reversed(_merge_exchange(count)):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _merge_exchange(count: int) -> list[tuple[int, int]]:
    """Places to compare, in order, which sorts."""
    top = 1 << ((count - 1).bit_length() - 1)
    compared, p = [], top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            compared += [(i, i + distance) for i in range(count - distance) if i & p == r]
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2
    return compared

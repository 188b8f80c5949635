"""Images as codecs take them: 8 bits, rows of pixels, in the host's memory.

By NumPy: codecs are called from several threads, in each of which torch would start a team of threads of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["from_levels", "to_levels"]


def to_levels(x: Tensor) -> np.ndarray | None:
    """``(1, C, h, w)``, clipped to [0, 1] and rounded -> ``(h, w, C)`` uint8; None with a NaN, which has no level."""
    levels = x[0].cpu().numpy() * np.float32(255)
    np.rint(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)
    # Every other number is finite by now.
    if np.isnan(levels.sum()):
        return None
    return np.stack(list(levels.astype(np.uint8)), -1)


def from_levels(levels: np.ndarray, like: Tensor) -> Tensor:
    """``(h, w, C)`` uint8 -> ``(1, C, h, w)`` float32 in [0, 1], where ``like`` is."""
    planes = np.ascontiguousarray(levels.transpose(2, 0, 1)).astype(np.float32)
    planes /= np.float32(255)
    return torch.from_numpy(planes).to(like.device)[None]

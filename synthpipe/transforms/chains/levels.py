"""Images as codecs take them: 8 bits, rows of pixels, in the host's memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthpipe.images import to_float

__all__ = ["from_levels", "to_levels"]


def to_levels(x: Tensor) -> np.ndarray | None:
    """``(1, C, h, w)``, clipped to [0, 1] and rounded -> ``(h, w, C)`` uint8; None with a NaN, which has no level."""
    levels = x[0].mul(255).round_().clamp_(0, 255)
    # Every other number is finite by now.
    if bool(levels.sum().isnan()):
        return None
    return np.stack(list(levels.to(torch.uint8).cpu().numpy()), -1)


def from_levels(levels: np.ndarray, like: Tensor) -> Tensor:
    """``(h, w, C)`` uint8 -> ``(1, C, h, w)`` float32 in [0, 1], where ``like`` is."""
    planes = np.ascontiguousarray(levels.transpose(2, 0, 1))
    return to_float(torch.from_numpy(planes).to(like.device))[None]

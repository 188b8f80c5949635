"""Images as codecs take them: 8 bits, rows of pixels, in the host's memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from synthpipe.images import to_float, to_uint8

__all__ = ["from_levels", "to_levels"]


def to_levels(x: Tensor) -> np.ndarray | None:
    """``(1, C, h, w)``, clipped to [0, 1] -> ``(h, w, C)`` uint8; None where there is a NaN, which has no level."""
    if bool(x.isnan().any()):
        return None
    return to_uint8(x[0]).permute(1, 2, 0).cpu().contiguous().numpy()


def from_levels(levels: np.ndarray, like: Tensor) -> Tensor:
    """``(h, w, C)`` uint8 -> ``(1, C, h, w)`` float32 in [0, 1], contiguous, where ``like`` is."""
    return to_float(torch.from_numpy(levels).to(like.device).permute(2, 0, 1).contiguous())[None]

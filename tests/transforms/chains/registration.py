"""How far content has moved between two images, to thousandths of a pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synthpipe.images import to_uint8
from tests.transforms.chains.stage_battery import photo_like

__all__ = ["levels_of", "mean_shift"]

_LUMA = np.array([0.299, 0.587, 0.114])
_RED = np.array([1, -0.5, -0.5])


def levels_of(x):
    """``(1, 3, h, w)`` in [0, 1] -> ``(h, w, 3)`` uint8, contiguous."""
    return np.ascontiguousarray(to_uint8(x[0]).permute(1, 2, 0).numpy())


def mean_shift(
    function: Callable[[np.ndarray], np.ndarray], images: int = 40, side: int = 96, red: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels down and right that ``function`` moves images by, and the standard errors.

    Lucas and Kanade's least squares between an image and what was made of it, in luma or in red against the others, on
    pictures of drawn shapes.
    """
    shifts = []
    for seed in range(images):
        before = levels_of(photo_like(side, side, seed))
        shifts.append(_shift(before, function(before), _RED if red else _LUMA))
    found = np.array(shifts)
    return found.mean(0), found.std(0) / images**0.5


def _shift(before: np.ndarray, after: np.ndarray, channel: np.ndarray) -> np.ndarray:
    x, y = before @ channel, after @ channel
    # The gradient of both, so that blur alone moves nothing.
    down, right = (gradient[8:-8, 8:-8].ravel() for gradient in np.gradient((x + y) / 2))
    gradients = np.stack([down, right])
    return np.linalg.solve(gradients @ gradients.T, gradients @ (x - y)[8:-8, 8:-8].ravel())

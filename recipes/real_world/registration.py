"""A reference brought onto its noisy shot: moved by parts of a pixel, and to its brightness, as SIDD and DND do it.

The two shots of a PolyU pair are displaced by up to 0.7 pixels, otherwise in each corner of the frame, and differ in
brightness by up to 1.7 of 255.  That is no noise.  Left in, it blurs what a network learns from real pairs and hides
differences between results.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthpipe.images import to_uint8

__all__ = ["MARGIN", "moved", "registered", "shift_between"]

#: Pixels at the border of a window that a moved reference does not reach.
MARGIN = 16
_ROUNDS = 4
#: Grey levels of 255: windows with less contrast have no edges to go by, and stay where they are.
_LEAST_CONTRAST = 6.0
#: Pixels; an estimate beyond it found something else.
_MOST_SHIFT = 1.5


def registered(noisy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both without :data:`MARGIN` pixels of border, the reference moved and of the same mean in R, G and B.

    Args:
        noisy, reference: windows ``(3, H, W)``, uint8.
    """
    planes = reference.double().numpy()
    shift = shift_between(noisy.double().mean(0).numpy(), planes.mean(0))
    noisy, inner = _inner(noisy), _inner(torch.from_numpy(moved(planes, shift)))
    inner = inner + (noisy.double() - inner).mean((1, 2), keepdim=True)
    return noisy, to_uint8((inner / 255).clamp(0, 1))


def shift_between(noisy: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float]:
    """Down and to the right, pixels, by which ``reference`` ``(H, W)`` has to be moved to lie on ``noisy``.

    Least squares on the gradient of the reference, which noise does not bias, again after each move.
    """
    if reference.std() < _LEAST_CONTRAST:
        return 0.0, 0.0
    shift = np.zeros(2)
    inner = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    for _ in range(_ROUNDS):
        there = moved(reference, (float(shift[0]), float(shift[1])))
        down, right = np.gradient(there)
        basis = np.stack([-down[inner].ravel(), -right[inner].ravel(), np.ones(down[inner].size)], 1)
        shift += np.linalg.lstsq(basis, (noisy - there)[inner].ravel(), rcond=None)[0][:2]
    return (float(shift[0]), float(shift[1])) if np.abs(shift).max() < _MOST_SHIFT else (0.0, 0.0)


def moved(x: NDArray[np.float64], shift: tuple[float, float]) -> NDArray[np.float64]:
    """``(..., H, W)`` by the shift theorem; what comes in at a border is the other border's, cut off later."""
    height, width = x.shape[-2:]
    phase = np.fft.fftfreq(height)[:, None] * shift[0] + np.fft.rfftfreq(width)[None] * shift[1]
    return np.fft.irfft2(np.fft.rfft2(x) * np.exp(-2j * np.pi * phase), s=(height, width))


def _inner(x: Tensor) -> Tensor:
    return x[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

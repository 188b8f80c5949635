"""Plain statistics of grey tiles that stand beside the density: what a coder needs, contrast."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coder_bits", "contrast"]


def coder_bits(grey: Tensor) -> Tensor:
    """Bits per pixel of an ideal coder of the gradient prediction's errors, ``(N,)``.

    Pixels are predicted from their left, upper and upper-left neighbours (the median edge detector of LOCO-I, ITU-T
    T.87), as lossless image coders do; the bits are the entropy of the tile's own histogram of errors.

    Args:
        grey: ``(N, 1, H, W)`` in [0, 1]; rounded to 8 bits.
    """
    levels = (grey[:, 0].clamp(0, 1) * 255).round().long()
    left, up, corner = levels[:, 1:, :-1], levels[:, :-1, 1:], levels[:, :-1, :-1]
    smaller, larger = torch.minimum(left, up), torch.maximum(left, up)
    predicted = torch.where(corner >= larger, smaller, torch.where(corner <= smaller, larger, left + up - corner))
    errors = (levels[:, 1:, 1:] - predicted).flatten(1) % 256  # (N, P)
    counts = torch.zeros(len(errors), 256, device=grey.device).scatter_add_(
        1, errors, torch.ones_like(errors, dtype=torch.float32)
    )
    p = counts / errors.shape[1]
    return -(p * p.clamp_min(1e-12).log2()).sum(1)


def contrast(grey: Tensor) -> Tensor:
    """Logarithm of the standard deviation of the tile on the 0..255 scale plus one, ``(N,)``."""
    return (255 * grey.flatten(1).std(1)).log1p()

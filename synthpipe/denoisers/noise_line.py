"""The line under most points: how noise grows with brightness, where texture only ever adds to a variance."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lower_line"]

#: A variance so far above the line over brightness, as a share of it, begins to be taken for texture.
_TEXTURE = 0.3
_ROUNDS = 20
#: Variances below this are not told from none.
_LEAST = 1e-14


def lower_line(x: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """``a >= 0`` and ``b >= 0``, each ``(B,)``, of the lines ``a * x + b`` under most points of each row.

    Reweighted least squares, tensor operations alone.

    Args:
        x: ``(B, P)`` float64, brightnesses.
        variance: ``(B, P)`` float64.
    """
    variance = variance.clamp(min=_LEAST)
    trust = torch.ones_like(variance)
    b = variance.median(1, keepdim=True).values
    a = torch.zeros_like(b)
    for _ in range(_ROUNDS):
        weight = trust / (a * x + b).clamp(min=_LEAST).square()
        a, b = _positive_line(x, variance, weight)
        above = variance / (a * x + b).clamp(min=_LEAST) - 1
        trust = (_TEXTURE / above.clamp(min=_TEXTURE)).square()
    return a[:, 0], b[:, 0]


def _positive_line(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares of ``y`` over ``x``, slope and intercept ``(B, 1)`` at least 0."""
    wx = weight * x
    sums = torch.stack([weight, wx, weight * y, wx * x, wx * y]).sum(2, keepdim=True)  # (5, B, 1)
    w, sx, sy, sxx, sxy = sums.unbind(0)
    spread = w * sxx - sx * sx
    slope = torch.where(spread > 1e-9 * w * sxx, (w * sxy - sx * sy) / spread, 0.0).clamp(min=0)
    intercept = (sy - slope * sx) / w
    below = intercept < 0
    return torch.where(below, (sxy / sxx).clamp(min=0), slope), torch.where(below, 0.0, intercept)

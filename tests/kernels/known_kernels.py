"""Kernels whose responses are known by formula."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussians"]


def gaussians(*sigmas: float, side: int = 21) -> Tensor:
    """``(N, side, side)`` float64 with the sum 1: round, of these standard deviations in pixels."""
    place = torch.arange(side, dtype=torch.float64) - side // 2
    lines = torch.stack([(-0.5 * (place / sigma) ** 2).exp() for sigma in sigmas])
    kernels = lines[:, :, None] * lines[:, None, :]
    return kernels / kernels.sum((1, 2), keepdim=True)

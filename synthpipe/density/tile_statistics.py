"""Plain statistics of grey tiles that stand beside the density: what a coder needs, contrast, a grid of blocks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["blockiness", "coder_bits", "contrast"]


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


def blockiness(grey: Tensor) -> Tensor:
    """How much stronger steps are on the strongest of the eight possible 8-pixel grids than off it, ``(N,)``.

    The step between two pixels is what their difference has beyond the mean of its neighbours' differences.  The
    logarithms of the ratios of the horizontal and the vertical grid are added; 0 is no grid.
    """
    return _grid_excess(grey) + _grid_excess(grey.transpose(2, 3))


def _grid_excess(grey: Tensor) -> Tensor:
    difference = 255 * grey[:, 0].diff(dim=2)
    step = (difference[..., 1:-1] - (difference[..., :-2] + difference[..., 2:]) / 2).abs().mean(1)  # (N, W - 3)
    columns = step.shape[1] // 8 * 8
    phases = step[:, :columns].unflatten(1, (-1, 8)).mean(1)  # (N, 8)
    strongest = phases.amax(1)
    others = (phases.sum(1) - strongest) / 7
    # Half a grey level: flat tiles have no grid.
    return ((strongest + 0.5) / (others + 0.5)).log()

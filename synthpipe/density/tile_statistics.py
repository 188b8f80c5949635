"""Plain statistics of grey tiles that stand beside the density: coder bits, contrast, blocks, detail by octave."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blockiness", "coder_bits", "contrast", "octave_slopes"]

#: Squared grey levels, about what rounding to 8 bits leaves; keeps ratios of flat tiles at 1.
_ROUNDING = 0.3


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
    phases = torch.unflatten(step[:, :columns], 1, (-1, 8)).mean(1)  # (N, 8)
    strongest = phases.amax(1)
    others = (phases.sum(1) - strongest) / 7
    # Half a grey level: flat tiles have no grid.
    return ((strongest + 0.5) / (others + 0.5)).log()


def octave_slopes(grey: Tensor) -> Tensor:
    """Log-ratios of the detail in neighbouring octaves, ``(N, 4)``.

    Photographs are scale-invariant (Field 1987): each octave holds about as much detail as the next, whatever the
    content.  Blur, enlargement and compression take the finest, noise adds to it.  In order: the diagonal second
    difference against what exceeds the 3x3 mean; that at full against half size; half against quarter; and full
    against half by medians, which a few strong edges do not decide.
    """
    full = 255 * grey
    half = F.avg_pool2d(full, 2)
    place = torch.arange(3, device=grey.device)
    second = 1 - 3 * (place == 1).to(grey.dtype)  # 1, -2, 1
    finest = F.conv2d(full, torch.outer(second, second)[None, None] / 4)
    details = [_above_mean(x) for x in (full, half, F.avg_pool2d(half, 2))]
    energies = [x.square().mean((1, 2, 3)) + _ROUNDING for x in (finest, *details)]
    medians = [x.abs().flatten(1).median(1).values + _ROUNDING for x in details[:2]]
    pairs = [*itertools.pairwise(energies), (medians[0], medians[1])]
    return torch.stack([(finer / coarser).log() for finer, coarser in pairs], 1)


def _above_mean(x: Tensor) -> Tensor:
    return x[:, :, 1:-1, 1:-1] - F.avg_pool2d(x, 3, stride=1)

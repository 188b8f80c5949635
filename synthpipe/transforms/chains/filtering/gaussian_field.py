"""White fields blurred by Gaussians, at variance 1."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.transforms.chains.filtering.convolve import sum_of_shifts

__all__ = ["blurred_field", "field_margin"]

# Where the kernels end, in standard deviations.
_REACH = 3.0


def field_margin(widest: float) -> int:
    """Pixels on each side by which a white field must be larger than what is made of it."""
    return math.ceil(_REACH * widest)


def blurred_field(white: Tensor, widths: Tensor, margin: int, alone: bool) -> Tensor:
    """``(B, C, H, W)`` of variance 1 from ``(B, C, H + 2 margin, W + 2 margin)``, by Gaussians of ``widths`` pixels.

    Args:
        white: independent numbers of variance 1.
        widths: ``(B,)``, standard deviations of the Gaussians.
        margin: as :func:`field_margin` gave.
        alone: one sample, whose width the host may ask for.
    """
    places = torch.arange(-margin, margin + 1, dtype=widths.dtype, device=widths.device)
    taps = (-0.5 * (places / widths[:, None]).square()).exp()
    taps = taps / taps.square().sum(1, keepdim=True).sqrt()
    if alone:
        return sum_of_shifts(sum_of_shifts(white, taps[0].tolist(), 3), taps[0].tolist(), 2)
    batch, channels = white.shape[:2]
    rows = taps.to(white.dtype).repeat_interleave(channels, 0)[:, None, None]
    flat = F.conv2d(white.flatten(0, 1)[None], rows, groups=batch * channels)
    flat = F.conv2d(flat, rows.transpose(2, 3), groups=batch * channels)
    return flat.view(batch, channels, *flat.shape[2:])

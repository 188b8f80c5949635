"""The level of an image's noise, from the image alone."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["estimate_sigma"]

#: Median of the absolute value of a standard normal number.
_NORMAL_MAD = 0.6744897501960817


@torch.no_grad()
def estimate_sigma(x: Tensor) -> Tensor:
    """Standard deviation of white noise, by the median of the finest diagonal Haar details (Donoho & Johnstone 1994).

    Args:
        x: ``(B, C, H, W)``, at least 2x2; fine texture is taken for noise.

    Returns:
        ``(B,)``, root mean square over channels, on the scale of ``x``; 0 for images of a single row or column.
    """
    if min(x.shape[2:]) < 2:
        return x.new_zeros(len(x))
    height, width = (side // 2 * 2 for side in x.shape[2:])
    a, b = x[:, :, 0:height:2, 0:width:2], x[:, :, 0:height:2, 1:width:2]
    c, d = x[:, :, 1:height:2, 0:width:2], x[:, :, 1:height:2, 1:width:2]
    details = 0.5 * (a - b - c + d)
    by_channel = details.abs().flatten(2).median(2).values / _NORMAL_MAD  # (B, C)
    return by_channel.square().mean(1).sqrt()

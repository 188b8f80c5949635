"""Pixel-shuffle downsampling: a denoiser of independent noise on correlated noise, by looking at every s-th pixel.

The baseline for correlated noise (Zhou et al., AAAI 2020; AP-BSN, CVPR 2022): pixels ``stride`` apart are nearly
independent, and the s^2 sub-images are denoised one by one.  What it costs is aliasing: fine texture becomes noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["denoise_by_stride"]


def denoise_by_stride(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, stride: int) -> Tensor:
    """Denoise the ``stride^2`` sub-images of ``x`` and put them back together.

    Sub-images of sides that are no multiple are a pixel shorter; nothing is padded, since mirrored borders would show a
    blind network the very pixels that it must not see.

    Args:
        denoise: ``(x (B, C, h, w), sigma (B,)) -> (B, C, h, w)``.
        x: ``(B, C, H, W)``.
        sigma: ``(B,)``.
        stride: 1 leaves the image whole.

    Raises:
        ShapeError: a stride below 1.
    """
    if stride < 1:
        raise ShapeError(f"denoise_by_stride: expected a stride of at least 1, got {stride}")
    out = torch.empty_like(x)
    for row in range(min(stride, x.shape[2])):
        for column in range(min(stride, x.shape[3])):
            part = (..., slice(row, None, stride), slice(column, None, stride))
            out[part] = denoise(x[part].contiguous(), sigma)
    return out

"""sRGB to light and back (IEC 61966-2-1), for values that may overshoot [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["decode_srgb", "encode_srgb"]


def decode_srgb(x: Tensor) -> Tensor:
    """sRGB values to light, 0 to 0 and 1 to 1; both curves go on beyond [0, 1], so that nothing is clipped."""
    power = ((x.clamp(min=0.04) + 0.055) / 1.055) ** 2.4
    return torch.where(x <= 0.04045, x / 12.92, power)


def encode_srgb(light: Tensor) -> Tensor:
    """The inverse of :func:`decode_srgb`."""
    power = 1.055 * light.clamp(min=0.003) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, light * 12.92, power)

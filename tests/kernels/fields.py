"""Textures of known spectra: random fields whose power falls as 1 / f^2, beside flat ground, as in photographs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fields"]


def fields(count: int, seed: int, side: int = 128, colour: float = 0.5) -> list[Tensor]:
    """``(3, side, side)`` about 0.5 each, of strengths that differ as those of photographs do.

    Args:
        count: of the images.
        seed: of all of them.
        side: pixels.
        colour: strength of each channel's own field, in that of the common one.
    """
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(side)
    radius = torch.hypot(frequency[:, None], frequency).clamp(min=1 / side)
    ground = (1 + torch.cos(torch.arange(side).clamp(side // 2, 3 * side // 4) * (4 * torch.pi / side))) / 2
    made = []
    for number in range(count):
        noise = torch.fft.ifft2(torch.fft.fft2(torch.randn(4, side, side, generator=generator)) / radius).real
        noise = noise / noise.std((1, 2), keepdim=True)
        strength = 0.05 + 0.08 * number / count
        made.append(0.5 + strength * ground * (noise[:1] + colour * noise[1:]))
    return made

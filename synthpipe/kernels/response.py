"""Kernels and their responses: how much each keeps of a wave, by the wave's frequency.

Legend: N kernels, S their odd side, K frequencies in cycles per pixel, 0 to 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FREQUENCIES", "amplitudes"]

#: Cycles per pixel at which kernels are described.
FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.47)
#: Directions over half a turn that are averaged; the other half has the same amplitudes.
_DIRECTIONS = 16


def amplitudes(kernels: Tensor, frequencies: Sequence[float] = FREQUENCIES) -> Tensor:
    """Amplitude of waves behind each kernel over that before it, mean over directions: ``(N, K)`` float64.

    Args:
        kernels: ``(N, S, S)``.
        frequencies: cycles per pixel.
    """
    place = torch.arange(kernels.shape[-1], dtype=torch.float64, device=kernels.device) - kernels.shape[-1] // 2
    angle = torch.arange(_DIRECTIONS, dtype=torch.float64, device=kernels.device) * (math.pi / _DIRECTIONS)
    turns = torch.tensor(frequencies, dtype=torch.float64, device=kernels.device)[:, None] * (2 * math.pi)
    row, column = ((turns * way)[..., None] * place for way in (angle.sin(), angle.cos()))  # (K, directions, S)
    flat = kernels.double()
    real, imaginary = (
        torch.einsum("nyx,kdyx->nkd", flat, wave(row[..., None] + column[..., None, :]))
        for wave in (torch.cos, torch.sin)
    )
    return torch.hypot(real, imaginary).mean(-1)

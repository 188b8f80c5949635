"""What of a learned kernel is blur, and what is the camera's sharpening: the part of its response below 1 and above."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["sharpening_part"]

#: Side of the grid of frequencies, in sides of a kernel, and at least.
_SIDES, _GRID = 4, 128


def sharpening_part(kernels: Tensor) -> Tensor:
    """Of kernels with the sum 1, what raises waves above their height: ``(N, S, S)`` float64 with the sum 0.

    The rest, ``kernels`` without it, has the sum 1 and raises no wave.  Both hold up to what the side S cuts off.

    Args:
        kernels: ``(N, S, S)``, S odd; the phase of waves is left to the rest.
    """
    side = kernels.shape[-1]
    grid = max(_GRID, _SIDES * side)
    half, middle = side // 2, grid // 2
    whole = torch.zeros(len(kernels), grid, grid, dtype=torch.float64, device=kernels.device)
    whole[:, middle - half : middle + half + 1, middle - half : middle + half + 1] = kernels
    response = torch.fft.fft2(torch.fft.ifftshift(whole, dim=(1, 2))).real
    raised = torch.fft.fftshift(torch.fft.ifft2((response - 1).clamp(min=0)).real, dim=(1, 2))
    part = raised[:, middle - half : middle + half + 1, middle - half : middle + half + 1]
    # What was cut off would change the brightness.
    zero_sum: Tensor = part - part.mean((1, 2), keepdim=True)
    return zero_sum

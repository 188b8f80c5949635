"""Kernels and their responses: how much each keeps of a wave, by the wave's frequency.

Legend: N kernels, S their odd side, K frequencies in cycles per pixel, 0 to 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["FREQUENCIES", "amplitudes", "at_frequencies", "radial_kernel"]

#: Cycles per pixel at which kernels are described.
FREQUENCIES = (0.1, 0.2, 0.3, 0.4, 0.47)
#: Directions over half a turn that are averaged; the other half has the same amplitudes.
_DIRECTIONS = 16
#: Side of the grid of frequencies that a kernel is made on, and how often what is cut off is given back.
_GRID, _ROUNDS = 128, 4


def amplitudes(kernels: Tensor, frequencies: Sequence[float] = FREQUENCIES) -> Tensor:
    """Amplitude of waves behind each kernel over that before it, mean over directions: ``(N, K)`` float64.

    Args:
        kernels: ``(N, S, S)``.
        frequencies: cycles per pixel.
    """
    real, imaginary = _along_directions(kernels, frequencies)
    return torch.hypot(real, imaginary).mean(-1)


def at_frequencies(responses: Tensor, frequencies: Sequence[float] = FREQUENCIES) -> Tensor:
    """Responses between their nodes: ``(N, nodes)``, evenly from 0 to 0.5 cycles per pixel -> ``(N, K)``.

    Args:
        responses: at the nodes.
        frequencies: cycles per pixel, below 0.5.

    Raises:
        ShapeError: a frequency below 0, or from 0.5 on.
    """
    if not all(0 <= frequency < 0.5 for frequency in frequencies):
        raise ShapeError(f"at_frequencies: expected frequencies from 0 to below 0.5, got {tuple(frequencies)}")
    place = torch.tensor(frequencies, dtype=torch.float64) * (2 * (responses.shape[1] - 1))
    below = place.floor().long()
    return responses[:, below].lerp(responses[:, below + 1], (place - below).to(responses.dtype))


def _along_directions(kernels: Tensor, frequencies: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the response, each ``(N, K, directions)``."""
    place = torch.arange(kernels.shape[-1], dtype=torch.float64, device=kernels.device) - kernels.shape[-1] // 2
    angle = torch.arange(_DIRECTIONS, dtype=torch.float64, device=kernels.device) * (math.pi / _DIRECTIONS)
    turns = torch.tensor(frequencies, dtype=torch.float64, device=kernels.device)[:, None] * (2 * math.pi)
    row, column = ((turns * way)[..., None] * place for way in (angle.sin(), angle.cos()))  # (K, directions, S)
    flat = kernels.double()
    real, imaginary = (
        torch.einsum("nyx,kdyx->nkd", flat, wave(row[..., None] + column[..., None, :]))
        for wave in (torch.cos, torch.sin)
    )
    return real, imaginary


def radial_kernel(response: Tensor, side: int) -> Tensor:
    """The round kernel ``(side, side)`` float64, of the sum 1, that comes near a response.

    What the response has beyond ``side`` is cut off softly; the response asked for is moved against the error of that.

    Args:
        response: ``(K,)`` evenly from 0 to 0.5 cycles per pixel, 1 at the first; in the corners beyond 0.5 as at 0.5.
        side: odd.

    Raises:
        ShapeError: another side.
    """
    if side < 1 or side % 2 == 0:
        raise ShapeError(f"radial_kernel: side: expected an odd number of pixels, got {side}")
    asked = response.double()
    nodes = torch.linspace(0, 0.5, len(asked), dtype=torch.float64)
    kernel = _cut_transform(asked, side)
    for _ in range(_ROUNDS):
        found = _along_directions(kernel[None], nodes.tolist())[0][0].mean(-1)
        asked = asked + response - found
        kernel = _cut_transform(asked, side)
    return kernel


def _cut_transform(response: Tensor, side: int) -> Tensor:
    frequency = torch.fft.fftfreq(_GRID, dtype=torch.float64)
    place = torch.hypot(frequency[:, None], frequency).clamp(max=0.5) * (2 * (len(response) - 1))
    below = place.floor().long().clamp(max=len(response) - 2)
    share = place - below
    spectrum = response[below] * (1 - share) + response[below + 1] * share
    whole = torch.fft.fftshift(torch.fft.ifft2(spectrum).real)
    middle, half = _GRID // 2, side // 2
    window = torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1].sqrt()
    kernel = whole[middle - half : middle + half + 1, middle - half : middle + half + 1] * window[:, None] * window
    cut: Tensor = kernel / kernel.sum()
    return cut

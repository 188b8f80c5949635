"""Spectra of an image: how much of each frequency it shows, in brightness and in colour, without its noise.

Legend: K rings of frequencies, those of :func:`synthpipe.kernels.response_prior.nodes`; P planes, Rec. 601's luma and
its two differences of colour together; M places of a crop where least happens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.images import luma
from synthpipe.kernels.response_prior import NODES

__all__ = ["WINDOW_SIDE", "CropSpectra", "crop_spectra", "log_amplitudes"]

#: Side of a window in pixels: its rings are the nodes of a response.
WINDOW_SIDE = 2 * (NODES - 1)
#: Side of the small windows that noise is looked for in, their step, and the share of a crop's that is kept.
_FLAT_SIDE, _FLAT_STEP, _FLAT_SHARE = 16, 4, 0.06
#: Rings of a small window that tell how much happens there; what lies below the last is as the last.
_ACTIVITY = slice(1, 4)
#: Of what is kept of all crops of an image the flatter half, and at least so many, have the power of its noise.
_LEAST_PLACES = 4
#: Share of the power that is left where noise would take it all.
_LEAST_LEFT = 0.03
#: Least power, (1/255)^2 of a wave's share: below it there is no detail to tell anything.
_LEAST_POWER = (0.25 / 255) ** 2
#: Rings that powers are relative to, 0.05 to 0.12 cycles per pixel.
_BAND = slice(3, 9)


class CropSpectra(NamedTuple):
    """Of one crop, or whole image."""

    windows: int
    powers: Tensor  # (P, K): mean over the windows; white noise of standard deviation s has s^2 everywhere
    activity: Tensor  # (M,): of the flattest small windows
    flat: Tensor  # (P, M, K): their power


def crop_spectra(image: Tensor) -> CropSpectra:
    """Powers of windows that overlap by half or more, up to all borders, and of the flattest places.

    Args:
        image: ``(3, H, W)`` float in [0, 1], both sides at least :data:`WINDOW_SIDE`.

    Raises:
        ShapeError: another shape, or a smaller one.
    """
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < WINDOW_SIDE:
        raise ShapeError(f"crop_spectra: expected (3, H, W) of sides from {WINDOW_SIDE}, got {tuple(image.shape)}")
    image = image.float()
    grey = luma(image[None])[0, 0]
    # Differences of colour: blue and red against luma, as in Rec. 601.
    planes = torch.stack([grey, (image[2] - grey) / 1.772, (image[0] - grey) / 1.402])
    powers = _ring_powers(planes, WINDOW_SIDE, WINDOW_SIDE // 2)
    small = _ring_powers(planes, _FLAT_SIDE, _FLAT_STEP)
    activity = small[:, :, _ACTIVITY].sum((0, 2))
    least = activity.argsort(stable=True)[: max(int(_FLAT_SHARE * len(activity)), _LEAST_PLACES)]
    flat = F.interpolate(small[:, least], NODES, mode="linear", align_corners=True)
    # Below a few cycles per window content and mean are in the way: noise is as strong as where it can be seen.
    first = (_ACTIVITY.stop - 1) * WINDOW_SIDE // _FLAT_SIDE
    flat = torch.cat([flat[..., first : first + 1].expand(-1, -1, first), flat[..., first:]], -1)
    return CropSpectra(powers.shape[1], _luma_and_colour(powers.mean(1)), activity[least], _luma_and_colour(flat))


def log_amplitudes(crops: Sequence[CropSpectra]) -> Tensor:
    """Logarithm of an image's amplitudes without those of its noise, relative to a band: ``(P, K)`` float64.

    Planes without detail are NaN.

    Args:
        crops: of the image, at least one.

    Raises:
        ShapeError: none.
    """
    if not crops:
        raise ShapeError("log_amplitudes: expected at least one crop of the image, got none")
    weights = torch.tensor([crop.windows for crop in crops], dtype=torch.float64)
    powers = torch.stack([crop.powers for crop in crops]).double()
    powers = torch.einsum("n,npk->pk", weights / weights.sum(), powers)
    flattest = torch.cat([crop.activity for crop in crops]).argsort(stable=True)
    flattest = flattest[: max(len(flattest) // 2, _LEAST_PLACES)]
    noise = torch.cat([crop.flat for crop in crops], 1)[:, flattest].double().mean(1)
    left = torch.maximum(powers - noise, _LEAST_LEFT * powers)
    amplitudes = left.clamp(min=1e-30).log() / 2
    amplitudes = amplitudes - amplitudes[:, _BAND].mean(1, keepdim=True)
    nothing = left[:, _BAND].mean(1) < _LEAST_POWER
    told: Tensor = torch.where(nothing[:, None], torch.nan, amplitudes)
    return told


def _luma_and_colour(powers: Tensor) -> Tensor:
    """``(3, ...)`` -> ``(P, ...)``."""
    return torch.stack([powers[0], powers[1] + powers[2]])


def _ring_powers(planes: Tensor, side: int, step: int) -> Tensor:
    """``(C, windows, side / 2 + 1)``: mean power in each ring of Hann windows, without the windowed mean."""
    line = torch.hann_window(side)
    window = line[:, None] * line
    rows, columns = (_first_pixels(length, side, step) for length in planes.shape[1:])
    parts = planes.unfold(1, side, 1)[:, rows].unfold(2, side, 1)[:, :, columns]
    parts = parts.flatten(1, 2)  # (C, windows, side, side)
    mean = (parts * window).sum((2, 3), keepdim=True) / window.sum()
    power = torch.fft.fft2((parts - mean) * window).abs().square().flatten(2) / window.square().sum()
    frequency = torch.fft.fftfreq(side)
    ring = (torch.hypot(frequency[:, None], frequency) * side).round().long().flatten()
    inside = ring <= side // 2
    sums = power.new_zeros(*power.shape[:2], side // 2 + 1).index_add_(2, ring[inside], power[..., inside])
    means: Tensor = sums / torch.bincount(ring[inside], minlength=side // 2 + 1)
    return means


def _first_pixels(length: int, side: int, step: int) -> Tensor:
    """Where windows begin, at most ``step`` apart, so that the first and the last reach the borders."""
    return torch.linspace(0, length - side, math.ceil((length - side) / step) + 1).round().long()

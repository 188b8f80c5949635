"""What hand-made arms are fitted to: real pairs of the pile's scenes (an advantage), or the piles' average spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scenes import Pair
from torch import Tensor

from synthpipe.images import crop_to_multiple, downscale_bicubic, luma, to_float, to_uint8
from synthpipe.noise_fit import fit_coloured_noise, fit_gaussian
from synthpipe.noise_statistics import BRIGHTNESS_EDGES, LOCAL_MEAN_WINDOW, measure_noise

__all__ = ["average_kernel", "fitted_noise", "strength_bank"]

_WINDOW = 64
#: Windows of frames that noise is fitted to.
_MOST_WINDOWS = 60
#: Kernels of the bank that stands for every strength of one kernel.
_STRENGTHS = 31


def fitted_noise(pairs: Sequence[Pair], scale: int) -> dict[str, Any]:
    """``gaussian`` and ``coloured``: noise blocks of ``type: classical``, fitted to aligned pairs.

    At scale 1 residuals count at every pixel, as in the other recipes.  Above it LR and reduced HR differ by lost
    texture as well, which is no noise: there flat areas alone are measured.
    """
    if scale > 1:
        return _fitted_in_flat_areas([(lq, _reduced(gt, scale)) for lq, gt in pairs])
    pairs = pairs[:: max(1, len(pairs) // _MOST_WINDOWS)]
    coloured = asdict(fit_coloured_noise(pairs, LOCAL_MEAN_WINDOW))
    return {
        "gaussian": _gaussian(np.array(fit_gaussian(pairs, LOCAL_MEAN_WINDOW).covariance)),
        "coloured": {"type": "poisson_gaussian", **{key: np.array(value).tolist() for key, value in coloured.items()}},
    }


def _fitted_in_flat_areas(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Covariance; and its line over brightness, and a kernel of nine pixels with the correlation of neighbours."""
    flat = measure_noise(pairs, LOCAL_MEAN_WINDOW, flat_only=True)
    rg, gb, rb = flat.channel_correlation
    correlation = np.array([[1, rg, rb], [rg, 1, gb], [rb, gb, 1]])
    sigma = np.array(flat.sigma)
    levels = [(low + high) / 2 for low, high in pairwise(BRIGHTNESS_EDGES)]
    known = [(level, s**2) for level, s in zip(levels, flat.sigma_by_brightness, strict=True) if s is not None]
    slope, at_black = np.polyfit(*zip(*known, strict=True), 1) if len(known) > 1 else (0.0, known[0][1])
    share = sigma**2 / np.mean(sigma**2)  # of each channel
    rows, columns = (_side_weight(lag) for lag in (flat.lag1_v, flat.lag1_h))
    coloured = {
        "a": (slope * share).tolist(),
        "b": (at_black * share).tolist(),
        "correlation": correlation.tolist(),
        "kernel": np.outer([rows, 1, rows], [columns, 1, columns]).tolist(),
    }
    covariance = correlation * np.outer(sigma, sigma)
    return {"gaussian": _gaussian(covariance), "coloured": {"type": "poisson_gaussian", **coloured}}


def _side_weight(lag1: float) -> float:
    """t of a kernel (t, 1, t) whose noise has this correlation of neighbours, 2 t / (1 + 2 t^2); at most 0.7."""
    lag1 = min(max(lag1, 1e-6), 0.7)
    return (1 - np.sqrt(1 - 2 * lag1**2)) / (2 * lag1)


def _gaussian(covariance: NDArray[np.float64]) -> dict[str, Any]:
    return {"type": "gaussian", "covariance": covariance.tolist()}


def _reduced(x: Tensor, scale: int) -> Tensor:
    return to_uint8(downscale_bicubic(to_float(x[None]), scale).clamp(0, 1))[0]


# --- the prototype's kernel ---


def average_kernel(
    degraded: Sequence[Tensor], clean: Sequence[Tensor], scale: int, radius: int = 6
) -> NDArray[np.float64]:
    """One round kernel ``(2 radius + 1, 2 radius + 1)`` whose amplitude is the ratio of the piles' average spectra.

    Args:
        degraded: images ``(3, H, W)``, uint8.
        clean: the same, to be reduced by ``scale``.
        scale: HR side over LR side.
        radius: of the kernel, pixels; 6, the prototype's, flattens what a camera's sharpening raises.
    """
    reduced = [downscale_bicubic(crop_to_multiple(to_float(x[None]), scale), scale)[0] for x in clean]
    ratio = np.sqrt(_ring_power([to_float(x) for x in degraded]) / _ring_power(reduced))
    ratio /= ratio[3:7].mean()  # contrast and content differ, too: that is where no lens or sensor does anything
    ratio[:3] = 1
    ratio = ratio.clip(0.02, 1.5)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_WINDOW), np.fft.fftfreq(_WINDOW))) * _WINDOW
    amplitude = np.interp(frequency, np.arange(len(ratio)), ratio)
    middle = _WINDOW // 2
    kernel = np.fft.fftshift(np.fft.ifft2(amplitude).real)
    kernel = kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
    taper = np.hanning(2 * radius + 3)[1:-1]
    kernel = kernel * np.sqrt(np.outer(taper, taper))
    return kernel / kernel.sum()


def _ring_power(images: Sequence[Tensor]) -> NDArray[np.float64]:
    """Mean power of the half of all windows that has the most detail, by whole cycles per window, ``(33,)``."""
    hann = torch.hann_window(_WINDOW)
    spectra = []
    for image in images:
        windows = luma(image[None])[0, 0].unfold(0, _WINDOW, _WINDOW // 2).unfold(1, _WINDOW, _WINDOW // 2)
        windows = windows.reshape(-1, _WINDOW, _WINDOW)
        centred = windows - windows.mean((1, 2), keepdim=True)
        spectra.append(torch.fft.fft2(centred * (hann[:, None] * hann)).abs().square())
    power = torch.cat(spectra)
    energy = power[:, 2:8, 2:8].sum((1, 2))
    mean = power[energy >= energy.median()].mean(0).double().numpy()
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_WINDOW), np.fft.fftfreq(_WINDOW)))
    rings = np.rint(frequency * _WINDOW).astype(int)
    return np.array([mean[rings == ring].mean() for ring in range(_WINDOW // 2 + 1)])


def strength_bank(kernel: NDArray[np.float64], most: float, path: Path) -> Path:
    """Kernels ``(1 - t) identity + t kernel`` at t from 0 to ``most``: a file for the stage ``blur``, kind ``bank``."""
    identity = np.zeros_like(kernel)
    identity[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
    strengths = np.linspace(0, most, _STRENGTHS)[:, None, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, ((1 - strengths) * identity + strengths * kernel).astype(np.float32))
    return path

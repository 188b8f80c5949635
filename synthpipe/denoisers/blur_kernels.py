"""Blur kernels: Gaussian, camera motion, and the one of bicubic reduction.

A kernel is a float64 tensor ``(h, w)`` whose values sum to 1; blurring is a true convolution with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["bicubic_kernel", "check_kernel", "gaussian_kernel", "motion_kernel"]

#: How far the sum of a kernel may be from 1: what a kernel stored in float32 or with six decimals keeps.
_SUM_TOLERANCE = 1e-3
#: Steps of the camera's path.
_PATH_STEPS = 2000


def check_kernel(kernel: Tensor, odd: bool = True) -> None:
    """Refuse what is no kernel.

    Args:
        kernel: ``(h, w)``.
        odd: whether both sides must be odd, so that the middle is a pixel.

    Raises:
        ShapeError: another rank, an even side, NaN, or a sum that is not 1.
    """
    if kernel.ndim != 2 or not kernel.is_floating_point() or 0 in kernel.shape:
        raise ShapeError(f"kernel: expected floating-point (h, w), got {kernel.dtype} {tuple(kernel.shape)}")
    if odd and not (kernel.shape[0] % 2 and kernel.shape[1] % 2):
        raise ShapeError(
            f"kernel: expected odd sides, got {kernel.shape[0]}x{kernel.shape[1]}; append a row or column of zeros, "
            "or give the place of its centre"
        )
    total = float(kernel.sum())
    if not abs(total - 1) <= _SUM_TOLERANCE:
        raise ShapeError(f"kernel: expected values that sum to 1, got a sum of {total:.6g}; divide by it")


def gaussian_kernel(sigma: float, side: int | None = None) -> Tensor:
    """Isotropic Gaussian of ``sigma`` pixels, cut to ``side`` pixels (default: 4 ``sigma`` on each side).

    Returns:
        ``(side, side)`` float64, sums to 1.

    Raises:
        ShapeError: ``sigma`` is not positive, or ``side`` is even.
    """
    side = 2 * int(4 * sigma + 0.5) + 1 if side is None else side
    if not sigma > 0 or side < 1 or side % 2 == 0:
        raise ShapeError(f"gaussian_kernel: expected a positive sigma and an odd side, got sigma={sigma}, side={side}")
    offset = torch.arange(side, dtype=torch.float64) - side // 2
    line = (-0.5 * (offset / sigma) ** 2).exp()
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def motion_kernel(height: int, width: int, generator: torch.Generator) -> Tensor:
    """The trace of a shaking camera: a smooth random path, in the manner of the kernels of Levin et al. (2009).

    The path is an integrated Ornstein-Uhlenbeck velocity, scaled to fill the frame but for two pixels on each side,
    drawn with bilinear weights; its centre of mass is moved to the middle as far as whole pixels allow.

    Returns:
        ``(height, width)`` float64, sums to 1.

    Raises:
        ShapeError: a side is even or under 7.
    """
    if min(height, width) < 7 or height % 2 == 0 or width % 2 == 0:
        raise ShapeError(f"motion_kernel: expected odd sides of at least 7, got {height}x{width}")
    steps = torch.randn(_PATH_STEPS, 2, generator=generator, dtype=torch.float64)
    decay = 0.995 ** torch.arange(_PATH_STEPS, dtype=torch.float64)
    spectrum = torch.fft.rfft(steps, 2 * _PATH_STEPS, dim=0) * torch.fft.rfft(decay, 2 * _PATH_STEPS)[:, None]
    path = torch.fft.irfft(spectrum, 2 * _PATH_STEPS, dim=0)[:_PATH_STEPS].cumsum(0)
    low, high = path.min(0).values, path.max(0).values
    frame = torch.tensor([height, width], dtype=torch.float64)
    place = 2 + (path - low) / (high - low) * (frame - 5)  # in [2, side - 3]
    kernel = torch.zeros(height, width, dtype=torch.float64)
    floor, part = place.floor().long(), place - place.floor()
    for row in (0, 1):
        for column in (0, 1):
            weight = (part[:, 0] if row else 1 - part[:, 0]) * (part[:, 1] if column else 1 - part[:, 1])
            kernel.index_put_((floor[:, 0] + row, floor[:, 1] + column), weight, accumulate=True)
    kernel /= kernel.sum()
    return _centred(kernel)


def _centred(kernel: Tensor) -> Tensor:
    """Moved by whole pixels, without cutting anything off, so that the centre of mass is nearest to the middle."""
    shifts = []
    for dim in (0, 1):
        line = kernel.sum(1 - dim)
        used = line.nonzero().flatten()
        mean = float((line * torch.arange(len(line), dtype=line.dtype)).sum())
        wanted = round(len(line) // 2 - mean)
        shifts.append(max(-int(used[0]), min(wanted, len(line) - 1 - int(used[-1]))))
    return kernel.roll(shifts, (0, 1))


def bicubic_kernel(scale: int) -> tuple[Tensor, tuple[int, int]]:
    """Kernel and centre with which blurring and keeping each ``scale``-th pixel is antialiased bicubic reduction.

    Keys' cubic with a = -0.5, stretched by ``scale``: what :func:`synthpipe.images.downscale_bicubic` and MATLAB's
    ``imresize`` do, away from the border.  The kernel is ``(n, n)`` float64 and sums to 1.

    Raises:
        ShapeError: ``scale`` is under 1.
    """
    if scale < 1:
        raise ShapeError(f"bicubic_kernel: expected a scale of at least 1, got {scale}")
    # The low-resolution pixel lies at (scale - 1) / 2 of its block: offsets are halves where the scale is even.
    shift = (scale - 1) / 2
    reach = 2 * scale
    taps = torch.arange(-reach, reach + scale, dtype=torch.float64)  # positions of pixels from the block's first
    t = ((taps - shift) / scale).abs()
    inner = 1.5 * t**3 - 2.5 * t**2 + 1
    outer = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    line = torch.where(t <= 1, inner, torch.where(t < 2, outer, 0.0))
    used = line.nonzero().flatten()
    first, last = int(used[0]), int(used[-1])
    line = line[first : last + 1].flip(0)  # a convolution meets the pixels in reverse
    centre = int(taps[last])
    return torch.outer(line, line) / line.sum() ** 2, (centre, centre)

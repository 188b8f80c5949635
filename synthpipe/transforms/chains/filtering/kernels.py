"""Kernels by formula: what a chain's blur draws from.

All are float64, ``(B, side, side)`` with an odd ``side``, one of each sample, and sum to 1.  The Gaussian, generalized,
plateau and sinc kinds have the formulas of BasicSR's ``degradations.py``, in which Real-ESRGAN (Wang et al. 2021,
section 3.1 and 3.2) draws them.  Their centre of mass is the middle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "IN_PLACE",
    "box_kernels",
    "gaussian_line",
    "gaussian_shape",
    "generalized_shape",
    "lens_kernels",
    "lens_side",
    "motion_kernels",
    "motion_side",
    "off_centre",
    "plateau_shape",
    "sinc_kernels",
    "squared_distances",
    "unit_sum",
    "within",
]

#: Standard deviation below which a kernel is a point: of its neighbours, exp(-0.5e8) is left.
_LEAST_SIGMA = 1e-4
#: Pixels: a lens of this radius has one of the fine places within reach, as a triangle, too, however it is turned.
_LEAST_RADIUS = 0.125
#: Pixels from the middle at which a given kernel has its centre of mass, where content keeps its place.
IN_PLACE = 0.01
#: Places along a pixel at which a lens's edge is looked at.
_FINE = 4


def offsets(side: int, device: torch.device) -> Tensor:
    """``(side,)`` float64: pixels from the middle."""
    return torch.arange(side, dtype=torch.float64, device=device) - side // 2


def within(kernels: Tensor, size: Tensor) -> Tensor:
    """0 outside the middle ``size`` x ``size`` pixels, an odd number ``(B,)``."""
    inside = offsets(kernels.shape[-1], kernels.device).abs() <= (size // 2)[:, None]
    return torch.where(inside[:, :, None] & inside[:, None, :], kernels, 0)


def off_centre(kernels: Tensor) -> float:
    """The largest distance of a centre of mass from the middle, pixels; kernels with the sum 1."""
    place = offsets(kernels.shape[-1], kernels.device)
    x, y = (kernels * place).sum((1, 2)), (kernels * place[:, None]).sum((1, 2))
    return float(torch.hypot(x, y).max())


def unit_sum(kernels: Tensor) -> Tensor:
    """Scaled to the sum 1."""
    return kernels / kernels.sum((-2, -1), keepdim=True)


def squared_distances(side: int, sigma_x: Tensor, sigma_y: Tensor, angle: Tensor) -> Tensor:
    """``(B, side, side)``: x^T Sigma^-1 x of each pixel's place x.

    Args:
        side: of the kernels.
        sigma_x: ``(B,)`` float64, pixels: standard deviation along ``angle``.
        sigma_y: across it.
        angle: radians, from the direction of a row towards that of a column.
    """
    place = offsets(side, sigma_x.device)
    column, row = place[None, None, :], place[None, :, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along = (cos * column + sin * row) / sigma_x.clamp(min=_LEAST_SIGMA)[:, None, None]
    across = (cos * row - sin * column) / sigma_y.clamp(min=_LEAST_SIGMA)[:, None, None]
    return along.square() + across.square()


def gaussian_shape(distances: Tensor) -> Tensor:
    """exp(-d^2 / 2), of :func:`squared_distances`."""
    return (-0.5 * distances).exp()


def generalized_shape(distances: Tensor, beta: Tensor) -> Tensor:
    """exp(-d^(2 beta) / 2) (Pascal et al. 2013)."""
    return (-0.5 * distances.pow(beta[:, None, None])).exp()


def plateau_shape(distances: Tensor, beta: Tensor) -> Tensor:
    """1 / (1 + d^(2 beta))."""
    return (distances.pow(beta[:, None, None]) + 1).reciprocal()


def gaussian_line(side: int, sigma: float | Tensor) -> Tensor:
    """``(side,)`` float64: the factor of a round Gaussian kernel in each direction."""
    device = sigma.device if isinstance(sigma, Tensor) else torch.device("cpu")
    place = offsets(side, device)
    line = (-0.5 * (place / max(float(sigma), _LEAST_SIGMA)).square()).exp()
    return line / line.sum()


def sinc_kernels(side: int, size: Tensor, cutoff: Tensor) -> Tensor:
    """Round low-pass filters: w J1(w r) / (2 pi r), w^2 / (4 pi) in the middle.

    Args:
        side: of the result.
        size: ``(B,)``, odd: beyond it they are cut off.
        cutoff: w, radians for each pixel.
    """
    place = offsets(side, cutoff.device)
    distance = (place[:, None].square() + place.square()).sqrt()[None]
    cutoff = cutoff[:, None, None]
    ring = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * math.pi * distance.clamp(min=0.5))
    return unit_sum(within(torch.where(distance == 0, cutoff.square() / (4 * math.pi), ring), size))


def box_kernels(side: int, window: Tensor) -> Tensor:
    """Means of ``window`` x ``window`` pixels, an odd number ``(B,)``."""
    ones = torch.ones(len(window), side, side, dtype=torch.float64, device=window.device)
    return unit_sum(within(ones, window))


def lens_side(radius: Tensor, blades: int | None) -> Tensor:
    """Pixels, int64: the least side that holds a lens kernel; odd polygons are moved, and need one pixel more."""
    return (radius + 0.5).ceil().long() * 2 + (1 if blades is not None and blades % 2 else -1)


def motion_side(length: Tensor) -> Tensor:
    """Pixels, int64: the least side that holds a motion kernel."""
    return (length / 2).floor().long() * 2 + 3


def lens_kernels(side: int, radius: Tensor, blades: int | None, angle: Tensor) -> Tensor:
    """Images of a point out of focus: the share of each pixel that a disc or polygon covers, at 4x4 places in it.

    Args:
        side: of the result; at least :func:`lens_side`.
        radius: ``(B,)``, pixels: of a disc, or of the circle around a polygon.
        blades: corners of the polygon; None: a disc.
        angle: radians: how the polygon is turned.
    """
    # A smaller one lies between the fine places, and is a point like this one.
    radius = radius.clamp(min=_LEAST_RADIUS)
    place = (offsets(side * _FINE, radius.device) + 0.5) / _FINE
    column, row = place[None, None, :], place[None, :, None]
    if blades is None:
        return _shares(radius[:, None, None] - (column.square() + row.square()).sqrt())
    depth = radius.new_full((len(radius), side * _FINE, side * _FINE), math.inf)
    edge = (radius * math.cos(math.pi / blades))[:, None, None]
    for blade in range(blades):
        normal = (angle + 2 * math.pi * blade / blades)[:, None, None]
        depth = torch.minimum(depth, edge - normal.cos() * column - normal.sin() * row)
    return _centred(_shares(depth)) if blades % 2 else _shares(depth)


def motion_kernels(side: int, length: Tensor, angle: Tensor, shake: Tensor, bends: Tensor, points: int) -> Tensor:
    """Paths of a point during the exposure.

    The direction at time t in [0, 1] is ``angle`` + ``shake`` g(t), where g is a sum of four cosines of ``bends``
    whose amplitudes fall as 1/k, scaled so that its size is at most 1.  Each of ``points`` places is shared out
    bilinearly between four pixels, which keeps its place exactly, and their mean is the middle.

    Args:
        side: of the result; at least :func:`motion_side`.
        length: ``(B,)``, pixels.
        angle: radians.
        shake: radians.
        bends: ``(B, 4)`` in [-1, 1].
        points: places on the path; at least two for each pixel make it smooth.
    """
    time = (torch.arange(points, dtype=torch.float64, device=length.device) + 0.5) / points
    waves = [(math.pi * k * time).cos() / k for k in range(1, 5)]
    turn = sum((bends[:, k, None] * waves[k] for k in range(4)), torch.zeros_like(time)) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    direction = angle[:, None] + shake[:, None] * turn
    step = (length / points)[:, None]
    shares = []
    for course in (direction.sin(), direction.cos()):
        path = (step * course).cumsum(1)
        path = path - path.mean(1, keepdim=True)
        shares.append((1 - (path[:, :, None] - offsets(side, length.device)).abs()).clamp(min=0))  # (B, points, side)
    return shares[0].transpose(1, 2) @ shares[1] / points


def _shares(depth: Tensor) -> Tensor:
    """Of how far inside the fine places are, in pixels: the mean over each pixel, scaled to the sum 1."""
    batch, height, width = depth.shape
    soft = (depth * _FINE + 0.5).clamp(0, 1)
    return unit_sum(soft.reshape(batch, height // _FINE, _FINE, width // _FINE, _FINE).mean((2, 4)))


def _centred(kernels: Tensor) -> Tensor:
    """Moved by less than a pixel, so that the centre of mass is the middle; the outermost pixels must be 0.

    Each pixel is shared out bilinearly, which moves the first moment by as much as was asked for.
    """
    place = offsets(kernels.shape[-1], kernels.device)
    for dim in (-2, -1):
        line = place[:, None] if dim == -2 else place
        moment = (kernels * line).sum((-2, -1), keepdim=True)
        back, ahead = kernels.roll(-1, dim), kernels.roll(1, dim)
        kernels = (1 - moment.abs()) * kernels + moment.clamp(min=0) * back + (-moment).clamp(min=0) * ahead
    return kernels

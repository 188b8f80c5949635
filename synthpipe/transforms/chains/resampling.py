"""Weights of resampling along one axis: how much of each old pixel goes into each new one.

Pixel o of n new ones covers ``[o, o + 1) m / n`` of the m old ones, with the true ratio of sizes however they were
rounded: the ends of an image stay its ends, and content stays where it is.

Letters: B images, O new pixels, I old ones.  Filters go by the names of
:class:`synthpipe.config.stages.resize.ResizeFilters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Axis", "nearest", "reach", "resample_last", "weights"]


#: New pixels that are computed at once where an image is resampled for itself.
_BLOCK = 64


@dataclass(frozen=True)
class Axis:
    """One axis of images, before and after.

    Args:
        before: ``(B,)`` int64, old pixels.
        after: ``(B,)`` int64, new pixels.
    """

    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class _Kernel:
    """``at`` distances from 0 to ``radius``; 0 beyond it."""

    radius: int
    at: Callable[[Tensor], Tensor]


def _cubic(b: float, c: float) -> Callable[[Tensor], Tensor]:
    """Mitchell & Netravali 1988, "Reconstruction filters in computer graphics", equation 8."""

    def at(x: Tensor) -> Tensor:
        """Two pieces of a polynomial."""
        near = ((12 - 9 * b - 6 * c) * x + (-18 + 12 * b + 6 * c)) * x * x + (6 - 2 * b)
        far = (((-b - 6 * c) * x + (6 * b + 30 * c)) * x - (12 * b + 48 * c)) * x + (8 * b + 24 * c)
        return torch.where(x < 1, near, far) / 6

    return at


def _hamming(x: Tensor) -> Tensor:
    return torch.sinc(x) * (0.54 + 0.46 * (math.pi * x).cos())


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / 3)


_KERNELS: Mapping[str, _Kernel] = {
    "bilinear": _Kernel(1, lambda x: 1 - x),
    "hermite": _Kernel(1, _cubic(0, 0)),
    "hamming": _Kernel(1, _hamming),
    "mitchell": _Kernel(2, _cubic(1 / 3, 1 / 3)),
    "b_spline": _Kernel(2, _cubic(1, 0)),
    "gaussian": _Kernel(2, lambda x: (-2 * x * x).exp()),
    "lanczos": _Kernel(3, _lanczos),
}
# Keys' a is -0.5 in Pillow and in torch with antialias, -0.75 in OpenCV and in torch without.
_BICUBIC = {True: _Kernel(2, _cubic(0, 0.5)), False: _Kernel(2, _cubic(0, 0.75))}


def reach(name: str, antialias: bool, ratio: float) -> int:
    """How many old pixels on each side of a new one's centre can have a weight; ``ratio`` is old over new size."""
    if name in ("nearest", "area", "box"):
        return math.ceil(ratio) + 1
    stretch = max(ratio, 1.0) if antialias else 1.0
    return math.ceil(_kernel(name, antialias).radius * stretch) + 1


def nearest(new: Tensor, before: Tensor | int, after: Tensor | int) -> Tensor:
    """The old pixel that the centre of each new one lies in."""
    return (2 * new + 1) * before // (2 * after)


def weights(name: str, antialias: bool, axis: Axis, new: Tensor, old: Tensor) -> Tensor:
    """``(B, O, I)`` float32, of old pixels ``old`` ``(I,)`` in the new pixels ``new`` ``(O,)``, both int64.

    A row's sum is 1 where ``old`` holds all pixels within :func:`reach`.  Rows behind an image's last repeat it.
    """
    before, after = axis.before[:, None], axis.after[:, None]
    new = torch.minimum(new, after - 1)  # (B, O)
    if name == "nearest":
        return (nearest(new, before, after)[:, :, None] == old).float()
    if name == "area":
        begin, end = (new * before // after)[:, :, None], (-(-(new + 1) * before // after))[:, :, None]
        return ((old >= begin) & (old < end)).float() / (end - begin)
    ratio = before.double() / after
    centre = (new + 0.5) * ratio - 0.5  # in old pixels, from the centre of the first
    place = centre.floor()
    part = (centre - place).float()[:, :, None]
    # A whole number less a fraction: exact to 1e-7 of a pixel in float32, wherever it is.
    away = ((old - place.long()[:, :, None]) - part).abs()
    stretch = ratio.float()[:, :, None]
    if name == "box":
        return _normalised(((stretch + 1) / 2 - away).clamp(min=0).minimum(stretch.clamp(max=1)))
    kernel = _kernel(name, antialias)
    inside = old < before[:, :, None]
    if antialias:
        return _normalised(_value(kernel, away / stretch.clamp(min=1)) * inside)
    taps = torch.arange(1 - kernel.radius, 1 + kernel.radius, device=old.device)
    values, at = _value(kernel, (taps - part).abs()), place.long()[:, :, None] + taps  # (B, O, taps)
    # Beyond the border lies the border pixel again.
    low, high = (values * (at < 0)).sum(2, keepdim=True), (values * (at >= before[:, :, None])).sum(2, keepdim=True)
    found = _value(kernel, away) * inside + low * (old == 0) + high * (old == before[:, :, None] - 1)
    return found / values.sum(2, keepdim=True)


def resample_last(x: Tensor, name: str, antialias: bool, after: int) -> Tensor:
    """``(..., I)`` to ``(..., after)``; new pixels go in blocks, each from the old ones that it can reach."""
    before = x.shape[-1]
    ratio, margin = before / after, reach(name, antialias, before / after)
    axis = Axis(torch.tensor([before], device=x.device), torch.tensor([after], device=x.device))
    made = []
    for start in range(0, after, _BLOCK):
        end = min(start + _BLOCK, after)
        first, last = max(int(start * ratio) - margin, 0), min(math.ceil(end * ratio) + margin, before)
        new, old = torch.arange(start, end, device=x.device), torch.arange(first, last, device=x.device)
        matrix = weights(name, antialias, axis, new, old)[0]
        made.append(x[..., first:last] @ matrix.T)
    return torch.cat(made, -1)


def _kernel(name: str, antialias: bool) -> _Kernel:
    return _BICUBIC[antialias] if name == "bicubic" else _KERNELS[name]


def _value(kernel: _Kernel, away: Tensor) -> Tensor:
    return torch.where(away < kernel.radius, kernel.at(away), 0)


def _normalised(found: Tensor) -> Tensor:
    return found / found.sum(2, keepdim=True)

"""Resizing, to the LR size or by a drawn factor."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.stages.resize import ResizeFilters, ResizeStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, log_between, pick
from synthpipe.transforms.chains.resampling import Axis, nearest, resample_last, weights
from synthpipe.transforms.chains.srgb import decode_srgb, encode_srgb
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["FILTERS", "Resize"]

#: What the numbers of ``filter`` among the drawn settings mean.
FILTERS = tuple(ResizeFilters.model_fields)

#: Beyond this many pixels a side the factor is a mistake.
_LONGEST = 16384
#: Reductions beyond it are not the library's.
_FARTHEST = 32
#: Products that are whole numbers but for rounding are whole numbers.
_WHOLE = 1e-9


class Resize(Stage):
    """Each sample to its own size by its own filter.

    New sizes are ``floor(size * factor)``; what is resampled is the whole image onto the whole new one, so that nothing
    moves by that rounding.
    """

    numbers = 3
    words: ClassVar = {"filter": FILTERS}

    def __init__(self, options: ResizeStageOptions) -> None:
        super().__init__()
        self.options = options
        drawn = options.filter.drawn()
        self.aligned = "nearest" not in drawn
        self._weights = [drawn.get(name, 0.0) for name in FILTERS]
        self._used = [number for number, weight in enumerate(self._weights) if weight > 0]
        self._sides = _sides(options)

    def draw(self, u: Tensor) -> Params:
        """``factor``, and ``filter`` by its number in :data:`FILTERS`."""
        side = pick([weight for weight, _ in self._sides], u[:, 0])
        factor = torch.ones_like(u[:, 1])
        for number, (_, limits) in enumerate(self._sides):
            factor = torch.where(side == number, _factor(self.options.law, limits, u[:, 1]), factor)
        return {"factor": factor, "filter": pick(self._weights, u[:, 2])}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Two products with matrices of weights, one of each axis, which differ between the samples."""
        x = canvas.zeroed()
        x = decode_srgb(x) if self.options.linear_light else x
        base = context.lr if self.options.to == "lr" else Size(*canvas.pixels.shape[2:])
        sizes = (canvas.heights, canvas.widths)
        low, high = self._limits
        axes, most = [], []
        for now, of_lr, longest in zip(sizes, context.lr, base, strict=True):
            start = torch.full_like(now, of_lr) if self.options.to == "lr" else now
            most.append(max(_scaled(longest, high), 1))
            after = (start * params["factor"] + _WHOLE).floor().long().clamp(1, most[-1])
            axes.append(Axis(now, after))
        x = (
            self._matrix(axes[0], most[0], x.shape[2], params)
            @ x
            @ self._matrix(axes[1], most[1], x.shape[3], params).mT
        )
        x = encode_srgb(x) if self.options.linear_light else x
        one_size = low == high and (self.options.to == "lr" or canvas.height is None)
        return Canvas(x) if one_size else Canvas(x, axes[0].after, axes[1].after)

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """By the library where it has the filter."""
        name, factor = FILTERS[int(params["filter"])], float(params["factor"])
        base = context.lr if self.options.to == "lr" else Size(*x.shape[2:])
        size = Size(*(max(_scaled(side, factor), 1) for side in base))
        x = decode_srgb(x) if self.options.linear_light else x
        made = _resized(x, name, self.options.antialias, size)
        if name == "nearest" or not self.options.antialias:
            # NaN where no new pixel looks shows all the same, as it does in the canvas's products.
            made = made + 0 * x.sum()
        return encode_srgb(made) if self.options.linear_light else made

    def extent(self, before: Extent, lr: Size) -> Extent:
        """Between the ends of the factor's range; raises :class:`OptionError` for sides below 1 or above 16384."""
        low, high = self._limits
        start = Extent(lr, lr) if self.options.to == "lr" else before
        least = Size(*(_scaled(side, low) for side in start.least))
        most = Size(*(_scaled(side, high) for side in start.most))
        if min(least) < 1:
            raise OptionError(
                f"degrade: resize: a factor of {low:g} makes {tuple(least)} of {tuple(start.least)} pixels; raise the "
                f"low end of factor to {1 / min(start.least):.3g} or more, or take larger tiles"
            )
        if max(most) > _LONGEST:
            raise OptionError(
                f"degrade: resize: a factor of {high:g} makes {tuple(most)} of {tuple(start.most)} pixels, and "
                f"{_LONGEST} a side is the most; lower the high end of factor"
            )
        return Extent(least, most)

    @property
    def _limits(self) -> tuple[float, float]:
        """Least and greatest factor that can be drawn."""
        possible = [limits for weight, limits in self._sides if weight > 0]
        return min(low for low, _ in possible), max(high for _, high in possible)

    def _matrix(self, axis: Axis, most: int, width: int, params: Params) -> Tensor:
        """``(B, 1, most, width)``."""
        new, old = (torch.arange(count, device=axis.before.device) for count in (most, width))
        first, *others = self._used
        found = weights(FILTERS[first], self.options.antialias, axis, new, old)
        for number in others:
            other = weights(FILTERS[number], self.options.antialias, axis, new, old)
            found = torch.where((params["filter"] == number)[:, None, None], other, found)
        return found[:, None]


def _sides(options: ResizeStageOptions) -> list[tuple[float, tuple[float, float]]]:
    """Weights and ranges of enlarging, reducing, keeping, or the whole range."""
    low, high = options.factor
    if options.direction is None:
        return [(1.0, (low, high))]
    direction = options.direction
    return [(direction.up, (1.0, high)), (direction.down, (low, 1.0)), (direction.keep, (1.0, 1.0))]


def _factor(law: str, limits: tuple[float, float], u: Tensor) -> Tensor:
    low, high = limits
    if law == "log":
        return log_between(limits, u).clamp(low, high)
    if law == "inverse":
        return (1 / (u * (1 / low - 1 / high) + 1 / high)).clamp(low, high)
    return between(limits, u)


def _scaled(side: int, factor: float) -> int:
    return math.floor(side * factor + _WHOLE)


def _resized(x: Tensor, name: str, antialias: bool, size: Size) -> Tensor:
    """``(1, C, h, w)`` to ``size``, by the library where it has the filter."""
    if name in ("bilinear", "bicubic") and (not antialias or _right_in_torch(x, size)):
        return F.interpolate(x, size=size, mode=name, antialias=antialias)
    if name == "area":
        return F.interpolate(x, size=size, mode="area")
    if name == "nearest":
        rows, columns = (
            nearest(torch.arange(new, device=x.device), old, new) for new, old in zip(size, x.shape[2:], strict=True)
        )
        return x.index_select(2, rows).index_select(3, columns)
    x = resample_last(x, name, antialias, size.width)
    return resample_last(x.mT, name, antialias, size.height).mT.contiguous()


def _right_in_torch(x: Tensor, size: Size) -> bool:
    """Whether torch gets this right with antialias.

    To a width of 1 it mixes up rows and channels of contiguous images (2.13, CPU), and on CUDA it refuses reductions by
    about 90 (torchvision's issue 7671).
    """
    return size.width > 1 and max(x.shape[2] / size.height, x.shape[3] / size.width) <= _FARTHEST

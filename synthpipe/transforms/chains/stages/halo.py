"""Unsharp masking with overshoot."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from synthpipe.config.stages.halo import HaloStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.convolve import filter_canvas, filter_lines
from synthpipe.transforms.chains.filtering.kernels import (
    gaussian_line,
    gaussian_shape,
    squared_distances,
    unit_sum,
    within,
)
from synthpipe.transforms.chains.filtering.reach import check_reach
from synthpipe.transforms.chains.laws import between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["Halo"]

#: Standard deviations at which the Gaussian ends: 25 pixels at 8, as OpenCV's kernel of 51 pixels.
_REACH = 25 / 8


class Halo(Stage):
    """m s + (1 - m) x, with r = x - blur(x), s = x + amount r clipped to [0, 1], and m = blur(abs(r) > threshold).

    With its default settings it is the ``USMSharp`` of Real-ESRGAN (Wang et al. 2021, section 3.4); without a threshold
    the result is s.
    """

    numbers = 3

    def __init__(self, options: HaloStageOptions) -> None:
        super().__init__()
        self.options = options
        self._side = 2 * math.ceil(_REACH * options.sigma[1]) + 1

    def draw(self, u: Tensor) -> Params:
        """``amount``, ``sigma`` (pixels), and ``threshold`` (of 255), where there is one."""
        drawn = {"amount": between(self.options.amount, u[:, 0]), "sigma": between(self.options.sigma, u[:, 1])}
        if self.options.threshold is not None:
            drawn["threshold"] = between(self.options.threshold, u[:, 2])
        return drawn

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each with its own Gaussian."""
        sigma = params["sigma"]
        distances = squared_distances(self._side, sigma, sigma, torch.zeros_like(sigma))
        kernels = unit_sum(within(gaussian_shape(distances), (_REACH * sigma).ceil().long() * 2 + 1))
        blur = filter_canvas(canvas, kernels, "reflect").pixels
        sharp, mask = self._sharpened(canvas.pixels, blur, params)
        if mask is None:
            return canvas.holding(sharp)
        soft = filter_canvas(canvas.holding(mask), kernels, "reflect").pixels
        return canvas.holding(canvas.pixels + soft * (sharp - canvas.pixels))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """By Gaussians along rows and columns; none for the mask, where that is empty."""
        sigma = float(params["sigma"])
        line = gaussian_line(2 * math.ceil(_REACH * sigma) + 1, sigma)
        settings = {name: value.to(x.device) for name, value in params.items()}
        sharp, mask = self._sharpened(x, filter_lines(x, line, "reflect"), settings)
        if mask is None:
            return sharp
        if not bool(mask.any()):  # NaN is not 0
            return x
        return x + filter_lines(mask, line, "reflect") * (sharp - x)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` for images that the blur covers several times over."""
        check_reach("halo", self._side, "sigma", before)
        return before

    @staticmethod
    def _sharpened(x: Tensor, blur: Tensor, params: Params) -> tuple[Tensor, Tensor | None]:
        """What all pixels would be, and which of them shall be, 1 or 0."""
        rest = x - blur
        sharp = (x + params["amount"].to(x.dtype)[:, None, None, None] * rest).clamp(0, 1)
        if "threshold" not in params:
            return sharp, None
        return sharp, (rest.abs() * 255 > params["threshold"].to(x.dtype)[:, None, None, None]).to(x.dtype)

"""Over-smoothing, by the guided filter or a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synthpipe.config.stages.denoise import DenoiseStageOptions
from synthpipe.denoisers.base import Denoiser
from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.convolve import filter_canvas, filter_lines
from synthpipe.transforms.chains.filtering.kernels import box_kernels
from synthpipe.transforms.chains.filtering.reach import check_reach
from synthpipe.transforms.chains.laws import between, whole_between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["DenoiseStage"]


class DenoiseStage(Stage):
    """``x + strength (smooth(x) - x)``.

    The guided filter with the image as its own guide (He, Sun & Tang 2013, "Guided image filtering", equations 5, 6 and
    8), each channel for itself: a = v / (v + sigma^2) and b = (1 - a) m of the variance v and the mean m in a window
    of side 2 radius + 1; then mean(a) x + mean(b).

    Args:
        options: ranges.
        model: a denoiser in place of the guided filter.

    Raises:
        ShapeError: ``model`` is no denoiser.
    """

    numbers = 3

    def __init__(self, options: DenoiseStageOptions, model: nn.Module | None = None) -> None:
        super().__init__()
        if model is not None and not isinstance(model, Denoiser):
            raise ShapeError(f"DenoiseStage: expected a denoiser, got {type(model).__name__}")
        self.options = options
        self.model = model
        if model is not None:
            # On a CPU convolutions are faster in this order of memory.
            model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def draw(self, u: Tensor) -> Params:
        """``sigma`` ([0, 1] scale), ``strength``, and ``radius`` (pixels) of the guided filter."""
        drawn = {"sigma": between(self.options.sigma, u[:, 1]), "strength": between(self.options.strength, u[:, 2])}
        if self.model is None:
            drawn["radius"] = whole_between(self.options.radius, u[:, 0])
        return drawn

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Windows of all radii as kernels; of a network images of one size, which :meth:`extent` has made sure of."""
        x = canvas.pixels
        if self.model is not None:
            return Canvas(_mixed(x, self._of_network(self.model, x, params), params))
        kernels = box_kernels(2 * self.options.radius[1] + 1, 2 * params["radius"] + 1)
        first = filter_canvas(canvas.holding(torch.cat([x, x.square()], 1)), kernels, "reflect").pixels
        second = filter_canvas(canvas.holding(_line(first, params)), kernels, "reflect").pixels
        return canvas.holding(_mixed(x, _along(x, second), params))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """Windows along rows and columns."""
        settings = {name: value.to(x.device) for name, value in params.items()}
        if self.model is not None:
            return _mixed(x, self._of_network(self.model, x, settings), settings)
        side = 2 * int(params["radius"]) + 1
        window = torch.full((side,), 1 / side, dtype=torch.float64)
        first = filter_lines(torch.cat([x, x.square()], 1), window, "reflect")
        second = filter_lines(_line(first, settings), window, "reflect")
        return _mixed(x, _along(x, second), settings)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same.

        Raises:
            OptionError: images that the window covers several times over; of several sizes, for a network.
        """
        if self.model is None:
            check_reach("denoise", 2 * self.options.radius[1] + 1, "radius", before)
        elif before.least != before.most:
            raise OptionError(
                f"degrade: denoise with weights needs images of one size, and has {tuple(before.least)} to "
                f"{tuple(before.most)} at its place in the chain; put it behind {{type: resize, to: lr}}, or leave "
                "weights out for the guided filter"
            )
        return before

    @staticmethod
    def _of_network(model: Denoiser, x: Tensor, params: Params) -> Tensor:
        y: Tensor = model.compute(x.contiguous(memory_format=torch.channels_last), params["sigma"].to(x.dtype))
        return y.contiguous()


def _line(moments: Tensor, params: Params) -> Tensor:
    """a and b, one after the other in the channels, of the means of x and x^2."""
    mean, square = moments.chunk(2, 1)
    variance = (square - mean.square()).clamp(min=0)
    a = variance / (variance + params["sigma"].to(mean.dtype).square()[:, None, None, None])
    return torch.cat([a, (1 - a) * mean], 1)


def _along(x: Tensor, line: Tensor) -> Tensor:
    a, b = line.chunk(2, 1)
    return a * x + b


def _mixed(x: Tensor, smooth: Tensor, params: Params) -> Tensor:
    return x + params["strength"].to(x.dtype)[:, None, None, None] * (smooth - x)

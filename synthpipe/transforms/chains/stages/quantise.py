"""Rounding to few levels."""

from __future__ import annotations

from torch import Tensor

from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import whole_between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["Quantise"]


class Quantise(Stage):
    """``round(x (levels - 1)) / (levels - 1)`` of x clipped to [0, 1]."""

    numbers = 1

    def __init__(self, options: QuantiseStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``levels``."""
        return {"levels": whole_between(self.options.levels, u[:, 0])}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel for itself."""
        steps = (params["levels"] - 1).to(canvas.pixels.dtype)[:, None, None, None]
        return canvas.holding((canvas.pixels.clamp(0, 1) * steps).round() / steps)

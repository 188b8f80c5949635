"""How colourful an image is."""

from __future__ import annotations

from torch import Tensor

from synthpipe.config.stages.saturation import SaturationStageOptions
from synthpipe.images import luma
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["Saturation"]


class Saturation(Stage):
    """``y + factor (x - y)``, y the pixel's luma; nothing is clipped, so that the luma stays."""

    numbers = 1

    def __init__(self, options: SaturationStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``factor``."""
        return {"factor": between(self.options.factor, u[:, 0])}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel for itself."""
        grey = luma(canvas.pixels)
        factor = params["factor"].to(grey.dtype)[:, None, None, None]
        return canvas.holding(grey + factor * (canvas.pixels - grey))

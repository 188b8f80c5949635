"""Black point, white point and gamma."""

from __future__ import annotations

from torch import Tensor

from synthpipe.config.stages.levels import LevelsStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, log_between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["Levels"]


class Levels(Stage):
    """``a + (b - a) clip((x - black) / (white - black)) ^ (1 / gamma)``, a and b the new black and white."""

    numbers = 15

    def __init__(self, options: LevelsStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``in_black``, ``in_white``, ``gamma``, ``out_black``, ``out_white``, each of R, G, B ``(B, 3)``."""
        o = self.options
        # Three numbers for each setting; the first is that of all channels.
        of = u.view(len(u), 5, 3) if o.per_channel else u[:, 0::3, None].expand(-1, -1, 3)
        return {
            "in_black": between(o.in_black, of[:, 0]),
            "in_white": between(o.in_white, of[:, 1]),
            "gamma": log_between(o.gamma, of[:, 2]),
            "out_black": between(o.out_black, of[:, 3]),
            "out_white": between(o.out_white, of[:, 4]),
        }

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel for itself."""
        names = ("in_black", "in_white", "gamma", "out_black", "out_white")
        p = {name: params[name].to(canvas.pixels.dtype)[:, :, None, None] for name in names}
        x = ((canvas.pixels - p["in_black"]) / (p["in_white"] - p["in_black"])).clamp(0, 1)
        if self.options.gamma != (1.0, 1.0):
            x = x ** (1 / p["gamma"])
        return canvas.holding(p["out_black"] + (p["out_white"] - p["out_black"]) * x)

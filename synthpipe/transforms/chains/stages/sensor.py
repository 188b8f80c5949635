"""Noise like that of a camera that nobody has measured."""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.config.stages.noise import SensorStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.gaussian_field import blurred_field, field_margin
from synthpipe.transforms.chains.laws import between, log_between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["SensorNoise"]

_SHARED, _OWN = range(2)
#: Brightnesses at which sigma is drawn: 0, 1/3, 2/3 and 1.
_KNOTS = 4


class SensorNoise(Stage):
    """``x + sigma c f(x) (sqrt(s) n_0 + sqrt(1 - s) n_c)``, clipped to [0, 1], in channel ``c`` at brightness ``x``.

    ``f`` is a curve through four drawn points whose greatest is 1; ``n_0`` is the same in all channels, ``n_c`` each
    channel's own; both are normal fields of variance 1, blurred by Gaussians of two widths.  So channels correlate by
    ``s``, and what they share and what they do not may be grains of different size, as demosaicing and the chroma
    filters of cameras leave them.
    """

    numbers = 4 + _KNOTS + 3

    def __init__(self, options: SensorStageOptions) -> None:
        super().__init__()
        self.options = options
        self._margins = (field_margin(options.luma_width[1]), field_margin(options.chroma_width[1]))

    def draw(self, u: Tensor) -> Params:
        """``sigma``, ``shared``, ``luma_width``, ``chroma_width``; ``curve`` ``(B, 4)``; ``channels`` ``(B, 3)``."""
        o = self.options
        curve = between((o.weakest, 1.0), u[:, 4 : 4 + _KNOTS])
        return {
            "sigma": log_between(o.sigma, u[:, 0]),
            "shared": between(o.shared, u[:, 1]),
            "luma_width": between(o.luma_width, u[:, 2]),
            "chroma_width": between(o.chroma_width, u[:, 3]),
            "curve": curve / curve.amax(1, keepdim=True),
            "channels": between(o.channels, u[:, 4 + _KNOTS :]),
        }

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel by its own brightness."""
        x = canvas.pixels
        wide = {name: value.to(x.dtype)[..., None, None] for name, value in params.items()}
        shared = wide["shared"][:, None]
        field = shared.sqrt() * self._field(_SHARED, x, params["luma_width"], context)
        field = field + (1 - shared).sqrt() * self._field(_OWN, x, params["chroma_width"], context)
        sigma = wide["sigma"][:, None] * wide["channels"] * _on_curve(x, wide["curve"])
        return canvas.holding((x + sigma * field).clamp(0, 1))

    def _field(self, purpose: int, x: Tensor, widths: Tensor, context: Context) -> Tensor:
        """``(B, 1 or 3, H, W)``."""
        margin, count = self._margins[purpose], 1 if purpose == _SHARED else 3
        height, width = (side + 2 * margin for side in x.shape[2:])
        return blurred_field(context.normals(count, height, width, purpose), widths, margin, alone=False)


def _on_curve(x: Tensor, curve: Tensor) -> Tensor:
    """Straight lines through ``curve`` ``(B, 4, 1, 1)`` at 0, 1/3, 2/3 and 1, at the places ``x`` ``(B, 3, H, W)``."""
    place = x.clamp(0, 1) * (_KNOTS - 1)
    value = torch.zeros_like(x)
    for knot in range(_KNOTS):
        value = value + (1 - (place - knot).abs()).clamp(min=0) * curve[:, knot : knot + 1]
    return value

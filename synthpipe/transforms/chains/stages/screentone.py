"""Halftone dots."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from synthpipe.config.stages.screentone import ScreentoneKinds, ScreentoneStageOptions
from synthpipe.errors import OptionError
from synthpipe.images import luma
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, pick
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["KINDS", "Screentone"]

#: What the numbers of ``kind`` among the drawn settings mean.
KINDS = tuple(ScreentoneKinds.model_fields)
_LUMA, _RGB, _CMYK = range(3)
#: Of cyan, magenta, yellow and black, in degrees.
_ANGLES = (15.0, 75.0, 0.0, 45.0)
_KNOTS = 1024


class Screentone(Stage):
    """Ink where the screen ``s = (cos 2 pi u + cos 2 pi v) / 2`` is above a threshold, u and v in turned periods.

    The threshold is the quantile of ``s`` above which as much of the area lies as there is to be ink, so that tones
    stay what they are on average.
    """

    numbers = 7
    words: ClassVar = {"kind": KINDS}
    quantiles: Tensor

    def __init__(self, options: ScreentoneStageOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("quantiles", torch.from_numpy(_screen_quantiles()).float(), persistent=False)

    def draw(self, u: Tensor) -> Params:
        """``kind`` by number, ``period`` and ``softness`` in pixels, ``angle`` in degrees, ``strength``, ``phase``."""
        o = self.options
        return {
            "kind": pick(list(o.kinds.weights().values()), u[:, 0]),
            "period": between(o.period, u[:, 1]),
            "angle": between(o.angle, u[:, 2]),
            "softness": between(o.softness, u[:, 3]),
            "strength": between(o.strength, u[:, 4]),
            "phase": u[:, 5:7],
        }

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel for itself, by its place in the image."""
        kinds = self.options.kinds
        return canvas.holding(
            self._printed(canvas.pixels, params, kinds.rgb + kinds.cmyk > 0, kinds.luma + kinds.cmyk > 0)
        )

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """With the screens of the inks that there are."""
        kind = int(params["kind"])
        settings = {name: value.to(x.device) for name, value in params.items()}
        return self._printed(x, settings, kind != _LUMA, kind != _RGB)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` where not one period has room."""
        if self.options.period[1] > min(before.least):
            raise OptionError(
                f"degrade: screentone: a period of up to {self.options.period[1]:g} pixels is more than images of "
                f"{tuple(before.least)} have, the smallest at its place in the chain; make it at most "
                f"{min(before.least)}"
            )
        return before

    def _printed(self, x: Tensor, params: Params, coloured: bool, black: bool) -> Tensor:
        seen = x.clamp(0, 1)
        made = torch.ones_like(x)
        kind = params["kind"][:, None, None, None]
        inks = 1 - seen  # cyan, magenta, yellow
        key = torch.where(kind == _LUMA, 1 - luma(seen), torch.where(kind == _RGB, 0, inks.amin(1, keepdim=True)))
        if coloured:
            # What black does not cover; nothing where it is all black, or where there is nothing but black.
            left = torch.where(kind == _LUMA, 0, (inks - key) / (1 - key).clamp(min=1e-6))
            made = 1 - self._screened(left, params, _ANGLES[:3])
        if black:
            made = made * (1 - self._screened(key, params, _ANGLES[3:]))
        made = x + params["strength"].to(x.dtype)[:, None, None, None] * (made - x)
        return torch.where(x.isnan(), x, made)

    def _screened(self, ink: Tensor, params: Params, angles: tuple[float, ...]) -> Tensor:
        """``(B, L, H, W)``: dots of ``ink`` in [0, 1], a screen at its own angle for each layer."""
        period, softness = (params[name].float()[:, None, None, None] for name in ("period", "softness"))
        screen = torch.cat([self._screen(ink, params, angle) for angle in angles], 1)
        # By how much the screen changes over the width of a dot's edge.
        width = softness * math.pi / period
        place = (1 - ink.nan_to_num(0)) * _KNOTS
        knot = place.long().clamp(0, _KNOTS - 1)
        low, high = self.quantiles[knot], self.quantiles[knot + 1]
        threshold = low + (high - low) * (place - knot)
        # At the ends of the scale half an edge beyond the screen, so that white has no dots and black no holes.
        threshold = threshold * (1 + width / 2 * threshold**4)
        return (0.5 + (screen - threshold) / width).clamp(0, 1)

    @staticmethod
    def _screen(x: Tensor, params: Params, own: float) -> Tensor:
        """``(B, 1, H, W)`` in [-1, 1]."""
        turned = (params["angle"] + own) * (math.pi / 180)
        frequency = 1 / params["period"]
        along, across = (frequency * turned.cos()).float(), (frequency * turned.sin()).float()
        row, column = (torch.arange(side, device=x.device).float() for side in x.shape[2:])
        along, across = along[:, None, None], across[:, None, None]
        phase = params["phase"].float()[:, :, None, None]
        u = column * along + row[:, None] * across + phase[:, 0]
        v = row[:, None] * along - column * across + phase[:, 1]
        return (((2 * math.pi) * u).cos() + ((2 * math.pi) * v).cos())[:, None] / 2


def _screen_quantiles() -> np.ndarray:
    """``(knots + 1,)`` float64: at k / knots the value below which that share of the screen's area lies."""
    values = np.linspace(-1, 1, 2 * _KNOTS + 1)
    line = np.cos((np.arange(_KNOTS) + 0.5) * np.pi / _KNOTS)
    share = 1 - np.arccos(np.clip(2 * values[:, None] - line, -1, 1)).mean(1) / np.pi
    return np.interp(np.linspace(0, 1, _KNOTS + 1), share, values)

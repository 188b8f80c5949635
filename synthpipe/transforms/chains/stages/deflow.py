"""A trained DeFlow as one stage among others, at the size that the image has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from synthpipe.errors import OptionError, ShapeError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.flows.pile_levels import AskedLevel
from synthpipe.images import quantize_8bit
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["DeFlowStage"]


class DeFlowStage(Stage):
    """The image, rounded to 8 bits, as the noisy domain would have shown it.

    Args:
        model: a trained DeFlow.
        strength: see :meth:`synthpipe.flows.DeFlow.degrade`; ``(low, high)``: drawn uniformly.
        condition_dtype: see :class:`synthpipe.flows.FrozenDeFlow`.
        level: see :class:`synthpipe.flows.AskedLevel`.

    Raises:
        ShapeError: ``model`` is no trained DeFlow, or ``level`` does not fit it.
    """

    numbers = 1

    def __init__(
        self,
        model: nn.Module,
        strength: float | Sequence[float] = 1.0,
        condition_dtype: torch.dtype | None = None,
        level: float | Sequence[float] | Literal["pile"] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, DeFlow) or not model.initialized:
            raise ShapeError(f"DeFlowStage: expected a trained DeFlow, got {type(model).__name__}")
        self.frozen = FrozenDeFlow(model, condition_dtype)
        low, high = (strength, strength) if isinstance(strength, int | float) else strength
        self._limits = (float(low), float(high))
        #: Which levels are asked for.
        self.asked = AskedLevel(self.frozen, level)
        self.numbers = 1 + self.asked.drawn

    def draw(self, u: Tensor) -> Params:
        """``strength``; and ``level``, in units of sigma of 255, where the weights know it."""
        drawn = {"strength": between(self._limits, u[:, 0])}
        level = self.asked.draw(u[:, 1]) if self.asked.drawn else None
        return drawn if level is None else {**drawn, "level": 255 * level}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """On images of one size, which :meth:`extent` has made sure of."""
        noise = SeededNoise(context.seeds, context.place)
        level = params["level"].float() / 255 if self.asked.drawn else None
        return Canvas(self.frozen.degrade_with(quantize_8bit(canvas.pixels), noise, self._strength(params), level))

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` for images of several sizes."""
        if before.least != before.most:
            raise OptionError(
                f"degrade: deflow needs images of one size, and has {tuple(before.least)} to {tuple(before.most)} at "
                "its place in the chain; put it behind {type: resize, to: lr}"
            )
        return before

    def _strength(self, params: Params) -> float | Tensor:
        return self._limits[0] if self._limits[0] == self._limits[1] else params["strength"].float()

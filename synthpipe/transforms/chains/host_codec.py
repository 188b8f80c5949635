"""Stages whose codec runs on the host alone."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.levels import from_levels, to_levels
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["HostCodec"]


class HostCodec(Stage):
    """Images are clipped, rounded to 8 bits, and coded in threads that leave the interpreter free."""

    capturable = False
    threaded = True
    #: What an option file calls the codec, and the longest side of its images.
    name: str
    longest_side: int

    @abstractmethod
    def coded(self, levels: np.ndarray, params: Params) -> np.ndarray:
        """One image ``(h, w, 3)`` uint8 as it comes back."""

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """On any device, by way of the host; a NaN is handed on."""
        levels = to_levels(x)
        return x if levels is None else from_levels(self.coded(levels, params), x)

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Not possible."""
        raise NotImplementedError(f"{self.name} works image by image")

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` for sides that the codec cannot take."""
        if max(before.most) > self.longest_side:
            raise OptionError(
                f"degrade: {self.name} takes images of at most {self.longest_side} pixels a side and has "
                f"{tuple(before.most)} there; make tiles smaller, or reduce the image before"
            )
        return before

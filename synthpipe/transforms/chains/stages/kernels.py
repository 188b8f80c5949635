"""Learned blur: one kernel of a bank for each sample, at a strength of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError
from synthpipe.images import luma
from synthpipe.kernels.bank import KernelBank, at_strength
from synthpipe.kernels.sharpening import sharpening_part
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.convolve import filter_canvas, filter_image
from synthpipe.transforms.chains.filtering.kernels import IN_PLACE, off_centre
from synthpipe.transforms.chains.filtering.reach import check_reach
from synthpipe.transforms.chains.laws import between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["KernelsStage"]


class KernelsStage(Stage):
    """x + t (k * x - x): k of the bank, t of the range; beyond the image lies its mirror.

    Where the bank has kernels of colour, k is for luma, and they are for the rest of the image, x - luma(x).

    Args:
        model: a bank.
        strength: ``(low, high)`` of t.
        sharpening: ``(low, high)`` of what k raises (:func:`sharpening_part`), drawn for itself; None: as t.
        chroma: ``(low, high)`` of the kernels of colour, drawn for itself; None: as t.

    Raises:
        ShapeError: ``model`` is no bank, or has no kernels of colour where ``chroma`` asks for them.
        CheckpointError: its kernels or weights are none; see :meth:`KernelBank.check`.
    """

    numbers = 3

    kernels: Tensor
    rising: Tensor
    sharpening: Tensor | None
    chroma: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        strength: Sequence[float] = (0.0, 1.5),
        sharpening: Sequence[float] | None = None,
        chroma: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, KernelBank):
            raise ShapeError(f"KernelsStage: expected a KernelBank, got {type(model).__name__}")
        model.check()
        low, high = strength
        self._limits = (float(low), float(high))
        kernels = model.kernels.detach().clone()
        raising = None
        if sharpening is not None:
            raising = sharpening_part(kernels)
            kernels = kernels.double() - raising
            self._sharpening_limits = (float(sharpening[0]), float(sharpening[1]))
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("sharpening", raising, persistent=False)
        self._chroma_limits = None if chroma is None else (float(chroma[0]), float(chroma[1]))
        if chroma is not None:
            if model.chroma is None:
                raise ShapeError(
                    f"KernelsStage: chroma {list(chroma)}: this bank has no kernels of colour; leave the option out, "
                    "or estimate a bank with `chroma: true`"
                )
            self.numbers = 4
        self.register_buffer("chroma", None if model.chroma is None else model.chroma.detach().clone(), False)
        shares = model.shares().cumsum(0)
        self.register_buffer("rising", shares / shares[-1], persistent=False)
        self.aligned = off_centre(self.kernels.double()) * self._limits[1] <= IN_PLACE
        if self.chroma is not None:
            most = (self._chroma_limits or self._limits)[1]
            self.aligned = self.aligned and off_centre(self.chroma.double()) * most <= IN_PLACE

    def draw(self, u: Tensor) -> Params:
        """``index`` of the kernel in the bank, ``strength``, and what is drawn apart of the rest, all ``(B,)``."""
        index = torch.searchsorted(self.rising, u[:, 0].contiguous(), right=True)
        drawn = {"index": index.clamp(max=len(self.kernels) - 1), "strength": between(self._limits, u[:, 1])}
        if self.sharpening is not None:
            drawn["sharpening"] = between(self._sharpening_limits, u[:, 2])
        if self._chroma_limits is not None:
            drawn["chroma"] = between(self._chroma_limits, u[:, 3])
        return drawn

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each with its own kernel."""
        if self.chroma is None:
            return filter_canvas(canvas, self._drawn(params), "reflect")
        grey, colour = _apart(canvas.pixels)
        grey = filter_canvas(canvas.holding(grey), self._drawn(params), "reflect").pixels
        return canvas.holding(
            grey + filter_canvas(canvas.holding(colour), self._drawn_chroma(params), "reflect").pixels
        )

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """One image by one kernel; as it is at the strength 0."""
        if self.chroma is None:
            return filter_image(x, self._drawn(params)[0], "reflect")
        grey, colour = _apart(x)
        grey = filter_image(grey, self._drawn(params)[0], "reflect")
        return grey + filter_image(colour, self._drawn_chroma(params)[0], "reflect")

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` for images that the kernels cover several times over."""
        check_reach("kernels", self.kernels.shape[-1], "a smaller side when they are estimated", before)
        return before

    def _drawn(self, params: Params) -> Tensor:
        device = self.kernels.device
        index = params["index"].to(device)
        drawn = at_strength(self.kernels.index_select(0, index), params["strength"].to(device))
        if self.sharpening is None:
            return drawn
        share = params["sharpening"].to(device, torch.float64)[:, None, None]
        return drawn + share * self.sharpening.index_select(0, index)

    def _drawn_chroma(self, params: Params) -> Tensor:
        assert self.chroma is not None
        device = self.chroma.device
        strength = params["strength" if self._chroma_limits is None else "chroma"]
        return at_strength(self.chroma.index_select(0, params["index"].to(device)), strength.to(device))


def _apart(x: Tensor) -> tuple[Tensor, Tensor]:
    """Luma ``(B, 1, H, W)``, and what is left of R, G and B, ``(B, 3, H, W)``: a mixture of Cb and Cr."""
    grey = luma(x)
    return grey, x - grey

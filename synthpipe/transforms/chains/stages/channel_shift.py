"""Channels that move against each other."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.stages.channel_shift import ChannelShiftKinds, ChannelShiftStageOptions
from synthpipe.errors import OptionError
from synthpipe.images import luma
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, pick, whole_between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["KINDS", "ChannelShift"]

#: What ``kind`` counts from 0.
KINDS = tuple(ChannelShiftKinds.model_fields)
_ONE, _TWO, _CHROMA = range(3)


class ChannelShift(Stage):
    """Moves channels by Keys' cubic, a = -0.5; beyond the border lies the border pixel again.

    Chroma is what a pixel is more than its luma, in R, G and B: to move that is to move Cb and Cr.
    """

    numbers = 6
    words: ClassVar = {"kind": KINDS}
    aligned = False

    def __init__(self, options: ChannelShiftStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``kind`` (in :data:`KINDS`) and pixels ``x`` and ``y`` of R, G, B ``(B, 3)``, 0 where one stays."""
        kind = pick(list(self.options.kinds.weights().values()), u[:, 0])
        singled = whole_between((0, 2), u[:, 1])  # the one that moves, or that stays of two that do
        channel = torch.arange(3, device=u.device)
        is_it = channel == singled[:, None]
        moves = torch.where(kind[:, None] == _TWO, ~is_it, is_it | (kind[:, None] == _CHROMA))
        # Of two that move, the later one takes the second pair of numbers.
        second = (kind[:, None] == _TWO) & (channel == torch.where(singled == 2, 1, 2)[:, None])
        shifts = {}
        for name, limits, first in (("x", self.options.x, 2), ("y", self.options.y, 3)):
            drawn = between(limits, torch.where(second, u[:, first + 2, None], u[:, first, None]))
            shifts[name] = torch.where(moves, drawn, 0)
        return {"kind": kind, **shifts}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """By four taps along each axis."""
        x = canvas.pixels
        moved = _taken(_taken(x, 2, params["y"], canvas.heights), 3, params["x"], canvas.widths)
        if self.options.kinds.chroma > 0:
            chroma = (params["kind"] == _CHROMA)[:, None, None, None]
            moved = torch.where(chroma, luma(x) + moved - luma(moved), moved)
        return canvas.holding(moved)

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """As :meth:`on_canvas`, each channel by slices."""
        down, right = params["y"][0].tolist(), params["x"][0].tolist()
        planes = [_sliced(_sliced(x[:, c : c + 1], 2, down[c]), 3, right[c]) for c in range(3)]
        moved = torch.cat(planes, 1)
        return luma(x) + moved - luma(moved) if int(params["kind"]) == _CHROMA else moved

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` where a channel could leave the image."""
        for name, side, limits in (
            ("x", before.least.width, self.options.x),
            ("y", before.least.height, self.options.y),
        ):
            farthest = max(map(abs, limits))
            if farthest >= side:
                raise OptionError(
                    f"degrade: channel_shift: {name} of up to {farthest:g} pixels moves channels out of images of "
                    f"{tuple(before.least)}, the smallest at its place in the chain; make it less than {side}"
                )
        return before


def _weights(part: Tensor) -> Tensor:
    """``(..., 4)``: of the pixels at -1, 0, 1 and 2 for a place between those at 0 and 1."""
    t, s = part, 1 - part
    a, b = t * s * s / 2, t * t * s / 2
    return torch.stack([-a, s * s * (1 + 2 * t) + b, t * t * (1 + 2 * s) + a, -b], -1)


def _taken(x: Tensor, dim: int, shift: Tensor, sides: Tensor) -> Tensor:
    """``(B, C, H, W)``, each channel moved along ``dim`` by its own ``shift`` ``(B, C)``."""
    whole = (-shift).floor()
    weights = _weights(-shift - whole).to(x.dtype)
    place = torch.arange(x.shape[dim], device=x.device) + whole.long()[:, :, None]  # (B, C, side)
    last = sides[:, None, None] - 1
    total = torch.zeros_like(x)
    for tap in range(4):
        index = torch.minimum((place + tap - 1).clamp(min=0), last)
        index = index[:, :, :, None] if dim == 2 else index[:, :, None, :]
        total = total + weights[:, :, tap, None, None] * x.gather(dim, index.expand(x.shape))
    return total


def _sliced(x: Tensor, dim: int, shift: float) -> Tensor:
    """``(1, 1, h, w)`` moved along ``dim``."""
    if shift == 0:
        return x
    whole = math.floor(-shift)
    before, after, side = max(1 - whole, 0), max(whole + 2, 0), x.shape[dim]
    padded = F.pad(x, (0, 0, before, after) if dim == 2 else (before, after, 0, 0), mode="replicate")
    weights = _weights(torch.tensor(-shift - whole, dtype=torch.float64)).tolist()
    begin = before + whole - 1
    return sum((padded.narrow(dim, begin + tap, side) * weight for tap, weight in enumerate(weights)), torch.zeros(()))

"""Blocks of one colour."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.config.stages.pixelate import PixelateKinds, PixelateStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import pick, whole_between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["KINDS", "Pixelate"]

#: What ``kind`` counts from 0.
KINDS = tuple(PixelateKinds.model_fields)

_NEAREST = KINDS.index("nearest")


class Pixelate(Stage):
    """Each block has the mean colour of its pixels, or that of the one in its middle.

    Where the blocks begin is drawn for each sample, so that on average over the samples content stays where it is: it
    is :attr:`aligned` in that sense, while one edge lies up to half a block off.  The middle of an even block is no
    pixel; where such a pixel may be drawn, the stage is not aligned.
    """

    numbers = 4
    words: ClassVar = {"kind": KINDS}

    def __init__(self, options: PixelateStageOptions) -> None:
        super().__init__()
        self.options = options
        low, high = options.block
        self.aligned = options.kinds.nearest == 0 or (low == high and low % 2 == 1)

    def draw(self, u: Tensor) -> Params:
        """``kind`` (in :data:`KINDS`), ``block`` (pixels), ``begin`` ``(B, 2)`` (pixels that the first block lacks)."""
        block = whole_between(self.options.block, u[:, 1])
        begin = (u[:, 2:4] * block[:, None]).floor().long().minimum(block[:, None] - 1)
        return {
            "kind": pick(list(self.options.kinds.weights().values()), u[:, 0]),
            "block": block,
            "begin": begin,
        }

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Means by running sums, for blocks of any size."""
        means = middles = canvas.pixels
        for dim, sides in ((2, canvas.heights), (3, canvas.widths)):
            first, middle, end = _blocks(canvas.pixels.shape[dim], sides, params["block"], params["begin"][:, dim - 2])
            means = _means(means, first, end, dim)
            middles = _taken(middles, middle, dim)
        return canvas.holding(torch.where((params["kind"] == _NEAREST)[:, None, None, None], middles, means))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """Means by pooling."""
        block, (top, left) = int(params["block"]), params["begin"][0].tolist()
        height, width = x.shape[2:]
        rows, columns = ((torch.arange(n, device=x.device) + b) // block for n, b in ((height, top), (width, left)))
        if int(params["kind"]) == _NEAREST:
            rows = (rows * block - top + block // 2).clamp(0, height - 1)
            columns = (columns * block - left + block // 2).clamp(0, width - 1)
            return x[:, :, rows][..., columns]
        around = (left, -(left + width) % block, top, -(top + height) % block)
        sums = F.avg_pool2d(F.pad(x, around), block, divisor_override=1)
        counts = (
            torch.bincount(places, minlength=n) for places, n in ((rows, sums.shape[2]), (columns, sums.shape[3]))
        )
        vertical, horizontal = counts
        means = sums / (vertical[:, None] * horizontal).to(x.dtype)
        return means[:, :, rows][..., columns]


def _blocks(length: int, sides: Tensor, block: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(B, length)`` each: of a pixel's block the first, the middle and one behind the last, all within the image."""
    place, last = torch.arange(length, device=sides.device)[None], (sides - 1)[:, None]
    block, begin = block[:, None], begin[:, None]
    start = (place.minimum(last) + begin) // block * block - begin
    first, end = start.clamp(min=0), (start + block).minimum(sides[:, None])
    return first, (start + block // 2).clamp(min=0).minimum(last), end


def _means(x: Tensor, first: Tensor, end: Tensor, dim: int) -> Tensor:
    """Over places first..end - 1 of ``dim``; sums in float64, so that long ones stay exact."""
    beyond = [0, 0, 0, 0]
    beyond[6 - 2 * dim] = 1
    sums = F.pad(x.double().cumsum(dim), beyond)
    counts = (end - first).view([len(x), 1, *([-1, 1] if dim == 2 else [1, -1])])
    return ((_taken(sums, end, dim) - _taken(sums, first, dim)) / counts).to(x.dtype)


def _taken(x: Tensor, places: Tensor, dim: int) -> Tensor:
    """What stands at ``places`` ``(B, length)`` of ``dim``."""
    shape = list(x.shape)
    shape[dim] = places.shape[1]
    return x.gather(dim, places.view([len(x), 1, *([-1, 1] if dim == 2 else [1, -1])]).expand(shape))

"""JPEG compression."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthpipe.config.stages.jpeg import JpegStageOptions
from synthpipe.errors import OptionError
from synthpipe.files.codecs.jpeg import jpeg_round_trip
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, pick, whole_between
from synthpipe.transforms.chains.levels import from_levels, to_levels
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage
from synthpipe.transforms.libjpeg import LibjpegRoundTrip

__all__ = ["Jpeg"]

_PASSES = 3  # at most
_SHIFT = 7  # pixels, at most
_LONGEST_SIDE = 65500  # libjpeg's


class Jpeg(Stage):
    """JPEG and back, once or more, with the pixels of libjpeg-turbo.

    On the CPU images go through libjpeg-turbo itself; elsewhere, and on a canvas, through tensor operations that give
    the same bits.  They are not those of BasicSR's ``DiffJPEG``, which takes qualities that are no whole numbers, has
    the table of luma transposed, rounds coefficients alone, and repeats chroma where libjpeg interpolates it.
    """

    #: Quality and sampling of three passes, how many passes, and shifts down and right before the last two.
    numbers = 2 * _PASSES + 1 + 2 * (_PASSES - 1)
    threaded = True

    def __init__(self, options: JpegStageOptions) -> None:
        super().__init__()
        self.options = options
        self.samplings = tuple(options.sampling)
        self.codec = LibjpegRoundTrip(self.samplings)

    def draw(self, u: Tensor) -> Params:
        """``quality`` and ``sampling`` (the number 420, 422, ...) of the first pass.

        Where there may be more, also ``times``, how many, and ``quality_2``, ``sampling_2``, ``shift_y_2`` and
        ``shift_x_2`` (pixels that the grid moves down and right) of the second, and so on; all ``(B,)`` int64.
        """
        most = self.options.times[1]
        drawn = {"times": whole_between(self.options.times, u[:, 2 * _PASSES])} if most > 1 else {}
        for number in range(most):
            name = _suffix(number)
            drawn[f"quality{name}"] = self._quality(u[:, number])
            drawn[f"sampling{name}"] = self._sampling(u[:, _PASSES + number])
            if number:
                place = 2 * _PASSES + 2 * number - 1
                drawn[f"shift_y{name}"] = whole_between((0, _SHIFT), u[:, place])
                drawn[f"shift_x{name}"] = whole_between((0, _SHIFT), u[:, place + 1])
        return drawn

    def unused(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """What passes have that this sample does not go through."""
        later = [_suffix(number) for number in range(drawn.get("times", 1), _PASSES)]
        return [name for name in drawn if any(name.endswith(suffix) for suffix in later)]

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """All passes for all samples; those that drew fewer keep the earlier result."""
        result = self._coded(canvas, params, "")
        for number in range(1, self.options.times[1]):
            name = _suffix(number)
            down, right = params[f"shift_y{name}"], params[f"shift_x{name}"]
            coded = self._coded(_moved(result, down, right), params, name)
            back = result.holding(_taken(coded.pixels, down, right, *canvas.pixels.shape[2:]))
            result = back.where(params["times"] > number, result)
        return result

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """By libjpeg-turbo on the CPU; a NaN is handed on."""
        if x.device.type != "cpu":
            return super().on_image(x, params, context)
        levels = to_levels(x)
        if levels is None:
            return x
        for quality, sampling, down, right in self._passes(params):
            if down or right:
                levels = np.pad(levels, ((down, 0), (right, 0), (0, 0)), mode="edge")
            levels = jpeg_round_trip(levels, quality, sampling)[down:, right:]
        return from_levels(levels, x)

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same; raises :class:`OptionError` for sides that a JPEG file cannot have."""
        longest = max(before.most) + (_SHIFT if self.options.times[1] > 1 else 0)
        if longest > _LONGEST_SIDE:
            raise OptionError(
                f"degrade: jpeg takes images of at most {_LONGEST_SIDE} pixels a side and has {tuple(before.most)} "
                "there; make tiles smaller, or reduce the image before"
            )
        return before

    def _quality(self, u: Tensor) -> Tensor:
        low, high = self.options.quality
        if self.options.law == "whole":
            return whole_between((low, high), u)
        return between((low, high), u).round().to(torch.int64)

    def _sampling(self, u: Tensor) -> Tensor:
        """The number that is the sampling's name."""
        picked = pick(list(self.options.sampling.values()), u)
        names = torch.full_like(picked, int(self.samplings[0]))
        for number, name in enumerate(self.samplings[1:], 1):
            names = torch.where(picked == number, int(name), names)
        return names

    def _coded(self, canvas: Canvas, params: Params, name: str) -> Canvas:
        return self.codec(canvas, params[f"quality{name}"], params[f"sampling{name}"])  # type: ignore[no-any-return]

    def _passes(self, params: Params) -> Iterator[tuple[int, str, int, int]]:
        """Quality, sampling and shifts down and right of each pass of one sample."""
        for number in range(int(params["times"]) if "times" in params else 1):
            name = _suffix(number)
            down, right = (int(params[f"shift_{axis}{name}"]) if number else 0 for axis in "yx")
            yield int(params[f"quality{name}"]), str(int(params[f"sampling{name}"])), down, right


def _suffix(number: int) -> str:
    return f"_{number + 1}" if number else ""


def _moved(canvas: Canvas, down: Tensor, right: Tensor) -> Canvas:
    """Each image lower and further right, its first row and column repeated before it; ``(B,)`` int64 each."""
    height, width = canvas.pixels.shape[2:]
    pixels = _taken(canvas.pixels, -down, -right, height + _SHIFT, width + _SHIFT)
    return Canvas(pixels, canvas.heights + down, canvas.widths + right)


def _taken(pixels: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """``(B, C, height, width)`` from ``top`` and ``left`` of each image on, border pixels repeated."""
    rows = torch.arange(height, device=top.device) + top[:, None]
    columns = torch.arange(width, device=left.device) + left[:, None]
    rows, columns = rows.clamp(0, pixels.shape[2] - 1), columns.clamp(0, pixels.shape[3] - 1)
    batch, channels, _, wide = pixels.shape
    taken = pixels.gather(2, rows[:, None, :, None].expand(-1, channels, -1, wide))
    return taken.gather(3, columns[:, None, None, :].expand(batch, channels, height, -1))

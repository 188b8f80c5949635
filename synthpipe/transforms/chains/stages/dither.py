"""Few colours, with dithering between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from synthpipe.config.stages.dither import DitherKinds, DitherPalettes, DitherStageOptions
from synthpipe.files.codecs.palette import in_palette, median_cut
from synthpipe.images import divide_by_255, luma, to_uint8
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import between, pick, whole_between
from synthpipe.transforms.chains.stage import Context, Params, Stage
from synthpipe.transforms.chains.thresholds import bayer_thresholds, blue_noise_thresholds

__all__ = ["KINDS", "PALETTES", "Dither"]

#: What the numbers of ``kind`` and ``palette`` among the drawn settings mean.
KINDS, PALETTES = tuple(DitherKinds.model_fields), tuple(DitherPalettes.model_fields)
_BLUE_SIDE = 64
_WEB_LEVELS = 6


class Dither(Stage):
    """``floor(x (levels - 1) + t) / (levels - 1)`` of x clipped to [0, 1], t a threshold in (0, 1), 1/2 without dither.

    With a palette made for the image, thresholds move its pixels by as much as levels of such a number of colours are
    apart, and the nearest colour is taken.
    """

    numbers = 6
    words: ClassVar = {"kind": KINDS, "palette": PALETTES}
    bayer: Tensor
    blue: Tensor

    def __init__(self, options: DitherStageOptions) -> None:
        super().__init__()
        self.options = options
        # Errors go right and down: an edge shows before its place (measured in the test).
        self.aligned = not options.kinds.floyd_steinberg
        self.capturable = not (options.kinds.floyd_steinberg or options.palettes.median_cut)
        bayer = torch.from_numpy(bayer_thresholds(options.bayer_size)).float()
        blue = torch.from_numpy(blue_noise_thresholds(_BLUE_SIDE)).float() if options.kinds.blue_noise else bayer
        self.register_buffer("bayer", bayer, persistent=False)
        self.register_buffer("blue", blue, persistent=False)

    def draw(self, u: Tensor) -> Params:
        """``kind`` and ``palette`` by number, ``colours``, ``levels``, ``strength``, and the grid's place."""
        o = self.options
        palette = pick(list(o.palettes.weights().values()), u[:, 1])
        colours = whole_between(o.colours, u[:, 2])
        cube = (colours.double() ** (1 / 3) + 1e-9).floor().long().clamp(min=2)
        cube = torch.where(palette == PALETTES.index("web"), _WEB_LEVELS, cube)
        return {
            "kind": pick(list(o.kinds.weights().values()), u[:, 0]),
            "palette": palette,
            "colours": torch.where(palette < PALETTES.index("grey"), cube**3, colours),
            "levels": torch.where(palette == PALETTES.index("grey"), colours, cube),
            "strength": between(o.strength, u[:, 3]),
            "row": (u[:, 4] * _BLUE_SIDE).long(),
            "column": (u[:, 5] * _BLUE_SIDE).long(),
        }

    def unused(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """The place of a grid that there is not, and the strength of thresholds; levels where the palette has none."""
        kind = drawn["kind"]
        if kind in ("bayer", "blue_noise"):
            return ()
        if kind == "white_noise":
            return {"row", "column"}
        return {"row", "column", "strength"} | ({"levels"} if drawn["palette"] == "median_cut" else set())

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Each pixel for itself."""
        if not self.capturable:
            raise NotImplementedError("dither by error diffusion or in a palette of the image's own: image by image")
        x = self._in_colour(canvas.pixels, params).clamp(0, 1)
        steps = (params["levels"] - 1).to(x.dtype)[:, None, None, None]
        return canvas.holding((x * steps + self._thresholds(x, params, context)).floor() / steps)

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """By Pillow where thresholds are not enough."""
        settings = {name: value.to(x.device) for name, value in params.items()}
        own, diffused = (int(params[name]) == number for name, number in _ON_HOST.items())
        seen = self._in_colour(x, settings).clamp(0, 1)
        steps = int(params["levels"]) - 1
        if not own and not diffused:
            return (seen * steps + self._thresholds(seen, settings, context)).floor() / steps
        levels = _on_host(seen)
        palette = median_cut(levels, int(params["colours"])) if own else _lattice(int(params["levels"]), params)
        if not diffused:
            levels = _on_host(seen + (self._thresholds(seen, settings, context) - 0.5) / steps)
        made = torch.from_numpy(in_palette(levels, palette, diffused)).to(x.device)
        return torch.where(x.isnan(), x, divide_by_255(made.permute(2, 0, 1)[None].float()))

    def _in_colour(self, x: Tensor, params: Params) -> Tensor:
        """The image, grey where the palette is."""
        if not self.options.palettes.grey:
            return x
        grey = (params["palette"] == PALETTES.index("grey"))[:, None, None, None]
        return torch.where(grey, luma(x), x)

    def _thresholds(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """``(B, 1 or 3, H, W)``."""
        height, width = x.shape[2:]
        offset = torch.zeros(1, 1, 1, 1, device=x.device)
        for name, grid in (("bayer", self.bayer), ("blue_noise", self.blue)):
            if getattr(self.options.kinds, name):
                rows, columns = (
                    (torch.arange(side, device=x.device) + params[key][:, None]) % len(grid)
                    for side, key in ((height, "row"), (width, "column"))
                )
                drawn = grid[rows[:, :, None], columns[:, None, :]][:, None] - 0.5
                offset = self._where(params, name, drawn, offset)
        if self.options.kinds.white_noise:
            drawn = context.uniforms(3, height, width) - 0.5
            offset = self._where(params, "white_noise", drawn, offset)
        return offset * params["strength"].to(x.dtype)[:, None, None, None] + 0.5

    @staticmethod
    def _where(params: Params, kind: str, drawn: Tensor, other: Tensor) -> Tensor:
        return torch.where((params["kind"] == KINDS.index(kind))[:, None, None, None], drawn, other)


_ON_HOST = {"palette": PALETTES.index("median_cut"), "kind": KINDS.index("floyd_steinberg")}


def _on_host(x: Tensor) -> np.ndarray:
    """``(1, 3, h, w)`` to ``(h, w, 3)`` uint8; NaN is black."""
    levels: np.ndarray = to_uint8(x.nan_to_num(0)[0]).permute(1, 2, 0).contiguous().cpu().numpy()
    return levels


def _lattice(levels: int, params: Params) -> np.ndarray:
    """``(n, 3)`` uint8: a uniform palette, or one of greys."""
    line = np.round(np.linspace(0, 255, levels)).astype(np.uint8)
    if int(params["palette"]) == PALETTES.index("grey"):
        return np.stack([line] * 3, 1)
    return np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)

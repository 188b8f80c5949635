"""Two fields of a video in one image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from synthpipe.config.stages.interlace import InterlaceKinds, InterlaceStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.laws import pick, whole_between
from synthpipe.transforms.chains.stage import Context, Params, Stage

__all__ = ["KINDS", "Interlace"]

#: What ``kind`` counts from 0.
KINDS = tuple(InterlaceKinds.model_fields)

_COMBING, _DOUBLING = 0, 1


class Interlace(Stage):
    """Every second line moved sideways, border pixels going on; or the line above (the first: below) in its place."""

    numbers = 3
    words: ClassVar = {"kind": KINDS}
    aligned = False

    def __init__(self, options: InterlaceStageOptions) -> None:
        super().__init__()
        self.options = options

    def draw(self, u: Tensor) -> Params:
        """``kind`` (its number in :data:`KINDS`), ``field`` (0 or 1: which lines are at fault), ``shift`` (pixels)."""
        kind = pick(list(self.options.kinds.weights().values()), u[:, 0])
        shift = whole_between(self.options.shift, u[:, 2])
        return {"kind": kind, "field": whole_between((0, 1), u[:, 1]), "shift": torch.where(kind == _COMBING, shift, 0)}

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Both faults are a change of each pixel's place."""
        batch, channels, height, width = canvas.pixels.shape
        rows, columns = (torch.arange(side, device=canvas.pixels.device) for side in (height, width))
        at_fault = rows[None] % 2 == params["field"][:, None]  # (B, H)
        doubled = at_fault & (params["kind"] == _DOUBLING)[:, None]
        # Above it; of the first line, below it, where there is a second.
        other = (rows - 1).abs()[None].minimum(canvas.heights[:, None] - 1)
        taken = torch.where(doubled, other, rows[None])
        x = canvas.pixels.gather(2, taken[:, None, :, None].expand(batch, channels, height, width))
        moved = torch.where(at_fault, params["shift"][:, None], 0)  # 0 where lines are doubled
        place = columns[None, None] - moved[:, :, None]
        place = torch.where(
            moved[:, :, None] == 0, columns, place.clamp(min=0).minimum(canvas.widths[:, None, None] - 1)
        )
        return canvas.holding(x.gather(3, place[:, None].expand(batch, channels, height, width)))

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """One fault."""
        field, shift = int(params["field"]), int(params["shift"])
        made = x.clone()
        if int(params["kind"]) == _DOUBLING:
            rows = torch.arange(field, x.shape[2], 2, device=x.device)
            made[:, :, field::2] = x[:, :, (rows - 1).abs().clamp(max=x.shape[2] - 1)]
        else:
            columns = (torch.arange(x.shape[3], device=x.device) - shift).clamp(0, x.shape[3] - 1)
            made[:, :, field::2] = x[:, :, field::2][..., columns]
        return made

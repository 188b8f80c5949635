"""Whole images through a network that only fits tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["apply_tiled"]


def apply_tiled(run: Callable[[Tensor, int], Tensor], x: Tensor, tile: int, overlap: int, multiple: int = 1) -> Tensor:
    """Apply ``run`` to overlapping tiles and put their inner parts side by side.

    Every output pixel comes from exactly one tile: blending two tiles would average their noise and leave a grid of
    weaker noise.  A network whose reach is at most ``overlap`` gives what it would give for the whole image.

    Args:
        run: ``(tile (1, C, h, w), index) -> (1, C, h, w)``; the index is the tile's own number, for its randomness.
        x: ``(1, C, H, W)``.
        tile: longest side of a tile, overlap included; an image within it is one tile, index 0.
        overlap: pixels seen beyond the part that is kept, on each inner side.
        multiple: tiles begin at multiples of this, so that a network that squeezes sees its usual grid.

    Raises:
        ShapeError: ``tile`` leaves nothing between its overlaps, or ``run`` changed the size.
    """
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    index = 0
    for top, bottom, outer_top, outer_bottom in _spans(height, tile, overlap, multiple):
        for left, right, outer_left, outer_right in _spans(width, tile, overlap, multiple):
            source = x[..., outer_top:outer_bottom, outer_left:outer_right]
            result = run(source, index)
            if result.shape != source.shape:
                raise ShapeError(f"apply_tiled: a tile {tuple(source.shape)} came back as {tuple(result.shape)}")
            inner = result[..., top - outer_top : bottom - outer_top, left - outer_left : right - outer_left]
            out[..., top:bottom, left:right] = inner
            index += 1
    return out


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """(begin, end, outer begin, outer end) of each tile along one side."""
    if length <= tile:
        return [(0, length, 0, length)]
    before = -(-overlap // multiple) * multiple
    core = (tile - before - overlap) // multiple * multiple
    if core < 1:
        raise ShapeError(
            f"apply_tiled: a tile of {tile} leaves nothing between overlaps of {overlap} at multiples of {multiple}; "
            "take a larger tile"
        )
    begins = list(range(0, length, core))
    spans = [(b, min(b + core, length)) for b in begins]
    return [(b, e, max(0, b - before), min(length, e + overlap)) for b, e in spans]

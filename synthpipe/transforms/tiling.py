"""Whole images through a network that only fits tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["apply_tiled"]


class _Span(NamedTuple):
    """Along one side: what a tile gives, and what it sees."""

    begin: int
    end: int
    outer_begin: int
    outer_end: int


def apply_tiled(
    run: Callable[[Tensor, int], Tensor],
    x: Tensor,
    tile: int,
    overlap: int,
    multiple: int = 1,
    *,
    blend: bool = False,
) -> Tensor:
    """Apply ``run`` to overlapping tiles and put their inner parts side by side, or blend them.

    A network whose reach is at most ``overlap`` gives what it would give for the whole image.  Of one that reaches
    farther, tiles disagree, and side by side they leave seams: ``blend`` then goes over from one tile to the next in
    linear ramps as wide as they overlap.  Do not blend what is random in each tile: averages of two tiles would leave
    a grid of weaker noise.

    Args:
        run: ``(tile (B, C, h, w), index) -> (B, C, h, w)``; the index is the tile's own number, for its randomness.
        x: ``(B, C, H, W)``.
        tile: longest side of a tile, overlap included; an image within it is one tile, index 0.
        overlap: pixels seen beyond the part that is kept, on each inner side.
        multiple: tiles begin at multiples of this, so that a network that squeezes sees its usual grid.
        blend: see above.

    Raises:
        ShapeError: ``tile`` leaves nothing between its overlaps, or ``run`` changed the size.
    """
    rows, columns = (_spans(side, tile, overlap, multiple) for side in x.shape[-2:])
    if not blend:
        out = torch.empty_like(x)
        for row, column, result in _results(run, x, rows, columns):
            top, left = row.begin - row.outer_begin, column.begin - column.outer_begin
            inner = result[..., top : top + row.end - row.begin, left : left + column.end - column.begin]
            out[..., row.begin : row.end, column.begin : column.end] = inner
        return out
    out = torch.zeros_like(x)
    total = x.new_zeros(x.shape[-2:])
    for row, column, result in _results(run, x, rows, columns):
        weight = _ramp(row, rows, x)[:, None] * _ramp(column, columns, x)
        place = (..., slice(row.outer_begin, row.outer_end), slice(column.outer_begin, column.outer_end))
        out[place] += weight * result
        total[place] += weight
    return out / total


def _results(
    run: Callable[[Tensor, int], Tensor], x: Tensor, rows: list[_Span], columns: list[_Span]
) -> Iterator[tuple[_Span, _Span, Tensor]]:
    for number, row in enumerate(rows):
        for place, column in enumerate(columns):
            source = x[..., row.outer_begin : row.outer_end, column.outer_begin : column.outer_end]
            result = run(source, number * len(columns) + place)
            if result.shape != source.shape:
                raise ShapeError(f"apply_tiled: a tile {tuple(source.shape)} came back as {tuple(result.shape)}")
            yield row, column, result


def _ramp(span: _Span, spans: list[_Span], x: Tensor) -> Tensor:
    """``(outer size,)``: rises where the tile before ends, falls where the next begins, 1 between; never 0."""
    place = torch.arange(span.outer_begin, span.outer_end, dtype=x.dtype, device=x.device) + 0.5
    weight = torch.ones_like(place)
    number = spans.index(span)
    if number > 0:
        width = spans[number - 1].outer_end - span.outer_begin
        weight = torch.minimum(weight, (place - span.outer_begin) / max(width, 1))
    if number + 1 < len(spans):
        width = span.outer_end - spans[number + 1].outer_begin
        weight = torch.minimum(weight, (span.outer_end - place) / max(width, 1))
    return weight


def _spans(length: int, tile: int, overlap: int, multiple: int) -> list[_Span]:
    """The tiles along one side."""
    if length <= tile:
        return [_Span(0, length, 0, length)]
    before = -(-overlap // multiple) * multiple
    core = (tile - before - overlap) // multiple * multiple
    if core < 1:
        raise ShapeError(
            f"apply_tiled: a tile of {tile} leaves nothing between overlaps of {overlap} at multiples of {multiple}; "
            "take a larger tile"
        )
    return [
        _Span(begin, min(begin + core, length), max(0, begin - before), min(length, begin + core + overlap))
        for begin in range(0, length, core)
    ]

"""A grid of image crops with titles, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from synthpipe.errors import ShapeError

__all__ = ["draw_grid"]

_GUTTER = 4
_TITLE_SIZE = 15
_TITLE_HEIGHT = 22
_PAPER = 255
_INK = (40, 40, 40)


def draw_grid(titles: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]], zoom: int = 4) -> NDArray[np.uint8]:
    """Lay crops out in rows and titled columns.

    Args:
        titles: one per column.
        rows: each as many images as there are titles, all ``(h, w, 3)`` uint8 of one size.
        zoom: each pixel becomes a square of this many, so that noise is seen as it is.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ShapeError: no rows, or images that do not fit the grid.
    """
    if not rows or zoom < 1:
        raise ShapeError(f"draw_grid: expected at least one row and zoom >= 1, got {len(rows)} rows, zoom {zoom}")
    shape = rows[0][0].shape
    for number, row in enumerate(rows):
        if len(row) != len(titles) or any(cell.shape != shape or cell.dtype != np.uint8 for cell in row):
            found = [(cell.shape, str(cell.dtype)) for cell in row]
            raise ShapeError(f"draw_grid: row {number}: expected {len(titles)} images {shape} uint8, got {found}")
    height, width = shape[0] * zoom, shape[1] * zoom
    grid = np.full(
        (_TITLE_HEIGHT + len(rows) * (height + _GUTTER), len(titles) * (width + _GUTTER) - _GUTTER, 3),
        _PAPER,
        np.uint8,
    )
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            y, x = _TITLE_HEIGHT + r * (height + _GUTTER), c * (width + _GUTTER)
            grid[y : y + height, x : x + width] = cell.repeat(zoom, 0).repeat(zoom, 1)
    return _write_titles(grid[: -_GUTTER or None], titles, width)


def _write_titles(grid: NDArray[np.uint8], titles: Sequence[str], width: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(grid)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TITLE_SIZE)
    for column, title in enumerate(titles):
        draw.text((column * (width + _GUTTER) + 2, _TITLE_HEIGHT // 2), title, fill=_INK, font=font, anchor="lm")
    return np.array(picture)

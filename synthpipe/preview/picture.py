"""A grid of image crops with titles, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from synthpipe.errors import ShapeError

__all__ = ["Cell", "draw_grid"]

_GUTTER = 4
_TITLE_SIZE = 15
_TITLE_HEIGHT = 22
_PAPER = 255
_INK = (40, 40, 40)


#: In the place of an image that is not there.
_NO_IMAGE = "not drawn"
_PALE = 232

#: An image, or none.
Cell = NDArray[np.uint8] | None


def draw_grid(
    titles: Sequence[str], rows: Sequence[Sequence[Cell]], zoom: int = 4, no_image: str = _NO_IMAGE
) -> NDArray[np.uint8]:
    """Lay crops out in rows and titled columns.

    Args:
        titles: one per column; what does not fit over a column loses its beginning.
        rows: each as many images as there are titles, ``(h, w, 3)`` uint8 of the first one's size, or of ``zoom`` times
            that size already; None, but for the first, where there is none.
        zoom: each pixel becomes a square of this many, so that noise is seen as it is.
        no_image: what is written where there is none.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ShapeError: no rows, or images that do not fit the grid.
    """
    if not rows or zoom < 1:
        raise ShapeError(f"draw_grid: expected at least one row and zoom >= 1, got {len(rows)} rows, zoom {zoom}")
    first = rows[0][0]
    if first is None:
        raise ShapeError("draw_grid: the first image of the first row gives the size, and is None")
    shape = first.shape
    height, width = shape[0] * zoom, shape[1] * zoom
    for number, row in enumerate(rows):
        if len(row) != len(titles) or not all(_fits(cell, shape, zoom) for cell in row):
            found = [None if cell is None else (cell.shape, str(cell.dtype)) for cell in row]
            raise ShapeError(f"draw_grid: row {number}: expected {len(titles)} images {shape} uint8, got {found}")
    grid = np.full(
        (_TITLE_HEIGHT + len(rows) * (height + _GUTTER), len(titles) * (width + _GUTTER) - _GUTTER, 3),
        _PAPER,
        np.uint8,
    )
    empty = []
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            y, x = _TITLE_HEIGHT + r * (height + _GUTTER), c * (width + _GUTTER)
            place = grid[y : y + height, x : x + width]
            if cell is None:
                place[:] = _PALE
                empty.append((x + width // 2, y + height // 2))
            else:
                times = height // cell.shape[0]
                place[:] = cell.repeat(times, 0).repeat(times, 1)
    return _write_texts(grid[: -_GUTTER or None], titles, width, empty, no_image)


def _fits(cell: Cell, shape: tuple[int, ...], zoom: int) -> bool:
    sizes = (shape, (shape[0] * zoom, shape[1] * zoom, *shape[2:]))
    return cell is None or (cell.dtype == np.uint8 and cell.shape in sizes)


def _write_texts(
    grid: NDArray[np.uint8], titles: Sequence[str], width: int, empty: Sequence[tuple[int, int]], no_image: str
) -> NDArray[np.uint8]:
    """Titles over the columns, and a word in the middle of each empty cell."""
    picture = Image.fromarray(grid)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TITLE_SIZE)
    for column, title in enumerate(titles):
        text = title
        while len(text) > 1 and draw.textlength(text, font=font) > width:
            text = "…" + text.removeprefix("…")[1:]
        draw.text((column * (width + _GUTTER) + 2, _TITLE_HEIGHT // 2), text, fill=_INK, font=font, anchor="lm")
    for place in empty:
        if draw.textlength(no_image, font=font) <= width:
            draw.text(place, no_image, fill=_INK, font=font, anchor="mm")
    return np.array(picture)

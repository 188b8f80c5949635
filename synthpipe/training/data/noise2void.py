"""Masked pixels: how an ordinary network learns from noisy images alone (Noise2Void, Krull et al., CVPR 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["mask_pixels"]

#: Side of the window that a masked pixel takes its new value from.
WINDOW = 5


def mask_pixels(x: Tensor, share: float, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Replace a few pixels of each image by a neighbour, so that what was there can be asked of a network.

    The pixels are stratified: one at a uniform place of each cell of a grid whose cells have ``1 / share`` pixels,
    rounded to a square (places beyond the image are dropped), so that every pixel is as likely and few are close.
    Each takes the colour, all channels together, of one of the 24 others in the 5x5 window around it, which is shifted
    at the border to lie within the image; the values are those of ``x``, not of pixels replaced before.

    Args:
        x: ``(B, C, H, W)``, sides of at least 5.
        share: of the pixels, in (0, 1].
        generators: one CPU generator for each image.

    Returns:
        Images like ``x``, and where they were changed, ``(B, 1, H, W)`` bool, at least one pixel in each.

    Raises:
        ShapeError: images smaller than the window.
    """
    height, width = x.shape[2:]
    if min(height, width) < WINDOW:
        raise ShapeError(f"mask_pixels: images need sides of at least {WINDOW}, got {height}x{width}")
    cell = min(round(math.sqrt(1 / share)), height, width)
    masked, mask = x.clone(), torch.zeros_like(x[:, :1], dtype=torch.bool)
    for index, generator in enumerate(generators):
        rows, columns = _stratified(height, width, cell, generator)
        from_rows, from_columns = _neighbours(rows, columns, height, width, generator)
        masked[index, :, rows, columns] = x[index, :, from_rows, from_columns]
        mask[index, 0, rows, columns] = True
    return masked, mask


def _stratified(height: int, width: int, cell: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns of one pixel in each cell of the grid; the first cell is whole, so there is one at least."""
    across, down = -(-width // cell), -(-height // cell)
    rows = torch.arange(down)[:, None] * cell + torch.randint(cell, (down, across), generator=generator)
    columns = torch.arange(across) * cell + torch.randint(cell, (down, across), generator=generator)
    inside = (rows < height) & (columns < width)
    return rows[inside], columns[inside]


def _neighbours(
    rows: Tensor, columns: Tensor, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For each pixel one of the 24 others of its window."""
    top = (rows - WINDOW // 2).clamp(0, height - WINDOW)
    left = (columns - WINDOW // 2).clamp(0, width - WINDOW)
    itself = (rows - top) * WINDOW + columns - left
    drawn = torch.randint(WINDOW**2 - 1, rows.shape, generator=generator)
    drawn = drawn + (drawn >= itself)  # skips the pixel itself
    return top + drawn // WINDOW, left + drawn % WINDOW

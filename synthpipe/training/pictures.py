"""Sample pictures of a training run: images in rows and columns."""

from __future__ import annotations

from torch import Tensor

__all__ = ["picture_grid"]


def picture_grid(images: Tensor, gap: int = 0) -> Tensor:
    """One picture of images in rows and columns, on white.

    Args:
        images: ``(rows, columns, C, H, W)`` in [0, 1], C = 1 or 3; values outside are clipped.
        gap: pixels between two images.

    Returns:
        ``(3, rows * H + gaps, columns * W + gaps)`` in [0, 1].
    """
    rows, columns, channels, height, width = images.shape
    canvas = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            canvas[:, top : top + height, left : left + width] = images[row, column]
    return canvas.clamp(0, 1).expand(3, -1, -1)

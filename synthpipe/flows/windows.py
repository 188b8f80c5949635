"""Images as grids of the windows that a flow is the density of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cut_windows"]


def cut_windows(x: Tensor, window: int, corners: Sequence[Sequence[int]]) -> Tensor:
    """As many windows as fit side by side, ``(B, C, H, W)`` -> ``(B, rows columns, C, window, window)``.

    Args:
        x: sides of at least the window.
        window: side of the windows.
        corners: ``(top, left)`` of each image's grid, at most what the windows leave free.
    """
    height, width = (side // window * window for side in x.shape[2:])
    parts = [image[:, top : top + height, left : left + width] for image, (top, left) in zip(x, corners, strict=True)]
    columns = torch.unflatten(torch.stack(parts), 3, (-1, window))
    grids = torch.unflatten(columns, 2, (-1, window))  # (B, C, rows, w, columns, w)
    return grids.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)

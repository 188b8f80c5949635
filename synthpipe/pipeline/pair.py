"""Aligned patches out of degraded tiles: the LR patch at (y, x) and the HR patch at (scale * y, scale * x)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.pipeline.crop import spread_positions
from synthpipe.seeds import sample_seed

__all__ = ["PatchCut"]


@dataclass(frozen=True)
class PatchCut:
    """Which patches are cut from each tile; sides in pixels.

    Args:
        tile: side of the LR tile.
        lq_size: side of the LR patches.
        scale: HR over LR.
        margin: LR pixels left out on each side of a tile.
        count: patches of each degraded tile.
        samples: degradations of each tile.

    Raises:
        ShapeError: no patch fits inside the margin.
    """

    tile: int
    lq_size: int
    scale: int
    margin: int
    count: int
    samples: int = 1

    def __post_init__(self) -> None:
        if self.tile - 2 * self.margin < self.lq_size:
            raise ShapeError(
                f"PatchCut: a patch of {self.lq_size} does not fit into a tile of {self.tile}x{self.tile} with a "
                f"margin of {self.margin}"
            )

    def corners(self, seeds: Sequence[int]) -> np.ndarray:
        """``(N, samples * count, 2)`` int64: top and left of the LR patches, placed by each tile's own seed."""
        inner, count = self.tile - 2 * self.margin, self.count * self.samples
        placed = [
            spread_positions(inner, inner, self.lq_size, count, random.Random(sample_seed(seed, 0, "cut")))
            for seed in seeds
        ]
        return np.array(placed, np.int64).reshape(len(seeds), count, 2) + self.margin

    def cut(self, lq: Tensor, gt: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
        """LR and HR patches, tile after tile; tensor operations alone.

        Args:
            lq: ``(N * samples, 3, tile, tile)``, the degradations of one tile one after the other.
            gt: ``(N * samples, 3, scale * tile, scale * tile)``.
            corners: of :meth:`corners`, on the same device.

        Returns:
            ``(N * samples * count, 3, lq_size, lq_size)`` and ``(N * samples * count, 3, scale * lq_size, ...)``.

        Raises:
            ShapeError: other sizes: the degradation's scale differs from the stream's.
        """
        sides = self.tile, self.tile * self.scale
        if tuple(lq.shape[-2:]) != sides[:1] * 2 or tuple(gt.shape[-2:]) != sides[1:] * 2:
            raise ShapeError(
                f"PatchCut: gt must be {self.scale} times lq and lq {self.tile}x{self.tile}, got gt {tuple(gt.shape)} "
                f"and lq {tuple(lq.shape)}; the degradation's scale differs from the stream's"
            )
        top, left = corners.flatten(0, 1).unbind(1)
        owner = torch.arange(len(top), device=lq.device) // self.count
        return (
            _windows(lq, owner, top, left, self.lq_size),
            _windows(gt, owner, top * self.scale, left * self.scale, self.lq_size * self.scale),
        )


def _windows(x: Tensor, owner: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """``(N, C, size, size)``: the squares at the corners in the images ``owner``."""
    views = x.unfold(2, size, 1).unfold(3, size, 1)
    return views[owner, :, top, left]

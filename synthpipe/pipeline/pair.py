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
        self._check_fits(self.tile, self.tile)

    def corners(self, seeds: Sequence[int], sides: tuple[int, int] | None = None) -> np.ndarray:
        """``(N, samples * count, 2)`` int64: top and left of the LR patches, placed by each tile's own seed.

        Args:
            seeds: of the tiles.
            sides: height and width of LR tiles that are not ``tile`` pixels square.

        Raises:
            ShapeError: no patch fits inside the margin.
        """
        height, width = sides or (self.tile, self.tile)
        self._check_fits(height, width)
        inner, count = (height - 2 * self.margin, width - 2 * self.margin), self.count * self.samples
        placed = [
            spread_positions(*inner, self.lq_size, count, random.Random(sample_seed(seed, 0, "cut"))) for seed in seeds
        ]
        return np.array(placed, np.int64).reshape(len(seeds), count, 2) + self.margin

    def cut(self, lq: Tensor, gt: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
        """LR and HR patches, tile after tile; tensor operations alone.

        Args:
            lq: ``(N * samples, 3, h, w)``, the degradations of one tile one after the other.
            gt: ``(N * samples, 3, scale * h, scale * w)``.
            corners: of :meth:`corners` for tiles of this size, on the same device.

        Returns:
            ``(N * samples * count, 3, lq_size, lq_size)`` and ``(N * samples * count, 3, scale * lq_size, ...)``.

        Raises:
            ShapeError: ``gt`` is not ``scale`` times ``lq``.
        """
        height, width = lq.shape[-2:]
        if tuple(gt.shape[-2:]) != (height * self.scale, width * self.scale):
            raise ShapeError(
                f"PatchCut: gt must be {self.scale} times lq, got gt {tuple(gt.shape)} and lq {tuple(lq.shape)}; "
                "the degradation's scale differs from the stream's"
            )
        top, left = corners.flatten(0, 1).unbind(1)
        owner = torch.arange(len(top), device=lq.device) // self.count
        return (
            _windows(lq, owner, top, left, self.lq_size),
            _windows(gt, owner, top * self.scale, left * self.scale, self.lq_size * self.scale),
        )

    def _check_fits(self, height: int, width: int) -> None:
        if min(height, width) - 2 * self.margin < self.lq_size:
            raise ShapeError(
                f"PatchCut: a patch of {self.lq_size} does not fit into a tile of {height}x{width} with a margin of "
                f"{self.margin}"
            )


def _windows(x: Tensor, owner: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """``(N, C, size, size)``: the squares at the corners in the images ``owner``."""
    views = x.unfold(2, size, 1).unfold(3, size, 1)
    return views[owner, :, top, left]

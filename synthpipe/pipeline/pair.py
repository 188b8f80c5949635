"""Aligned patches out of degraded tiles: the LR patch at (y, x) and the HR patch at (scale * y, scale * x)."""

from __future__ import annotations

import random

import torch

from synthpipe.errors import ShapeError
from synthpipe.pipeline.crop import spread_positions
from synthpipe.seeds import sample_seed
from synthpipe.transforms.batch import Batch

__all__ = ["cut_pairs"]


def cut_pairs(batch: Batch, *, lq_size: int, scale: int, margin: int, count: int) -> Batch:
    """Drop a margin and cut ``count`` aligned patches from each tile, placed by the tile's own seed.

    Shapes: ``lq`` (B, 3, h, w) and ``gt`` (B, 3, scale * h, scale * w) become (B * count, 3, lq_size, lq_size) and
    (B * count, 3, scale * lq_size, scale * lq_size), tile after tile; every list is repeated to match, and so is
    ``seed``.

    Raises:
        ShapeError: ``gt`` is not ``scale`` times ``lq``, or no patch fits inside the margin.
    """
    lq, gt = batch["lq"], batch["gt"]
    height, width = lq.shape[-2:]
    if gt.shape[-2:] != (height * scale, width * scale):
        raise ShapeError(
            f"cut_pairs: gt must be {scale} times lq, got gt {tuple(gt.shape)} and lq {tuple(lq.shape)}; "
            "the degradation's scale differs from the stream's"
        )
    if min(height, width) - 2 * margin < lq_size:
        raise ShapeError(
            f"cut_pairs: a patch of {lq_size} does not fit into a tile of {height}x{width} with a margin of {margin}"
        )
    lq_patches, gt_patches, owners = [], [], []
    for tile, seed in enumerate(batch["seed"].tolist()):
        rng = random.Random(sample_seed(seed, 0, "cut"))
        for top, left in spread_positions(height - 2 * margin, width - 2 * margin, lq_size, count, rng):
            y, x = top + margin, left + margin
            lq_patches.append(lq[tile, :, y : y + lq_size, x : x + lq_size])
            y, x, gt_size = y * scale, x * scale, lq_size * scale
            gt_patches.append(gt[tile, :, y : y + gt_size, x : x + gt_size])
            owners.append(tile)
    lists = {key: [value[tile] for tile in owners] for key, value in batch.items() if isinstance(value, list)}
    return {
        **lists,
        "lq": torch.stack(lq_patches) if lq_patches else lq.new_empty(0, 3, lq_size, lq_size),
        "gt": torch.stack(gt_patches) if gt_patches else gt.new_empty(0, 3, lq_size * scale, lq_size * scale),
        "seed": batch["seed"][owners] if owners else batch["seed"],
    }

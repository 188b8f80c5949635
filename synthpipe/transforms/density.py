"""A quality score for images and batches, and the filter that drops what scores badly.

The number is ``degraded_logit``: calibrated log-odds that a tile is degraded, higher is worse.  An image's number is
the mean over a few tiles spread evenly over it, because one tile of sky says little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.density.kinds.scorer import KindScorer, probability_column
from synthpipe.density.scorer import DensityScorer
from synthpipe.errors import CheckpointError, ImageError, ShapeError
from synthpipe.images import to_float
from synthpipe.registry import kind_of
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.batch import Batch, select_samples

__all__ = [
    "DEGRADED_LOGIT",
    "DensityFilter",
    "DensityScore",
    "KindFilter",
    "Scorer",
    "clean_threshold",
    "cut_tiles",
    "load_scorer",
    "score_image",
    "tile_places",
]

#: What can judge images: by one number alone, or by kinds of degradation.
Scorer = DensityScorer | KindScorer

#: Name of the number that decides, in batches, in :func:`score_image` and among a scorer's columns.
DEGRADED_LOGIT = "degraded_logit"


def load_scorer(weights: str | Path) -> Scorer:
    """A scorer of either kind, on the CPU.

    Raises:
        CheckpointError: no such weights, or none of a scorer.
    """
    scorer = checkpoints.load(weights)
    if isinstance(scorer, DensityScorer | KindScorer):
        return scorer
    raise CheckpointError(f"{weights}: holds a {kind_of(scorer)!r} model, expected 'density_scorer' or 'kind_scorer'")


def tile_places(height: int, width: int, tile: int, limit: int) -> list[tuple[int, int]]:
    """Corners of up to ``limit`` tiles, evenly spread; they cover the whole image where so few can.

    A grid of equal cells with a tile in the middle of each (pushed inside at the border), of as many rows and columns
    as make the longest side of a cell shortest; never more of them than cover the side.

    Args:
        height, width: of the image, pixels.
        tile: side of a tile, at most ``height`` and ``width``.
        limit: most tiles, at least 1.

    Returns:
        ``(top, left)`` of each, row by row.

    Raises:
        ShapeError: no tile fits, or ``limit`` is below 1.
    """
    if min(height, width) < tile or limit < 1:
        raise ShapeError(
            f"tile_places: expected an image of at least {tile}x{tile} pixels and a limit of at least 1, got "
            f"{height}x{width} and {limit}"
        )
    most_rows, most_columns = -(-height // tile), -(-width // tile)
    grids = [(rows, min(limit // rows, most_columns)) for rows in range(1, min(limit, most_rows) + 1)]
    rows, columns = min(grids, key=lambda grid: (max(height / grid[0], width / grid[1]), -grid[0] * grid[1]))
    return [(top, left) for top in _middles(height, tile, rows) for left in _middles(width, tile, columns)]


def _middles(side: int, tile: int, count: int) -> list[int]:
    """Where tiles in the middle of ``count`` equal parts of ``side`` begin."""
    begins = [((2 * part + 1) * side - count * tile) // (2 * count) for part in range(count)]
    return [min(max(begin, 0), side - tile) for begin in begins]


@torch.no_grad()
def score_image(scorer: Scorer, image: Tensor, tiles: int = 16) -> dict[str, float]:
    """The numbers of one image: means over its tiles, and how much the tiles differ.

    Args:
        scorer: on any device; the tiles are brought to it.
        image: ``(3, H, W)``, uint8, or floating-point in [0, 1].
        tiles: most tiles to look at; see :func:`tile_places`.

    Returns:
        Each of ``scorer.columns`` (means over the tiles; probabilities of kinds are calibrated for their number),
        ``degraded_logit_q10`` and ``degraded_logit_q90`` (10 % and 90 % quantile over the tiles), and ``tiles`` (how
        many there were).

    Raises:
        ImageError: smaller than a tile; the reason is ``too_small``.
        ShapeError: no such image, or NaN.

    >>> import torch
    >>> from synthpipe import checkpoints
    >>> from synthpipe.transforms.density import score_image
    >>> scorer = checkpoints.load("scorer_small", kind="density_scorer")
    >>> noise = score_image(scorer, torch.rand(3, 100, 130))
    >>> noise["degraded_logit"] > 0  # more like the degraded images that it was fitted on
    True
    """
    if image.ndim != 3 or image.shape[0] != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise ShapeError(
            f"score_image: expected an RGB image (3, H, W), uint8 or floating-point in [0, 1], got {image.dtype} "
            f"{tuple(image.shape)}"
        )
    height, width = image.shape[1:]
    if min(height, width) < scorer.tile:
        raise ImageError(
            f"score_image: the image is {height}x{width}, the scorer needs at least {scorer.tile}x{scorer.tile}",
            reason="too_small",
        )
    places = tile_places(height, width, scorer.tile, tiles)
    cut = _as_float(cut_tiles(image[None], places, scorer.tile)[0].to(_device_of(scorer)))
    scorer.check(cut)
    measured = scorer.measure(cut).double().cpu()  # (K, F)
    logit = scorer.tile_logit(measured)
    low, high = torch.quantile(logit, logit.new_tensor([0.1, 0.9])).tolist()
    return {
        **dict(zip(scorer.columns, scorer.pool(measured).tolist(), strict=True)),
        f"{DEGRADED_LOGIT}_q10": low,
        f"{DEGRADED_LOGIT}_q90": high,
        "tiles": len(places),
    }


class DensityScore(DeviceTransform):
    """Adds ``degraded_logit`` ``(B,)`` float32: the mean over tiles spread over each sample's ``gt``.

    :meth:`compute` gives NaN for a sample with NaN in what is looked at; :meth:`apply` refuses it.

    Args:
        scorer: of :func:`load_scorer`.
        tiles: most tiles of a sample.
        parts: add every other column of the scorer as well, ``(B,)`` float32 under its own name.
        kinds: add the columns of these kinds, ``p_<kind>``.

    Raises:
        ShapeError: ``tiles`` below 1, or a kind that the scorer does not tell.
    """

    def __init__(self, scorer: Scorer, tiles: int = 16, *, parts: bool = False, kinds: Sequence[str] = ()) -> None:
        if tiles < 1:
            raise ShapeError(f"DensityScore: expected at least 1 tile of each sample, got {tiles}")
        self.scorer = scorer.eval().requires_grad_(False)
        self._frozen = scorer.freeze()
        self.tiles = tiles
        wanted = (DEGRADED_LOGIT, *map(probability_column, kinds))
        lacking = [name for name in wanted if name not in scorer.columns]
        if lacking:
            raise ShapeError(f"DensityScore: the scorer has no column {lacking[0]!r}; it has {list(scorer.columns)}")
        self._names = scorer.columns if parts else wanted

    def check(self, batch: Batch) -> None:
        """Refuse a ``gt`` that is smaller than the scorer's tile."""
        gt, tile = batch["gt"], self.scorer.tile
        if gt.ndim != 4 or gt.shape[1] != 3:
            raise ShapeError(f"DensityScore: expected RGB images (B, 3, H, W), got shape {tuple(gt.shape)}")
        height, width = gt.shape[2:]
        if min(height, width) < tile:
            raise ShapeError(
                f"DensityScore: gt is {height}x{width}, smaller than the {tile}x{tile} tiles that the scorer was "
                "calibrated on; cut larger tiles"
            )

    @torch.no_grad()
    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the numbers; one sample's do not depend on the others."""
        return {**batch, **self._numbers(self._tiles(batch["gt"]))}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Add the numbers.

        Raises:
            ShapeError: ``gt`` smaller than the scorer's tile, or NaN in what is looked at: a look at all of it would
                cost as much as the scores.
        """
        self.check(batch)
        tiles = self._tiles(batch["gt"])
        self.scorer.check(tiles.flatten(0, 1))
        return {**batch, **self._numbers(tiles)}

    def _tiles(self, gt: Tensor) -> Tensor:
        """``(B, K, 3, tile, tile)``."""
        places = tile_places(gt.shape[2], gt.shape[3], self.scorer.tile, self.tiles)
        return cut_tiles(gt, places, self.scorer.tile)

    @torch.no_grad()
    def _numbers(self, tiles: Tensor) -> dict[str, Tensor]:
        columns = self.scorer.pool(torch.unflatten(self._frozen(tiles.flatten(0, 1)), 0, tiles.shape[:2]))  # (B, F)
        return {name: columns[:, place] for place, name in enumerate(self.scorer.columns) if name in self._names}

    def to(self, device: torch.device | str) -> DensityScore:
        """Move the scorer."""
        self.scorer.to(device)
        self._frozen.to(device)
        return self


class DensityFilter(DeviceTransform):
    """Keeps the samples whose ``degraded_logit`` is at or below a threshold; drops those where it is NaN.

    Follows :class:`DensityScore`.  What comes out of :meth:`apply` is shorter, and may be empty; :meth:`compute` sets
    ``keep``, which stays false where an earlier filter has set it so.

    Args:
        max_logit: the threshold.
    """

    def __init__(self, max_logit: float) -> None:
        self.max_logit = max_logit

    def check(self, batch: Batch) -> None:
        """Refuse a batch without ``degraded_logit``."""
        if DEGRADED_LOGIT not in batch:
            raise ShapeError(f"DensityFilter: the batch has {sorted(batch)} and no {DEGRADED_LOGIT}; score it first")

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set ``keep`` ``(B,)``."""
        keep = batch[DEGRADED_LOGIT] <= self.max_logit
        return {**batch, "keep": keep & batch["keep"] if "keep" in batch else keep}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """The samples to keep, of every tensor and list.

        Raises:
            ShapeError: the batch has no ``degraded_logit``.
        """
        self.check(batch)
        keep = (batch[DEGRADED_LOGIT] <= self.max_logit).nonzero()[:, 0]
        if len(keep) == len(batch[DEGRADED_LOGIT]):
            return dict(batch)
        return select_samples(batch, keep)


class KindFilter(DeviceTransform):
    """Keeps the samples none of whose probabilities is above its threshold; drops those where one is NaN.

    Follows a :class:`DensityScore` with ``kinds``; else as :class:`DensityFilter`.

    Args:
        limits: the largest probability that is kept, by kind.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        self.limits = dict(limits)

    def check(self, batch: Batch) -> None:
        """Refuse a batch without the probabilities."""
        lacking = [kind for kind in self.limits if probability_column(kind) not in batch]
        if lacking:
            raise ShapeError(
                f"KindFilter: the batch has {sorted(batch)} and no {probability_column(lacking[0])}; score it first"
            )

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Set ``keep`` ``(B,)``."""
        keep = self._keep(batch)
        return {**batch, "keep": keep & batch["keep"] if "keep" in batch else keep}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """The samples to keep, of every tensor and list.

        Raises:
            ShapeError: the batch has no such probabilities.
        """
        self.check(batch)
        keep = self._keep(batch).nonzero()[:, 0]
        return dict(batch) if len(keep) == len(batch[DEGRADED_LOGIT]) else select_samples(batch, keep)

    def _keep(self, batch: Batch) -> Tensor:
        good = [batch[probability_column(kind)] <= limit for kind, limit in self.limits.items()]
        return torch.stack(good).all(0)


def clean_threshold(scorer: Scorer, share: float, tiles: int) -> float:
    """The ``degraded_logit`` that ``share`` of the clean images do not exceed, whose means are over ``tiles`` tiles.

    The scorer holds quantiles for a few numbers of tiles.  Between them the threshold goes linearly with the logarithm
    of the number; beyond them the nearest holds.

    Args:
        scorer: calibrated.
        share: in (0, 1).
        tiles: at least 1.

    Raises:
        CheckpointError: the scorer was never calibrated.
    """
    numbers, table = list(scorer.quantiles), torch.stack(list(scorer.quantiles.values())).double().cpu()  # (T, 101)
    if not bool((table[:, -1] > table[:, 0]).all()):
        raise CheckpointError(
            "the scorer has no quantiles of clean images: it was not calibrated; calibrate it with `synthpipe "
            "calibrate`, or give max_logit"
        )
    at_share = [float(torch.quantile(row, share)) for row in table]
    return float(np.interp(math.log(tiles), np.log(numbers), at_share))


def cut_tiles(images: Tensor, places: list[tuple[int, int]], tile: int) -> Tensor:
    """``(B, C, H, W)`` -> ``(B, K, C, tile, tile)``."""
    return torch.stack([images[..., y : y + tile, x : x + tile] for y, x in places], 1)


def _as_float(tiles: Tensor) -> Tensor:
    return to_float(tiles) if tiles.dtype == torch.uint8 else tiles.float()


def _device_of(scorer: Scorer) -> torch.device:
    return scorer.quantile_table.device

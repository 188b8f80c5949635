"""Options of degradations and filters -> the transforms that they describe."""

from __future__ import annotations

from typing import cast

from synthpipe import checkpoints
from synthpipe.config.degrade import ClassicalDegradeOptions, DeFlowDegradeOptions
from synthpipe.config.filter import FilterOptions
from synthpipe.density.scorer import DensityScorer
from synthpipe.errors import OptionError
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade
from synthpipe.transforms.density import DensityFilter, DensityScore, clean_threshold, tile_places

__all__ = ["build_degrade", "build_filter"]


def build_degrade(options: DeFlowDegradeOptions | ClassicalDegradeOptions, scale: int) -> BatchTransform:
    """The transform, on the CPU (``.to(device)`` moves it); ``scale`` is the ratio of ``gt`` to ``lq``.

    Raises:
        CheckpointError: DeFlow weights that are missing, damaged or of another kind.
    """
    if isinstance(options, ClassicalDegradeOptions):
        return ClassicalDegrade(options, scale)
    return DeFlowDegrade(checkpoints.load(options.weights, kind="deflow"), scale, options.strength)


def build_filter(options: FilterOptions, side: int) -> tuple[DensityScore, DensityFilter]:
    """The score and the filter that judge tiles of ``side`` pixels on the device; on the CPU.

    Raises:
        CheckpointError: scorer weights that are missing, damaged, of another kind, or not calibrated.
        OptionError: tiles smaller than the scorer's.
    """
    scorer = cast(DensityScorer, checkpoints.load(options.scorer, kind="density_scorer"))
    if side < scorer.tile:
        raise OptionError(
            f"filter: the stream cuts tiles of {side} pixels, the scorer {options.scorer!r} needs at least "
            f"{scorer.tile}; enlarge tile (with degrade) or gt_size, or filter by a table of scores"
        )
    threshold = options.max_logit
    if threshold is None:
        assert options.clean_quantile is not None
        places = tile_places(side, side, scorer.tile, options.tiles_used)
        threshold = clean_threshold(scorer, options.clean_quantile, len(places))
    return DensityScore(scorer, options.tiles_used), DensityFilter(threshold)

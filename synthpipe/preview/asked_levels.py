"""For measuring: where a degradation draws levels of noise, others than it would draw.

A tile is flat at few brightnesses.  With one level each, noise would seem weak at those where tiles happened to get low
levels, so tiles are measured a second time, at opposite ones.  A training's report draws two for each of its tiles for
the same reason (:mod:`synthpipe.training.data.flat_judge`).  A pair has one level, which its noisy side tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from synthpipe.flows.pile_levels import AskedLevel
from synthpipe.preview.tile_columns import Recorder
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.chains.chain import Chain
from synthpipe.transforms.chains.stages.deflow import DeFlowStage
from synthpipe.transforms.chains.whole import WholeDegradation
from synthpipe.transforms.deflow import DeFlowDegrade

__all__ = ["draws_levels", "level_near", "opposite_levels"]


def draws_levels(degrade: BatchTransform) -> bool:
    """Whether it draws from several levels anywhere."""
    return any(asked.varies for asked in _asked(degrade))


def opposite_levels(degrade: BatchTransform) -> AbstractContextManager[None]:
    """Inside, each sample gets the level from the other end of their order; all else that it draws stays."""
    return _asking(degrade, opposite=True, near=None)


def level_near(degrade: BatchTransform, level: float | None) -> AbstractContextManager[None]:
    """Inside, every sample gets the level nearest to this one of those that may be drawn; with None they are drawn."""
    return _asking(degrade, opposite=False, near=level)


@contextmanager
def _asking(degrade: BatchTransform, opposite: bool, near: float | None) -> Iterator[None]:
    levels = list(_asked(degrade))
    for asked in levels:
        asked.opposite, asked.near = opposite, near
    try:
        yield
    finally:
        for asked in levels:
            asked.opposite, asked.near = False, None


def _asked(degrade: object) -> Iterator[AskedLevel]:
    match degrade:
        case Recorder():
            yield from _asked(degrade.degrade)
        case Chain():
            for step in degrade.node.steps():
                yield from _asked(step.stage)
        case WholeDegradation():
            yield from _asked(degrade.transform)
        case DeFlowDegrade() | DeFlowStage():
            yield degrade.asked

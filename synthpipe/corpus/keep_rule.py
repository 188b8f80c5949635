"""Which images of a scored corpus are kept: the rule rejects the worst, it does not pick the best."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.score_table import ScoreTable
from synthpipe.errors import ShardError

__all__ = ["Decisions", "Gallery", "State", "choose_gallery", "decide", "reject_threshold"]

#: Images in each part of the gallery.
_SHOWN = 24


class State(IntEnum):
    """What became of an image; everything but ``KEPT`` is left out."""

    KEPT = 0
    REJECTED = 1
    NO_SCORE = 2
    NOT_FINITE = 3


@dataclass(frozen=True)
class Decisions:
    """One entry for each row of the table.

    Attributes:
        by: the column that decided.
        values: it, ``(N,)``; NaN where there is no score.
        states: of :class:`State`, ``(N,)`` int8.
        thresholds: the largest value kept, by source; under None where one holds for all.
        limits: the threshold of each row, ``(N,)``.
        without_score: images by the reason why they have no score.
    """

    by: str
    values: NDArray[np.float64]
    states: NDArray[np.int8]
    thresholds: dict[str | None, float]
    limits: NDArray[np.float64]
    without_score: dict[str, int]

    def count(self, state: State) -> int:
        """Number of images in ``state``."""
        return int((self.states == state).sum())


@dataclass(frozen=True)
class Gallery:
    """Rows to show people: rejected with the largest values, closest to the threshold, kept at random."""

    worst: tuple[int, ...]
    barely_rejected: tuple[int, ...]
    barely_kept: tuple[int, ...]
    kept: tuple[int, ...]

    def rows(self) -> tuple[int, ...]:
        """All of them, in order, each once."""
        return tuple(sorted({*self.worst, *self.barely_rejected, *self.barely_kept, *self.kept}))


def reject_threshold(values: NDArray[np.float64], reject: float) -> float:
    """The largest value to keep, so that at most ``reject`` of ``values`` lie above it.

    Equal values meet the same fate, whatever their order: where the threshold falls among them they are kept.

    Args:
        values: finite, ``(n,)``.
        reject: 0 rejects none; below 1.

    Returns:
        One of ``values``; infinity where there are none.
    """
    # What is a whole number but for rounding, as 0.29 * 100, counts as whole.
    rejected = int(reject * len(values) + 1e-9)
    if not len(values):
        return float("inf")
    place = len(values) - 1 - rejected
    return float(np.partition(values, place)[place])


def decide(table: ScoreTable, options: CorpusFilterOptions) -> Decisions:
    """Apply the rule to every row.

    Raises:
        OptionError: no such column.
        ShardError: no image with a score.
    """
    values = table.numbers(options.by)
    codes, reasons = table.codes("error")
    scored = np.array([reason is None for reason in reasons], bool)[codes] if len(table) else np.zeros(0, bool)
    usable = scored & np.isfinite(values)
    without = Counter({str(reason): int((codes == code).sum()) for code, reason in enumerate(reasons) if reason})
    if not usable.any():
        raise ShardError(f"{table.url}: none of {len(table)} images has a score ({dict(without)}); nothing to decide")
    limits = np.full(len(table), np.nan)
    thresholds: dict[str | None, float] = {}
    for source, rows in _groups(table, options.per_source):
        found = values[usable & rows]
        threshold = options.max_logit
        if threshold is None:
            threshold = reject_threshold(found, options.reject or 0.0)
        limits[rows] = thresholds[source] = threshold
    states = np.where(values <= limits, State.KEPT, State.REJECTED).astype(np.int8)
    states[~np.isfinite(values)] = State.NOT_FINITE
    states[~scored] = State.NO_SCORE
    return Decisions(options.by, values, states, thresholds, limits, dict(sorted(without.items())))


def _groups(table: ScoreTable, per_source: bool) -> list[tuple[str | None, NDArray[np.bool_]]]:
    if not per_source:
        return [(None, np.ones(len(table), bool))]
    codes, names = table.codes("source")
    return [(name, codes == code) for code, name in enumerate(names)]


def choose_gallery(decisions: Decisions, seed: int) -> Gallery:
    """Rows for the report; the same for the same table and seed."""
    kept, rejected = (np.flatnonzero(decisions.states == state) for state in (State.KEPT, State.REJECTED))
    margin = decisions.values - decisions.limits
    drawn = np.random.default_rng(seed).choice(len(kept), min(_SHOWN, len(kept)), replace=False)
    return Gallery(
        worst=_first(rejected, -decisions.values, _SHOWN),
        barely_rejected=_first(rejected, margin, _SHOWN // 2),
        barely_kept=_first(kept, -margin, _SHOWN // 2),
        kept=tuple(int(row) for row in np.sort(kept[drawn])),
    )


def _first(rows: NDArray[np.int64], order: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """The ``count`` rows of the smallest ``order``, equal ones by their place in the table."""
    return tuple(int(row) for row in rows[np.argsort(order[rows], kind="stable")][:count])

"""Which images of a scored corpus are kept: the rule rejects the worst, it does not pick the best."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from synthpipe.config.kinds import KindRule
from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.score_table import ScoreTable
from synthpipe.density.kinds.scorer import probability_column
from synthpipe.errors import OptionError, ShardError, counted
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.skip_advice import raise_limit, skip_advice

__all__ = ["Decisions", "Gallery", "KindExcess", "State", "choose_gallery", "decide", "kind_excess", "reject_threshold"]

#: Probabilities are kept this far from 0 and 1, where log-odds have no number.
_SURE = 1e-9
#: Images in each part of the gallery.
_SHOWN = 24
_CURES = {
    "bomb": f"score again; {raise_limit('--max-pixels')}",
    "too_small": "score larger images, for a tile does not fit into these",
}


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
        kinds: names of the kinds that decided; empty where one number did.
        reasons: the worst of them in each row, its place in ``kinds``, ``(N,)``; -1 without a score.
    """

    by: str
    values: NDArray[np.float64]
    states: NDArray[np.int8]
    thresholds: dict[str | None, float]
    limits: NDArray[np.float64]
    without_score: dict[str, int]
    kinds: tuple[str, ...] = ()
    reasons: NDArray[np.int8] | None = None

    def count(self, state: State) -> int:
        """Number of images in ``state``."""
        return int((self.states == state).sum())

    def rejected_by_kind(self) -> dict[str, int]:
        """Rejected images by the kind that is worst in them."""
        if self.reasons is None:
            return {}
        rejected = self.reasons[self.states == State.REJECTED]
        return {kind: int((rejected == place).sum()) for place, kind in enumerate(self.kinds)}


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


@dataclass(frozen=True)
class KindExcess:
    """How far the worst of some kinds is above its threshold.

    Attributes:
        name: for people.
        kinds: the kinds.
        values: log-odds of the worst kind less those of its threshold, ``(N,)``; above 0 is beyond, NaN without score.
        reasons: the place of the worst in ``kinds``, ``(N,)``; -1 without score.
    """

    name: str
    kinds: tuple[str, ...]
    values: NDArray[np.float64]
    reasons: NDArray[np.int8]


def kind_excess(table: ScoreTable, rule: KindRule) -> KindExcess:
    """Of the kinds that ``rule`` rejects.

    Raises:
        OptionError: a table of one number, or of a scorer that does not tell one of the kinds.
    """
    limits = rule.kind_limits
    lacking = [kind for kind in limits if kind not in table.kinds]
    if lacking:
        raise OptionError(
            f"{table.url}: reject_kinds: no probabilities of {lacking[0]!r} (there are {table.kinds or 'none'}); score "
            "again with a scorer that tells kinds apart: synthpipe score scorer_kinds"
        )
    odds = np.stack([_log_odds(table.numbers(probability_column(kind))) - _limit(limits[kind]) for kind in limits])
    unknown = np.isnan(odds).any(0)
    reasons = np.where(unknown, -1, np.where(np.isnan(odds), -np.inf, odds).argmax(0)).astype(np.int8)
    values = np.where(unknown, np.nan, odds.max(0))
    return KindExcess(f"excess of {', '.join(limits)}", tuple(limits), values, reasons)


def _limit(probability: float) -> float:
    """Log-odds of a threshold; one of 1 lets everything pass, and none but the surest passes 0."""
    return float(_log_odds(np.array(probability)))


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    sure = np.clip(probability, _SURE, 1 - _SURE)
    result: NDArray[np.float64] = np.log(sure / (1 - sure))
    return result


def decide(table: ScoreTable, options: CorpusFilterOptions) -> Decisions:
    """Apply the rule to every row.

    Raises:
        OptionError: no such column.
        ShardError: no image with a score.
    """
    excess = kind_excess(table, options) if options.reject_kinds is not None else None
    values = table.numbers(options.by) if excess is None else excess.values
    codes, reasons = table.codes("error")
    scored = np.array([reason is None for reason in reasons], bool)[codes] if len(table) else np.zeros(0, bool)
    usable = scored & np.isfinite(values)
    without = Counter({str(reason): int((codes == code).sum()) for code, reason in enumerate(reasons) if reason})
    if not usable.any():
        raise ShardError(
            f"{table.url}: none of {counted(len(table), 'image')} has a score ({passed_over_text(without)}); nothing "
            "to decide" + skip_advice(without, _CURES, start="; ")
        )
    limits = np.full(len(table), np.nan)
    thresholds: dict[str | None, float] = {}
    for source, rows in _groups(table, options.per_source):
        found = values[usable & rows]
        threshold = options.max_logit if excess is None or options.reject is not None else 0.0
        if threshold is None:
            threshold = reject_threshold(found, options.reject or 0.0)
        limits[rows] = thresholds[source] = threshold
    states = np.where(values <= limits, State.KEPT, State.REJECTED).astype(np.int8)
    states[~np.isfinite(values)] = State.NOT_FINITE
    states[~scored] = State.NO_SCORE
    by = options.by if excess is None else excess.name
    decisions = Decisions(by, values, states, thresholds, limits, dict(sorted(without.items())))
    return decisions if excess is None else replace(decisions, kinds=excess.kinds, reasons=excess.reasons)


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

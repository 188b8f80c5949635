"""How many samples were used, how many were bad and what was given up, by reason, over all readers of a rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from synthpipe.errors import StreamError, counted
from synthpipe.files.skip_advice import skip_advice
from synthpipe.pipeline.source import FILTERED, NOT_LOST, USED, Record

__all__ = ["Tally", "describe", "nothing_used"]

# Corpora smaller than this are judged as if they had this many samples: one bad image among fifty is no reason to stop.
_SMALLEST_CORPUS = 100
# A filter is judged by what it did to an epoch, or to so many: few say little, and nobody wants to wait for more.
_FEWEST_JUDGED, _MOST_JUDGED = 256, 2048


class Tally:
    """Counts of each reader so far, and of samples lost on the device.

    Args:
        planned: samples that this rank reads in an epoch.
        max_bad_fraction: share of bad samples that is tolerated.
        state: of an earlier tally to go on from.
        min_keep: share that a filter must keep.
    """

    def __init__(
        self,
        planned: int,
        max_bad_fraction: float,
        state: Mapping[str, Any] | None = None,
        *,
        min_keep: float = 0.0,
    ) -> None:
        self._min_keep = min_keep
        self._judged_after = max(min(planned, _MOST_JUDGED), _FEWEST_JUDGED)
        self._kept = 0
        self._allowed = max_bad_fraction * max(planned, _SMALLEST_CORPUS)
        self._source: int | None = None
        self._readers: dict[int, dict[str, int]] = {}
        self._epochs: dict[int, int] = {}
        self._device: Counter[str] = Counter()
        self._earlier: Counter[str] = Counter()
        self._ways: Counter[str] = Counter()
        self._given_up: dict[int, dict[str, int]] = {}
        self._given_up_earlier: Counter[str] = Counter()
        if state is not None:
            self._source = state["source"]
            self._readers = {int(reader): dict(counts) for reader, counts in state["readers"].items()}
            self._epochs = {int(reader): epoch for reader, epoch in state["epochs"].items()}
            self._device = Counter(state["device"])
            self._earlier = Counter(state["earlier"])
            self._kept = state.get("kept", 0)
            self._ways = Counter(state.get("ways", {}))
            # States of version 0.1 have none.
            given_up = state.get("given_up", {"readers": {}, "earlier": {}})
            self._given_up = {int(reader): dict(counts) for reader, counts in given_up["readers"].items()}
            self._given_up_earlier = Counter(given_up["earlier"])

    def state_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "source": self._source,
            "readers": {reader: dict(counts) for reader, counts in self._readers.items()},
            "epochs": dict(self._epochs),
            "device": dict(self._device),
            "earlier": dict(self._earlier),
            "kept": self._kept,
            "ways": dict(self._ways),
            "given_up": {
                "readers": {reader: dict(counts) for reader, counts in self._given_up.items()},
                "earlier": dict(self._given_up_earlier),
            },
        }

    def note(self, record: Record) -> None:
        """Take over what a reader has counted so far.

        Raises:
            StreamError: more samples are bad than an epoch may hold.
        """
        if record["source"] != self._source:
            # New readers count from nothing.
            self._earlier = self._read()
            self._readers.clear()
            self._given_up_earlier = _summed(self._given_up_earlier, self._given_up)
            self._given_up.clear()
            self._source = record["source"]
        self._readers[record["reader"]] = record["counts"]
        self._given_up[record["reader"]] = record["given_up"]
        self._epochs[record["reader"]] = record["epoch"]
        self._check(record["example"])
        counts = self._read()
        self._check_kept(counts[USED], counts[FILTERED], "images")

    def lose(self, tiles: int, reason: str) -> None:
        """Count tiles that were good on disk and came to nothing on the device.

        Raises:
            StreamError: more are bad than an epoch may hold; what a filter drops on purpose is not bad.
        """
        if tiles:
            self._device[reason] += tiles
            self._check("")

    def judge(self, kept: int, dropped: int) -> None:
        """Count tiles that the filter kept and dropped on the device.

        Raises:
            StreamError: it keeps less than ``min_keep``.
        """
        self._kept += kept
        self._device[FILTERED] += dropped
        self._check_kept(self._kept, self._device[FILTERED], "tiles")

    def note_ways(self, tiles: Mapping[str, int]) -> None:
        """Count tiles by the ways that the degradation's choices send them."""
        self._ways.update(tiles)

    def ways(self) -> dict[str, int]:
        """Tiles by way, in alphabetical order; empty where the degradation has no choice."""
        return dict(sorted(self._ways.items()))

    def counts(self) -> dict[str, int]:
        """``used`` images, then each reason in alphabetical order."""
        total = self._read() + self._device
        return {USED: total.pop(USED, 0), **{reason: total[reason] for reason in sorted(total)}}

    def given_up(self) -> dict[str, int]:
        """What the images used have lost, by reason in alphabetical order; see ``synthpipe.files.decode.GIVEN_UP``."""
        return dict(sorted(_summed(self._given_up_earlier, self._given_up).items()))

    @property
    def judges_filter(self) -> bool:
        """Whether what is missing is the filter's work, which ``min_keep`` decides on once there is enough of it."""
        return self._min_keep > 0 and self.counts().get(FILTERED, 0) > 0

    def epoch(self) -> int:
        """The epoch that the slowest reader is in."""
        return min(self._epochs.values(), default=0)

    def _read(self) -> Counter[str]:
        """Images, over all readers."""
        return _summed(self._earlier, self._readers)

    def _check_kept(self, kept: int, dropped: int, what: str) -> None:
        if dropped and kept + dropped >= self._judged_after and kept < self._min_keep * (kept + dropped):
            raise StreamError(
                f"the filter keeps {kept} of {kept + dropped} {what} ({kept / (kept + dropped):.2%}), less than "
                f"filter.min_keep {self._min_keep:g}; look at the corpus with `synthpipe score`, raise the threshold, "
                "or lower min_keep"
            )

    def _check(self, example: str) -> None:
        counts = self.counts()
        used = counts.pop(USED)
        counts = {reason: count for reason, count in counts.items() if reason not in NOT_LOST}
        bad = sum(counts.values())
        # Every epoch meets the same bad samples again, so the allowance grows with the epochs.
        if bad > self._allowed * (max(self._epochs.values(), default=0) + 1):
            example = f"; for example {example}" if example else ""
            hint = skip_advice(counts, {"too_small": "a smaller tile or gt_size lets smaller images in"}, start="; ")
            raise StreamError(
                f"too many bad samples: {bad} of the {bad + used} read so far ({describe(counts)}), more than "
                f"max_bad_fraction allows in an epoch; repair the shards, or raise max_bad_fraction{hint}{example}"
            )


def nothing_used(counts: Mapping[str, int]) -> str:
    """Why nothing, or too little, came of the images: counts, and the options to change."""
    skipped = {reason: count for reason, count in counts.items() if reason != USED}
    hints = {
        "too_small": "gt_size, scale or tile smaller",
        FILTERED: "a milder filter",
        "unscored": "a table of scores of these shards",
    }
    cure = skip_advice(skipped, hints, start="; what helps: ")
    return f"{counted(counts.get(USED, 0), 'image')} used, skipped: {describe(skipped)}{cure}"


def describe(counts: Mapping[str, int]) -> str:
    """``"too_small 2, truncated 1"``, most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count}" for reason, count in ordered) or "none"


def _summed(earlier: Mapping[str, int], readers: Mapping[int, Mapping[str, int]]) -> Counter[str]:
    total = Counter(earlier)
    for counts in readers.values():
        total.update(counts)
    return total

"""What images give up on their way to 8-bit sRGB, counted over many of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from synthpipe.files.decode import GIVEN_UP
from synthpipe.files.printable import printable

__all__ = ["NAMED_EXAMPLES", "GivenUpCounts", "count_given_up", "first_named"]

#: Images of each reason that logs, reports and the ends of commands name.
NAMED_EXAMPLES = 5


def count_given_up(
    total: Counter[str], given_up: Mapping[str, int], path: str, log: logging.Logger, said_by: str = ""
) -> None:
    """Add what one image has given up to ``total``; the first few of each reason are named in the log, at INFO.

    Args:
        total: counts by the reasons of :data:`synthpipe.files.decode.GIVEN_UP`.
        given_up: of the image, as :func:`synthpipe.files.decode.decode_image` gives it.
        path: what the log calls the image.
        log: where.
        said_by: begins the line.
    """
    for reason, count in given_up.items():
        if total[reason] < NAMED_EXAMPLES:
            log.info("%sgiven up (%s): %s: %s", said_by, reason, path, GIVEN_UP[reason])
        total[reason] += count


def first_named(parts: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """The first few names of each reason, over parts in their order."""
    named: dict[str, list[str]] = {}
    for part in parts:
        for reason, names in part.items():
            known = named.setdefault(reason, [])
            known += names[: NAMED_EXAMPLES - len(known)]
    return dict(sorted(named.items()))


class GivenUpCounts:
    """For the end of a command: ``counts`` by reason, and the names of the first few ``files`` of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.files: dict[str, list[str]] = {}
        self._met: Counter[str] = Counter()

    def add(self, name: str, given_up: Mapping[str, int]) -> None:
        """What one file lost."""
        for reason, count in given_up.items():
            self.counts[reason] += count
            self._met[reason] += 1
            if self._met[reason] <= NAMED_EXAMPLES:
                self.files.setdefault(reason, []).append(printable(name))
            elif self._met[reason] == NAMED_EXAMPLES + 1:
                self.files[reason].append("...")

    def facts(self) -> dict[str, Any]:
        """``given_up``, counts by reason, and ``examples``, the first few names of each; empty where there are none."""
        if not self.counts:
            return {}
        named = {reason: self.files[reason][:NAMED_EXAMPLES] for reason in sorted(self.files)}
        return {"given_up": dict(sorted(self.counts.items())), "examples": named}

"""Which images of a corpus a table of scores keeps, small enough for every reader process to hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from synthpipe.config.filter import FilterOptions
from synthpipe.corpus.keep_rule import kind_excess, reject_threshold
from synthpipe.corpus.score_table import ScoreTable, open_scores
from synthpipe.errors import ImageError, OptionError

__all__ = ["KeepList", "read_keep_list"]

_ROWS = 1 << 16


class KeepList:
    """Decisions by key: 9 bytes for each image, because 10 M keys as text would not fit in memory.

    Args:
        source: names the table in messages.
        hashes: ``(N,)`` uint64, ascending, 64-bit hashes of the keys.
        keep: ``(N,)`` bool.
    """

    def __init__(self, source: str, hashes: NDArray[np.uint64], keep: NDArray[np.bool_]) -> None:
        self._source = source
        self._hashes = hashes
        self._keep = keep

    def __len__(self) -> int:
        """Images with a score."""
        return len(self._hashes)

    @property
    def kept(self) -> int:
        """Images to keep."""
        return int(self._keep.sum())

    def keeps(self, key: str, name: str) -> bool:
        """Whether to keep an image.

        Args:
            key: the sample's key.
            name: names the image in the message.

        Raises:
            ImageError: the table has no score for it; the reason is ``unscored``.
        """
        hashed = _hash(key)
        place = int(np.searchsorted(self._hashes, hashed))
        if place == len(self._hashes) or self._hashes[place] != hashed:
            raise ImageError(f"{name}: no score for key {key!r} in {self._source}", reason="unscored")
        return bool(self._keep[place])

    def fingerprint(self) -> str:
        """The same for the same decisions, wherever the table lies."""
        return hashlib.blake2b(self._hashes.tobytes() + self._keep.tobytes(), digest_size=16).hexdigest()


def read_keep_list(options: FilterOptions) -> KeepList:
    """Decide by ``options.scores``.

    The rule is that of ``synthpipe filter``.  Rows without a score are as if they were not there.

    Raises:
        OptionError: no such column, no pyarrow, a key that stands for images to keep and to drop, or fewer kept than
            ``min_keep`` allows.
        ShardError: no such table.
    """
    assert options.scores is not None
    try:
        with open_scores(options.scores) as table:
            by_kinds = options.reject_kinds is not None
            numbers = kind_excess(table, options).values if by_kinds else table.numbers(options.by)
            hashes = np.fromiter((_hash(key) for key in _keys(table)), np.uint64, len(table))
    except ModuleNotFoundError as error:
        raise OptionError(
            f"filter.scores: tables are read with {error.name}, which is not installed; pip install 'synthpipe[score]'"
        ) from error
    scored = np.isfinite(numbers)
    numbers, hashes = numbers[scored], hashes[scored]
    threshold = options.max_logit if not by_kinds or options.reject is not None else 0.0
    if threshold is None:
        assert options.reject is not None
        threshold = reject_threshold(numbers, options.reject)
    keep = np.asarray(numbers <= threshold)
    if not len(keep) or keep.mean() < options.min_keep:
        raise OptionError(
            f"filter: keeps {int(keep.sum())} of the {len(keep)} scored images in {options.scores}, less than min_keep "
            f"{options.min_keep:g}; their {'excess of kinds' if by_kinds else options.by} lies in {_range(numbers)}"
        )
    return KeepList(options.scores, *_unique(hashes, keep, options.scores))


def _unique(
    hashes: NDArray[np.uint64], keep: NDArray[np.bool_], source: str
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Ascending, each key once."""
    order = np.argsort(hashes, kind="stable")
    hashes, keep = hashes[order], keep[order]
    again = np.zeros(len(hashes), bool)
    again[1:] = hashes[1:] == hashes[:-1]
    differing = again[1:] & (keep[1:] != keep[:-1])
    if differing.any():
        raise OptionError(
            f"filter: in {source}, {int(differing.sum())} keys stand for one image to keep and one to drop; keys must "
            "be unique over all shards; write the shards with `synthpipe shard`, or judge on the device (max_logit)"
        )
    return hashes[~again], keep[~again]


def _keys(table: ScoreTable) -> Iterator[str]:
    sizes = [min(_ROWS, len(table) - begin) for begin in range(0, len(table), _ROWS)]
    for rows in table.rows(["key"], sizes):
        yield from rows["key"]


def _hash(key: str) -> np.uint64:
    # Tables hold text; bytes of a name that are no UTF-8 stand in it as \udcXX.
    text = key.encode("utf-8", "backslashreplace")
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def _range(numbers: NDArray[np.float64]) -> str:
    return f"{numbers.min():.4g}..{numbers.max():.4g}" if len(numbers) else "an empty range"

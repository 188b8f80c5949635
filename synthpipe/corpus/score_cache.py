"""Scores by the content of the image, so that nothing is computed again when a corpus is sharded anew.

One SQLite file for each scorer and setting.  It is meant for a local disk: SQLite's locks do not hold on all network
file systems.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthpipe.errors import ShardError
from synthpipe.json_text import parse_json

__all__ = ["CachedScore", "ScoreCache"]

#: Seconds that a worker waits for another one's transaction.
_PATIENCE = 120
#: Of one score.
MAX_ROW_BYTES = 1 << 16
_TABLE = "CREATE TABLE IF NOT EXISTS scores (sha256 BLOB PRIMARY KEY, score TEXT) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class CachedScore:
    """What is known of an image file's content; ``numbers`` are None where there is an ``error``.

    ``given_up`` are counts by the reasons of :data:`synthpipe.files.decode.GIVEN_UP`.
    """

    width: int | None
    height: int | None
    numbers: tuple[float, ...] | None
    tiles: int | None
    error: str | None
    given_up: dict[str, int] = field(default_factory=dict)


class ScoreCache:
    """Scores of one scorer with one set of settings.

    Args:
        folder: made where it does not exist.
        identity: names the scorer and the settings, as letters that may stand in a file name.
    """

    def __init__(self, folder: str, identity: str) -> None:
        self.path = Path(folder) / f"{identity}.sqlite"

    def get(self, sha256: str) -> CachedScore | None:
        """The score of a file by its checksum.

        Raises:
            ShardError: the cache is damaged or cannot be read.
        """
        if not self.path.exists():
            return None
        with self._connection() as connection:
            found = connection.execute("SELECT score FROM scores WHERE sha256 = ?", (bytes.fromhex(sha256),)).fetchone()
        if found is None:
            return None
        return self._parsed(found[0])

    def _parsed(self, text: Any) -> CachedScore:
        try:
            # Entries of earlier versions end before what was given up.
            width, height, numbers, tiles, error, *given_up = parse_json(text, MAX_ROW_BYTES)
            counts = [value for some in given_up for value in some.values()]
            whole = all(value is None or type(value) is int for value in (width, height, tiles, *counts))
            if not whole or len(given_up) > 1 or not (error is None or isinstance(error, str)):
                raise ValueError("values of other types")
            scores = None if numbers is None else tuple(map(_number, numbers))
            return CachedScore(width, height, scores, tiles, error, *given_up)
        except (ValueError, TypeError, AttributeError) as error:
            raise ShardError(
                f"{self.path}: the cache of scores is damaged ({error}); delete the file, or name another folder"
            ) from error

    def put(self, scores: Mapping[str, CachedScore]) -> None:
        """Add scores by checksum, all or none.

        Raises:
            ShardError: the cache cannot be written.
        """
        if not scores:
            return
        # JSON keeps every bit of a float.
        rows = [
            (bytes.fromhex(sha256), json.dumps([s.width, s.height, s.numbers, s.tiles, s.error, s.given_up]))
            for sha256, s in scores.items()
        ]
        with self._connection() as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as connection:
                connection.execute(_TABLE)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise ShardError(
                f"{self.path}: the cache of scores cannot be used ({error}); delete the file, or name another folder"
            ) from error


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected numbers, got {type(value).__name__}")
    return float(value)

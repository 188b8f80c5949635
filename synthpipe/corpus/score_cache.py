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

from synthpipe.errors import ShardError

__all__ = ["CachedScore", "ScoreCache"]

#: Seconds that a worker waits for another one's transaction.
_PATIENCE = 120
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
        # Entries of earlier versions end before what was given up.
        width, height, numbers, tiles, error, *given_up = json.loads(found[0])
        return CachedScore(width, height, None if numbers is None else tuple(numbers), tiles, error, *given_up)

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

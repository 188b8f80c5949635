"""A tar written from whole members: copied as they lie in another tar, or made of a name and bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

__all__ = ["TarSink"]

_CHUNK = 1 << 20


class TarSink:
    """A tar under way, its size and checksum.  Its bytes depend on what is written alone.

    WebDataset's own writer would sort the members of a sample and lower-case their suffixes.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.bytes = 0
        self.digest = hashlib.sha256()

    def copy(self, file: BinaryIO, blocks: Iterable[tuple[int, int]]) -> None:
        """Members as they lie in ``file``, headers and padding included; ``(begin, end)`` of each."""
        for begin, end in blocks:
            for place in range(begin, end, _CHUNK):
                data = os.pread(file.fileno(), min(_CHUNK, end - place), place)
                # A tar may end with its last member's last byte.
                self._write(data.ljust(min(_CHUNK, end - place), b"\0"))

    def add(self, name: str, data: bytes) -> None:
        """A new member, with the fixed owner, mode and time that `synthpipe shard` gives."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o444, 0
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """End the archive as tar does: two empty blocks, then up to a whole record."""
        end = self.bytes + 2 * tarfile.BLOCKSIZE
        self._write(bytes(-end % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))
        self._file.close()

    def __enter__(self) -> TarSink:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _write(self, block: bytes) -> None:
        self.bytes += len(block)
        self.digest.update(block)
        self._file.write(block)

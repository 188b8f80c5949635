"""A file that is hashed while it is written; and a tar of whole members, copied from another tar or made of bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

__all__ = ["HashingFile", "TarSink"]

_CHUNK = 1 << 20


class HashingFile:
    """A new file, its size and checksum so far.

    Args:
        path: the file to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Written so far.
        self.bytes = 0
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, block: bytes) -> int:
        """Append a block."""
        self.bytes += len(block)
        self._digest.update(block)
        return self._file.write(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class TarSink(HashingFile):
    """A tar under way.  Its bytes depend on what is written alone.

    WebDataset's own writer would sort the members of a sample and lower-case their suffixes.
    """

    def copy(self, file: BinaryIO, blocks: Iterable[tuple[int, int]]) -> None:
        """Members as they lie in ``file``, headers and padding included; ``(begin, end)`` of each."""
        for begin, end in blocks:
            for place in range(begin, end, _CHUNK):
                data = os.pread(file.fileno(), min(_CHUNK, end - place), place)
                # A tar may end with its last member's last byte.
                self.write(data.ljust(min(_CHUNK, end - place), b"\0"))

    def add(self, name: str, data: bytes) -> None:
        """A new member, with the fixed owner, mode and time that `synthpipe shard` gives."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o444, 0
        self.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.write(data)
        self.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """End the archive as tar does: two empty blocks, then up to a whole record."""
        end = self.bytes + 2 * tarfile.BLOCKSIZE
        self.write(bytes(-end % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE))
        self._file.close()

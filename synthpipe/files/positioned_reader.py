"""A file of Python's over whatever gives bytes by their place."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["PositionedReader"]


class PositionedReader(io.RawIOBase, ABC):
    """Reading and seeking; subclasses say how long the file is and what stands where."""

    def __init__(self) -> None:
        self._position = 0

    @abstractmethod
    def _read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer where the file ends."""

    @abstractmethod
    def _size(self) -> int:
        """Bytes of the file; asked for to seek from the end."""

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte; gives the new position."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        self._position = offset + (self._size() if whence == os.SEEK_END else begin[whence])
        return self._position

    def tell(self) -> int:
        """The byte that is read next."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes; gives the number of bytes."""
        data = self._read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

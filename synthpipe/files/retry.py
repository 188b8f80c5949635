"""Requests to other machines are made again where another attempt may help: so often, with such pauses, everywhere."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import IO, TypeVar

from synthpipe.files.positioned_reader import PositionedReader

__all__ = ["ATTEMPTS", "FIRST_PAUSE", "RetryingReader", "retried"]

ATTEMPTS = 3
#: Seconds before the second attempt; twice as many before each further one.
FIRST_PAUSE = 0.2

_log = logging.getLogger(__name__)

# What is not there, may not be read or cannot be asked for at all is so the next time, too.
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError, NotImplementedError)
# Answers 400 to 499 blame the request; of these it may be sent again: too slow, too early, too many.
_PASSING_STATUS = {408, 425, 429}

T = TypeVar("T")


def retried(call: Callable[[], T], name: str) -> T:
    """What ``call`` returns, at one of :data:`ATTEMPTS` attempts.

    Args:
        call: makes a request.
        name: what the log calls it.

    Raises:
        Exception: what the last attempt raised, or one that no other attempt would mend.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        # Remote file systems raise their client library's own errors.
        except Exception as error:
            if _is_lasting(error):
                raise
            _log.warning("%s: attempt %d of %d failed: %s", name, attempt, ATTEMPTS, error)
        time.sleep(pause)
        pause *= 2
    return call()


def _is_lasting(error: Exception) -> bool:
    cause = error.__cause__
    # To fsspec, whatever a server answers to a question for the size means that there is no such file.
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        return _is_lasting(cause)
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS
    return refused or isinstance(error, _LASTING)


class RetryingReader(PositionedReader):
    """A remote file that is read in parts, each of them asked for again where that fails.

    Args:
        handle: seekable; closed with this.
        name: what the log calls it.

    Reading raises OSError where no attempt succeeds.
    """

    def __init__(self, handle: IO[bytes], name: str) -> None:
        super().__init__()
        self._handle = handle
        self._name = name

    def close(self) -> None:
        """Also the file itself."""
        self._handle.close()
        super().close()

    def _size(self) -> int:
        return retried(lambda: self._handle.seek(0, os.SEEK_END), self._name)

    def _read_at(self, offset: int, size: int) -> bytes:
        def fetch() -> bytes:
            self._handle.seek(offset)
            return self._handle.read(size)

        try:
            return retried(fetch, self._name)
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise OSError(f"{self._name}: {type(error).__name__}: {error}") from error

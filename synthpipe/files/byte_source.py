"""Where the bytes of a shard come from: a local file, or a remote one copied to disk while it is used.

A remote shard is fetched by one sequential request in a background thread.  Random access by range requests would
cost a round trip for each image and does not work with every server; a sequential copy works with all, moves each
byte once, and memory holds one block of it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Protocol, cast

import fsspec

from synthpipe.errors import ShardError
from synthpipe.files import storage
from synthpipe.files.positioned_reader import PositionedReader
from synthpipe.files.retry import ATTEMPTS, FIRST_PAUSE

__all__ = ["ByteSource", "LocalFile", "Spool", "is_local", "open_remote", "open_source"]

_log = logging.getLogger(__name__)

_BLOCK = 4 << 20
_ATTEMPTS = ATTEMPTS
_FIRST_PAUSE = FIRST_PAUSE
# 141: a part of the command has written to another part that wanted no more.
_GOOD_STATUS = (0, 141)


class ByteSource(Protocol):
    """The bytes of one shard."""

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer where the shard ends; waits for bytes under way."""

    def file(self) -> BinaryIO:
        """A seekable reader from the start."""

    def size(self) -> int:
        """Bytes of the shard; waits for all that is under way."""

    def sha256(self) -> str | None:
        """Checksum of the shard, in hexadecimal; None where not all has arrived.  Any thread may ask."""

    def close(self) -> None:
        """Let go of the file."""


def is_local(url: str) -> bool:
    """Whether ``url`` is a path on this machine."""
    return not url.startswith("pipe:") and storage.is_local(url)


def open_source(url: str, spool_dir: str | None = None) -> ByteSource:
    """Open a shard.

    Raises:
        OSError: it cannot be opened; ``FileNotFoundError`` where it does not exist.
    """
    return LocalFile(storage.local_path(url)) if is_local(url) else Spool(lambda: open_remote(url), url, spool_dir)


@contextmanager
def open_remote(url: str) -> Iterator[IO[bytes]]:
    """A sequential reader of a remote shard (``http(s)``, any fsspec protocol, or ``pipe:COMMAND``).

    Raises:
        OSError: a command that fails; what remote file systems raise are errors of their own.
    """
    if url.startswith("pipe:"):
        with _open_pipe(url.removeprefix("pipe:")) as pipe:
            yield pipe
        return
    filesystem, path = fsspec.core.url_to_fs(url)
    options = storage.http_options() if url.startswith(("http://", "https://")) else {"block_size": 2 * _BLOCK}
    with filesystem.open(path, "rb", **options) as stream:
        yield stream


@contextmanager
def _open_pipe(command: str) -> Iterator[IO[bytes]]:
    """What a shell command prints; a command whose reader stops early is ended."""
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        try:
            yield cast(IO[bytes], _PipeReader(process, command))
        finally:
            process.terminate()


class _PipeReader:
    """The output of a command; its end is an error where the command has failed."""

    def __init__(self, process: subprocess.Popen[bytes], command: str) -> None:
        self._process = process
        self._command = command

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, all for -1; none at the end.

        Raises:
            OSError: at the end, where the command has failed.
        """
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if not data and size != 0 and self._process.wait() not in _GOOD_STATUS:
            raise OSError(f"pipe:{self._command}: the command failed with status {self._process.returncode}")
        return data


class LocalFile:
    """A shard on a local or mounted file system.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        # To open a named pipe would wait for whoever writes to it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(f"{path}: expected a regular file")
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer where the file ends; leaves :meth:`file` where it is."""
        # What a damaged header asks for is not set aside before the file's size is known.
        here = size if size <= _BLOCK else max(min(size, self.size() - offset), 0)
        return os.pread(self._file.fileno(), here, offset)

    def file(self) -> BinaryIO:
        """The file itself, the same at every call, wherever it has been read to."""
        return self._file

    def size(self) -> int:
        """Bytes of the file, as it is now."""
        return os.fstat(self._file.fileno()).st_size

    def sha256(self) -> str | None:
        """Checksum of the file, in hexadecimal, read by a handle of its own; None where that fails."""
        try:
            return storage.sha256_of(self._path)
        except ShardError:
            return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Spool:
    """A copy of a remote shard, in a nameless temporary file that vanishes with the process.

    Args:
        opener: returns a context manager around a sequential reader; called again after a broken transfer.
        name: what the log calls the shard.
        folder: where the copy lies; by default the system's temporary folder.
    """

    def __init__(self, opener: Callable[[], Any], name: str, folder: str | None = None) -> None:
        self._opener = opener
        self._name = name
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._arrived = threading.Condition()
        self._stop = threading.Event()
        self._available = 0
        self._finished = False
        self._sha256: str | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fetch, name=f"spool {name}", daemon=True)
        self._thread.start()

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, once they have arrived; fewer where the shard or its transfer has ended.

        Raises:
            OSError: nothing has arrived and nothing will; ``FileNotFoundError`` for a shard that is not there.
        """
        self._wait_for(offset + size)
        return os.pread(self._file.fileno(), max(min(size, self._available - offset), 0), offset)

    def file(self) -> BinaryIO:
        """A new reader from the start, which waits for what is under way, to seek from the end for all of it."""
        return cast(BinaryIO, io.BufferedReader(_SpoolReader(self), buffer_size=512))

    def size(self) -> int:
        """Bytes of the shard, once all have arrived that will."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._finished)
            return self._available

    def sha256(self) -> str | None:
        """Checksum of the shard, in hexadecimal, once all has arrived; None where the transfer has broken off."""
        self.size()
        return self._sha256

    def close(self) -> None:
        """End the transfer; the copy vanishes."""
        self._stop.set()
        self._thread.join()
        self._file.close()

    def _wait_for(self, end: int) -> None:
        with self._arrived:
            self._arrived.wait_for(lambda: self._finished or self._available >= end)
            if self._error is not None and self._available == 0:
                raise self._error

    def _fetch(self) -> None:
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._copy()
                break
            except FileNotFoundError as error:
                self._error = error
                break
            # Remote file systems raise their client library's own errors.
            except Exception as error:  # noqa: BLE001
                self._error = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
                if attempt == _ATTEMPTS or self._stop.is_set():
                    _log.warning("%s: transfer broke off after %d bytes: %s", self._name, self._available, error)
                    break
                self._stop.wait(pause)
                pause *= 2
        with self._arrived:
            self._finished = True
            self._arrived.notify_all()

    def _copy(self) -> None:
        """One transfer from the start; bytes that a broken one already brought are written over with themselves."""
        position = 0
        digest = hashlib.sha256()
        with self._opener() as stream:
            while not self._stop.is_set() and (block := stream.read(_BLOCK)):
                digest.update(block)
                view = memoryview(block)
                while view:
                    written = os.pwrite(self._file.fileno(), view, position)
                    view, position = view[written:], position + written
                with self._arrived:
                    self._available = max(self._available, position)
                    self._arrived.notify_all()
        if not self._stop.is_set():
            self._sha256 = digest.hexdigest()


class _SpoolReader(PositionedReader):
    """What a spool holds and will hold, as a file of Python's."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self._spool = spool

    def _size(self) -> int:
        return self._spool.size()

    def _read_at(self, offset: int, size: int) -> bytes:
        return self._spool.read_at(offset, size)

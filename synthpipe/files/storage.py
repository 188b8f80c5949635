"""Files on local disks and behind fsspec URLs (``s3://``, ``http://``, ``memory://``) through one set of calls.

Reading is a few functions.  Writing goes through :class:`OutputFolder`, whose files appear whole or not at all: a
local file is renamed into place, a remote object is uploaded from a finished local file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from synthpipe.errors import ShardError
from synthpipe.files.retry import RetryingReader, retried

__all__ = [
    "LARGEST_WHOLE_FILE",
    "OutputFolder",
    "absolute_url",
    "file_stamp",
    "glob_urls",
    "http_options",
    "is_known_protocol",
    "is_local",
    "join_url",
    "local_path",
    "open_url",
    "read_optional",
    "sha256_of",
]

#: Bytes of a file that is read into memory whole: plans, results, tables of one shard.
LARGEST_WHOLE_FILE = 1 << 30

_BLOCK = 1 << 20
_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}


def is_local(url: str) -> bool:
    """True for a path on this machine, ``file://`` included."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> str:
    """The path that a local ``url`` names."""
    return url.removeprefix("file://")


def absolute_url(url: str) -> str:
    """The same place from the working directory of any other process: a local path from the root on, a URL as it is."""
    return os.path.abspath(local_path(url)) if is_local(url) else url


def is_known_protocol(url: str) -> bool:
    """Whether what speaks the protocol of ``url`` (``s3://…``) is known and installed."""
    try:
        fsspec.get_filesystem_class(url.split("://")[0])
    except (ImportError, ValueError):
        return False
    return True


def join_url(folder: str, name: str) -> str:
    """``folder/name``; works for paths and URLs."""
    return f"{folder.rstrip('/')}/{name}"


@contextmanager
def open_url(url: str) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes.

    Raises:
        ShardError: it does not exist, may not be read, or its protocol is unknown or not installed.
    """
    filesystem, path = _filesystem(url)
    try:
        # A local named pipe would wait for whoever writes to it.
        if is_local(url) and not S_ISREG(os.stat(path).st_mode):
            raise OSError("no regular file")
        handle = filesystem.open(path, "rb") if is_local(url) else retried(lambda: filesystem.open(path, "rb"), url)
    # Every protocol has exceptions of its own (botocore, aiohttp).
    except Exception as error:
        raise ShardError(f"cannot open {url!r}: {_reason(error)}") from error
    if not is_local(url) and handle.seekable():
        handle = RetryingReader(handle, url)
    with handle:
        yield handle


def read_optional(url: str, largest: int = LARGEST_WHOLE_FILE) -> bytes | None:
    """The whole of a small file, or None where there is none.  A remote one is asked for again where that fails.

    Args:
        url: a path or URL.
        largest: bytes that it may have.

    Raises:
        ShardError: it may be there and cannot be read, or is larger than ``largest``.
    """
    try:
        if is_local(url):
            data = _read_local(local_path(url), largest + 1)
        else:
            filesystem, path = _filesystem(url)
            data = retried(lambda: _read_remote(filesystem, path, url, largest + 1), url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ShardError:
        raise
    except Exception as error:
        raise ShardError(f"cannot read {url!r}: {_reason(error)}") from error
    if len(data) > largest:
        raise ShardError(f"cannot read {url!r}: more than {largest} bytes, which is no file of its kind")
    return data


def _read_local(path: str, size: int) -> bytes:
    if not S_ISREG(os.stat(path).st_mode):
        raise OSError("no regular file")
    with open(path, "rb") as file:
        return file.read(size)


def _read_remote(filesystem: Any, path: str, url: str, size: int) -> bytes:
    """Up to ``size`` bytes, however many the other side would send."""
    with filesystem.open(path, "rb", **(http_options() if url.startswith(("http://", "https://")) else {})) as file:
        data = bytearray()
        # A stream gives what has arrived.
        while len(data) < size and (block := file.read(min(_BLOCK, size - len(data)))):
            data += block
        return bytes(data)


def http_options() -> dict[str, Any]:
    """How a file behind HTTP is opened to be read from its beginning to its end."""
    from fsspec.implementations import http

    return {
        # Without blocks a file is one plain stream, which needs no Range support; a size, whatever it is, spares the
        # request that would ask for it.
        "block_size": 0,
        "size": 1,
        # The default ends every transfer after five minutes.
        "timeout": http.aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60),
    }


def sha256_of(url: str) -> str:
    """Checksum of a file's content, in hexadecimal; read in blocks.

    Raises:
        ShardError: it cannot be opened.
    """
    digest = hashlib.sha256()
    with open_url(url) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def glob_urls(pattern: str) -> list[str]:
    """All files that match, sorted, spelt as the pattern is (a local path stays a path, a URL a URL)."""
    filesystem, path = _filesystem(pattern)
    try:
        listed = filesystem.glob(path) if is_local(pattern) else retried(lambda: filesystem.glob(path), pattern)
        found = sorted(str(name) for name in cast(list[str], listed))
    except Exception as error:
        raise ShardError(f"cannot list {pattern!r}: {_reason(error)}") from error
    if "://" not in pattern:
        return found
    return [str(filesystem.unstrip_protocol(name)) for name in found]


def file_stamp(url: str) -> str:
    """A text that is another one once the file has been written to, unless its size and modification time were kept.

    It is made of both, or of what an object store tells of them.

    Raises:
        ShardError: the file does not exist or cannot be reached.
    """
    try:
        if is_local(url):
            status = os.stat(local_path(url))
            return f"{status.st_size} {status.st_mtime_ns}"
        filesystem, path = fsspec.core.url_to_fs(url)
        filesystem.invalidate_cache()
        return str(retried(lambda: filesystem.ukey(path), url))
    except FileNotFoundError as error:
        raise ShardError(f"{url}: no such shard") from error
    # Every protocol has exceptions of its own.
    except Exception as error:
        raise ShardError(f"{url}: cannot be read: {_reason(error)}") from error


class OutputFolder:
    """A folder that is written to, local or remote; made where it does not exist.

    Args:
        url: a path or an fsspec URL.

    Raises:
        ShardError: it cannot be made, or the protocol is unknown or cannot write.
    """

    def __init__(self, url: str) -> None:
        if url.startswith(("http://", "https://", "pipe:")):
            raise ShardError(f"cannot write to {url!r}: expected a folder on this machine or on object storage (s3://)")
        self.url = url
        self._filesystem, self._root = _filesystem(url)
        self.local = isinstance(self._filesystem, LocalFileSystem)
        try:
            self._filesystem.makedirs(self._root, exist_ok=True)
        except Exception as error:
            raise ShardError(f"cannot make the output folder {url!r}: {_reason(error)}") from error

    def __reduce__(self) -> tuple[type[OutputFolder], tuple[str]]:
        return type(self), (self.url,)

    def names(self, subfolder: str = "") -> list[str]:
        """Sorted names of what the folder (or one below it) holds."""
        self._filesystem.invalidate_cache()
        try:
            found = self._filesystem.ls(self._path(subfolder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def size(self, name: str) -> int | None:
        """Bytes of one file, or None where there is none."""
        self._filesystem.invalidate_cache()
        try:
            return int(self._filesystem.size(self._path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes | None:
        """The whole of a small file, or None where there is none."""
        return read_optional(join_url(self.url, name))

    def sha256(self, name: str) -> str:
        """Checksum of one file, in hexadecimal."""
        return sha256_of(join_url(self.url, name))

    def publish(self, finished: Path, name: str) -> None:
        """Move a finished local file to ``name`` in this folder, replacing what is there, in one step.

        Raises:
            ShardError: it cannot be written (disk full, no permission, no network).
        """
        try:
            if self.local:
                target = Path(self._path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                _flush_to_disk(finished)
                os.replace(finished, target)
            else:
                self._filesystem.put_file(str(finished), self._path(name))
                finished.unlink()
        except Exception as error:
            raise ShardError(f"cannot write {join_url(self.url, name)!r}: {_reason(error)}") from error

    def publish_bytes(self, data: bytes, name: str, scratch: Path) -> None:
        """Write a small file in one step."""
        temporary = scratch / name.replace("/", "-")
        temporary.write_bytes(data)
        self.publish(temporary, name)

    @contextmanager
    def scratch(self, subfolder: str) -> Iterator[Path]:
        """A local folder for unfinished files: inside this folder if it is local (so that a rename is enough).

        Folders left behind by runs that were killed are removed first.
        """
        if not self.local:
            with tempfile.TemporaryDirectory(prefix="synthpipe-") as temporary:
                yield Path(temporary)
            return
        parent = Path(self._path(subfolder))
        parent.mkdir(parents=True, exist_ok=True)
        for stale in parent.glob("run-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="run-", dir=parent) as temporary:
            yield Path(temporary)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the folder against a second run on this machine; the system lets go when the process dies.

        Raises:
            ShardError: another run holds it.
        """
        if not self.local or os.name != "posix":
            yield
            return
        import fcntl

        path = Path(self._path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ShardError(f"{self.url}: another run is writing here; wait for it or stop it") from error
            except OSError:
                pass  # a file system without locks
            yield

    def _path(self, name: str) -> str:
        return join_url(self._root, name) if name else self._root


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(url.split("://")[0])
        hint = f"pip install 'synthpipe[{extra}]'" if extra else "install what the message names"
        raise ShardError(f"cannot open {url!r}: {error}; {hint}") from error
    except Exception as error:
        raise ShardError(f"cannot open {url!r}: {_reason(error)}") from error
    return filesystem, str(path)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

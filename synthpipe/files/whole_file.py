"""Files that appear whole or not at all, and whether they can be written, asked before the work of a run."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["check_file_is_writable", "check_folder_is_writable", "write_whole"]


def check_folder_is_writable(path: Path) -> None:
    """Try whether files can be made in a folder, which may have to be made itself; leaves nothing behind.

    Raises:
        OSError: with ``path`` as the file's name: no permission, a disk that is full or read-only, a file in the way.
    """
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if there.is_symlink() and not there.exists():
        raise OSError(errno.ENOENT, f"{str(there)!r} is a link that leads nowhere", str(path))
    try:
        with tempfile.TemporaryFile(prefix=".synthpipe-", dir=there) as file:
            file.write(b"0")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_file_is_writable(path: Path) -> None:
    """Try whether a file can be made or replaced; leaves nothing behind.

    Raises:
        OSError: with ``path`` as the file's name.
    """
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_folder_is_writable(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, in a folder that is made where it is missing; what was there stays until then.

    The unfinished file has a short hidden name, which a walk through images passes over.

    Raises:
        OSError: with ``path`` as the file's name: disk full, no permission, a name that is too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    temporary = path.with_name(f".synthpipe-{mark}-{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

"""Files that appear whole or not at all, whatever the length of their names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["write_whole"]


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

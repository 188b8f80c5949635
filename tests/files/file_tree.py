"""Small files by their names, for tests of what is found in folders."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["make"]


def make(folder: Path, *names: str | bytes) -> Path:
    """Write a file of one byte under each relative name, which may be bytes that are no text; returns ``folder``."""
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder

"""A corpus of odd files: every kind of image that somebody feeds to synthpipe, each with what it must become.

``python -m tests.file_corpus OUT`` writes it; nothing is downloaded, nothing random, and it takes some seconds.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from tests.file_corpus.broken_files import broken_files
from tests.file_corpus.pillow_files import pillow_files
from tests.file_corpus.png_files import png_files
from tests.file_corpus.tiff_files import tiff_files
from tests.file_corpus.truth import MAKE, OddFile, Truth

__all__ = ["MAKE", "OddFile", "Truth", "odd_files", "write_odd_files"]


@functools.cache
def odd_files() -> dict[str, OddFile]:
    """All files by name."""
    files = [*png_files(), *tiff_files(), *pillow_files(), *broken_files()]
    named = {file.name: file for file in files}
    assert len(named) == len(files), "two files of one name"
    return named


def write_odd_files(folder: Path) -> Path:
    """The corpus as files."""
    for file in odd_files().values():
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.fsencode(path), "wb") as out:
            out.write(file.data)
    return folder

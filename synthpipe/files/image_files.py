"""Image files of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthpipe.errors import ImageError, OptionError
from synthpipe.files.decode import decode_image

__all__ = ["SUFFIXES", "list_images", "read_image"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"})


def list_images(source: str | Path) -> list[Path]:
    """Image files below a folder, sorted by relative path; or the one file that ``source`` is.

    Raises:
        OptionError: ``source`` does not exist.
    """
    root = Path(source)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise OptionError(f"{root}: expected a folder of images or an image file, found nothing")
    found = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8, RGB.

    Raises:
        ImageError: the file cannot be read or is no image that :func:`decode_image` takes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}", reason="unreadable") from error
    return decode_image(data, str(path))

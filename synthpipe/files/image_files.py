"""Image files of a folder."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthpipe.errors import ImageError, OptionError
from synthpipe.files.decode import MAX_PIXELS, Decoded, decode_image
from synthpipe.files.folder_walk import image_status, walk_image_folders
from synthpipe.files.output_place import OutputPlace

__all__ = ["decode_file", "list_images", "read_file", "read_image"]


def list_images(
    source: str | Path, passed_over: Counter[str] | None = None, output: OutputPlace | None = None
) -> list[Path]:
    """Image files below a folder, sorted by relative path; or the one file that ``source`` is.

    The order, by code points of the whole path, is what seeds of training runs rest on.

    Args:
        source: a folder, searched as :mod:`synthpipe.files.folder_walk` says, or one image.
        passed_over: counts of what was found and not taken, by suffix or reason, are added here.
        output: where what is made of the images goes.

    Raises:
        OptionError: ``source`` does not exist, or ``output`` lies inside it.
        ShardError: a folder that the disk or network does not list.

    >>> from synthpipe.files.image_files import list_images, read_image
    >>> first, *_ = list_images("photos")
    >>> read_image(first).shape
    (160, 192, 3)
    """
    root = Path(source)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise OptionError(f"{root}: expected a folder of images or an image file, found nothing")
    counts = Counter[str]() if passed_over is None else passed_over
    found = [
        folder.below + name
        for folder in walk_image_folders(root, counts, output)
        for name in folder.names
        if image_status(os.path.join(folder.path, name), counts) is not None
    ]
    return [root / below for below in sorted(found)]


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8, RGB; raises what :func:`decode_file` raises."""
    return decode_file(path, max_pixels).pixels


def decode_file(path: str | Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The image of a file, and what of it was given up.

    Args:
        path: of the file.
        max_pixels: width times height, at most.

    Raises:
        ImageError: the file cannot be read or is no image that :func:`decode_image` takes.
    """
    return decode_image(read_file(path), str(path), max_pixels=max_pixels)


def read_file(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}", reason="unreadable") from error

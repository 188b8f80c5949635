"""The image formats that are read, and the suffixes that tell them: one table for folders, shards and decoding."""

from __future__ import annotations

import os

__all__ = ["IMAGE_FORMATS", "IMAGE_SUFFIXES", "has_image_suffix"]

#: Pillow's name of each format, and the suffixes of its files.  A sample of a shard that holds its image twice is read
#: by the first of these suffixes.
IMAGE_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}

#: Files with these suffixes, in any case, are taken for images.
IMAGE_SUFFIXES = tuple(suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes)


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES

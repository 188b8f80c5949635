"""The image formats that are read, and the suffixes that tell them: one table for folders, shards and decoding."""

from __future__ import annotations

import os

from synthpipe.files.containers import image_format

__all__ = ["EXTRAS", "IMAGE_FORMATS", "IMAGE_SUFFIXES", "has_image_suffix", "has_wrong_suffix"]

# A sample of a shard that holds its image twice is read by the first of these suffixes; new ones go to the end, so that
# shards of earlier versions stay what they were.
_FORMAT_OF = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}

#: Pillow's name of each format, and the suffixes of its files.
IMAGE_FORMATS = {
    name: tuple(suffix for suffix, other in _FORMAT_OF.items() if other == name)
    for name in dict.fromkeys(_FORMAT_OF.values())
}

#: Files with these suffixes, in any case, are taken for images.
IMAGE_SUFFIXES = tuple(_FORMAT_OF)

#: What to install for formats that not every Pillow reads.
EXTRAS = {"AVIF": "pip install 'synthpipe[avif]'", "HEIF": "pip install 'synthpipe[heic]'"}


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def has_wrong_suffix(name: str, data: bytes) -> bool:
    """Whether a file's name has the suffix of an image format, and its first bytes are of another one.

    >>> from synthpipe.files.image_formats import has_wrong_suffix
    >>> has_wrong_suffix("a.jpg", b"GIF89a..."), has_wrong_suffix("a.GIF", b"GIF89a...")
    (True, False)
    """
    suffix = os.path.splitext(name)[1].lower()
    return suffix in IMAGE_SUFFIXES and suffix not in IMAGE_FORMATS.get(image_format(data) or "", ())

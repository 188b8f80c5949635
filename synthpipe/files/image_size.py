"""The size of an image file from its header, without decoding the pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

from synthpipe.errors import ImageError
from synthpipe.files.decoding.open_image import MAX_PIXELS, open_image, readable

__all__ = ["image_size"]


def image_size(path: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width as stored: an EXIF orientation, which may swap them, is not applied.

    Args:
        path: of a file, or the bytes of one, all or its beginning.
        max_pixels: width times height, at most.

    Raises:
        ImageError: with ``reason`` ``"bomb"`` (more than ``max_pixels``), ``"truncated"``, ``"unsupported"`` or
            ``"unreadable"``, as decoding it has.
    """
    name = "an image" if isinstance(path, bytes) else str(path)
    try:
        with io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb") as file:
            size = _size_or_none(file, name, max_pixels)
            if size is not None:
                return size
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}", reason="unreadable") from error
    # Once more, with all of the file at hand, to say what is wrong with it.
    with readable(data, name), open_image(io.BytesIO(data), name, max_pixels) as image:
        return image.height, image.width


def _size_or_none(file: IO[bytes], name: str, max_pixels: int) -> tuple[int, int] | None:
    """None of what cannot be read as an image; raises ImageError, and OSError of the disk."""
    try:
        with open_image(file, name, max_pixels) as image:
            return image.height, image.width
    except ImageError:
        raise
    except OSError as error:
        if error.errno is not None:  # Pillow's own have none
            raise
    # Parsers of hostile bytes raise anything, from struct.error to AttributeError.
    except Exception:  # noqa: BLE001
        pass
    return None

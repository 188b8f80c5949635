"""The size of an image file from its header, without decoding the pixels."""

from __future__ import annotations

import io
from pathlib import Path

from synthpipe.errors import ImageError
from synthpipe.files.containers import image_format
from synthpipe.files.decoding.open_image import MAGIC_BYTES, MAX_PIXELS, open_image, unreadable

__all__ = ["image_size"]


def image_size(path: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width as stored: an EXIF orientation, which may swap them, is not applied.

    Args:
        path: of a file, or the bytes of one, all or its beginning.
        max_pixels: width times height, at most.

    Raises:
        ImageError: with ``reason`` ``"bomb"`` (more than ``max_pixels``), ``"unsupported"`` or ``"unreadable"``.
    """
    name = "an image" if isinstance(path, bytes) else str(path)
    found = None
    try:
        with io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb") as file:
            found = image_format(file.read(MAGIC_BYTES))
            file.seek(0)
            with open_image(file, name, max_pixels) as image:
                return image.height, image.width
    except ImageError:
        raise
    except OSError as error:
        if error.errno is None:  # of Pillow's
            raise unreadable(name, found, error) from error
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}", reason="unreadable") from error
    # Parsers of hostile bytes raise anything, from struct.error to AttributeError.
    except Exception as error:
        raise unreadable(name, found, error) from error

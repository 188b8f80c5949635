"""The size of an image file from its header, without decoding the pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from synthpipe.errors import ImageError
from synthpipe.files.decode import FORMATS

__all__ = ["image_size"]


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width as stored: an EXIF orientation, which may swap them, is not applied.

    Raises:
        ImageError: with ``reason`` ``"bomb"`` (more pixels than Pillow's limit) or ``"unreadable"``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.height, image.width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: refused, {error}", reason="bomb") from error
    # Parsers of hostile bytes raise anything, from struct.error to AttributeError.
    except Exception as error:
        message = f"{path}: not a readable {', '.join(FORMATS)} image ({type(error).__name__}: {error})"
        raise ImageError(message, reason="unreadable") from error

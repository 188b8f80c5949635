"""Open an image by its content: which decoder, how many pixels at most, and what errors mean.

None of Pillow's global settings is touched or relied on: its own limit on pixels is that of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from synthpipe.errors import ImageError
from synthpipe.files.containers import image_format, is_truncated
from synthpipe.files.image_formats import EXTRAS, IMAGE_FORMATS

__all__ = ["MAGIC_BYTES", "MAX_PIXELS", "check_pixels", "open_image", "readable", "unreadable"]

#: Images of more pixels are refused unless a command or option says otherwise; the largest cameras of phones make 200
#: million.  A file of a few kilobytes can announce any number, and decoding takes some 10 bytes for each.
MAX_PIXELS = 200_000_000

_UNKNOWN = "unknown format"
#: Bytes at the start of a file that tell its format.
MAGIC_BYTES = 256


def open_image(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """The image in ``file``, its header read, its pixels not; the caller closes it.

    Args:
        file: seekable, from the start.
        name: what errors call it.
        max_pixels: width times height, at most.

    Raises:
        ImageError: ``reason`` ``"bomb"`` or ``"unsupported"`` (a known format that is not read).
        Exception: whatever Pillow raises on a damaged header, ``UnidentifiedImageError`` on what is none; see
            :func:`readable`.
    """
    found = image_format(file.read(MAGIC_BYTES))
    file.seek(0)
    if found is None:
        raise UnidentifiedImageError(_UNKNOWN)
    factory = _factory(found)
    if factory is None:
        cure = EXTRAS.get(found, "save it in another format")
        raise ImageError(f"{name}: holds {found}, which is not read here; {cure}", reason="unsupported")
    image: ImageFile.ImageFile = factory(file, name)
    try:
        check_pixels(*image.size, name, max_pixels)
    except ImageError:
        image.close()
        raise
    return image


def check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise ImageError (``"bomb"``) for more than ``max_pixels``."""
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: refused, {width}x{height} are {width * height} pixels, more than max_pixels ({max_pixels}); "
            "raise max_pixels if you trust the file",
            reason="bomb",
        )


@contextmanager
def readable(data: bytes, name: str) -> Iterator[None]:
    """What decoders raise on ``data`` inside the block becomes an ImageError with its reason."""
    if ImageFile.LOAD_TRUNCATED_IMAGES and is_truncated(data):
        # Another library has told Pillow to fill cut-off images with grey; we still refuse them.
        raise ImageError(f"{name}: the file ends too early, after {len(data)} bytes", reason="truncated")
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: refused, {error}", reason="bomb") from error
    # Parsers of hostile bytes raise anything, from struct.error to AttributeError.
    except Exception as error:
        if is_truncated(data):
            raise ImageError(f"{name}: the file ends too early, after {len(data)} bytes", "truncated") from error
        raise unreadable(name, image_format(data), error) from error


def unreadable(name: str, found: str | None, error: Exception) -> ImageError:
    """What to say of a file that is damaged, or no image at all (``found`` is None)."""
    if found is None:
        return ImageError(
            f"{name}: not a readable image, expected {', '.join(IMAGE_FORMATS)}: {_UNKNOWN}", "unreadable"
        )
    return ImageError(f"{name}: not a readable {found} image ({type(error).__name__}: {error})", "unreadable")


def _factory(found: str) -> Any:
    """Pillow's class of the format; None where it is not there."""
    if found == "HEIF":
        try:
            import pillow_heif
        except ImportError:
            return None
        # Not by registering it with Pillow, which would change what other code of the process reads.
        return pillow_heif.HeifImageFile
    if found not in IMAGE_FORMATS:
        return None
    if found not in Image.OPEN:
        Image.init()
    return Image.OPEN[found][0] if found in Image.OPEN else None

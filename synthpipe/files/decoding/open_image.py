"""Open an image by its content: which decoder, how many pixels at most, and what errors mean.

None of Pillow's global settings is touched or relied on: its own limit on pixels is that of the process.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from synthpipe.errors import ImageError
from synthpipe.files.containers import image_format, is_truncated, tiff_pages, tiff_tags
from synthpipe.files.decoding.png_chunks import head_chunks, large_profile, without_notes
from synthpipe.files.image_formats import EXTRAS, IMAGE_FORMATS
from synthpipe.pixel_limit import MAX_PIXELS

__all__ = [
    "MAGIC_BYTES",
    "MAX_PIXELS",
    "TIFF_COLORS",
    "TiffByTags",
    "check_pixels",
    "is_animation_without_alpha",
    "open_image",
    "readable",
    "unreadable",
    "with_clear_canvas",
]

_UNKNOWN = "unknown format"
#: Bytes at the start of a file that tell its format.
MAGIC_BYTES = 256

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _SAMPLE_FORMAT, _PROFILE = 256, 257, 258, 262, 277, 339, 34675
#: Channels of colour by TIFF's photometric interpretation: white is zero, black is zero, RGB.
TIFF_COLORS = {0: 1, 1: 1, 2: 3}
_MOST_CHANNELS = 8
_UNSIGNED = 1
_WEBP_FLAGS, _WEBP_ALPHA, _WEBP_ANIMATION = 20, 0x10, 0x02
# Tags of text, and the orientation.
_TEXTS, _ORIENTATION = (270, 271, 272, 305, 306, 315, 33432), 274
# Planes, extra samples, sides of tiles.
_LAYOUT = (284, 338, 322, 323)
_NUMBERS = (*_LAYOUT, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _CHANNELS, _SAMPLE_FORMAT, _ORIENTATION)
_TAGS = frozenset({*_NUMBERS, *_TEXTS, _PROFILE})


class _UnusualSamplesError(SyntaxError):
    """Of a TIFF whose tags are in order, and whose samples nobody here reads."""


class TiffByTags(Image.Image):
    """A TIFF that Pillow does not open, such as 16-bit grey with alpha or a big-endian BigTIFF: all but its pixels.

    Args:
        data: the whole file.

    Raises:
        SyntaxError: it holds something else than whole numbers of 8 or 16 bits that are grey or RGB.
        struct.error: it ends in a directory.
    """

    format = "TIFF"

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data
        self._pages = list(tiff_pages(data))
        if not self._pages:
            raise SyntaxError("no page")
        self.seek(0)

    @property
    def n_frames(self) -> int:
        """Pages."""
        return len(self._pages)

    def seek(self, frame: int) -> None:
        """Go to a page; raises as the class does."""
        tags = tiff_tags(self._data, self._pages[frame], _TAGS)
        bits, channels = set(tags.get(_BITS, (1,))), tags.get(_CHANNELS, (1,))[0]
        if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= tags.keys():
            raise SyntaxError("a page without a size")
        formats = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
        # CMYK comes out of libtiff as RGB, by no profile.
        colors = TIFF_COLORS.get(tags[_PHOTOMETRIC][0], _MOST_CHANNELS + 1)
        if not (bits in ({8}, {16}) and formats == {_UNSIGNED} and colors <= channels <= _MOST_CHANNELS):
            raise _UnusualSamplesError(
                f"{channels} channels of {'/'.join(map(str, sorted(bits)))} bits, photometric interpretation "
                f"{tags[_PHOTOMETRIC][0]}, sample format {'/'.join(map(str, sorted(formats)))}"
            )
        self.tag_v2: dict[int, Sequence[int]] = tags
        self._frame = frame
        self._size = (tags[_WIDTH][0], tags[_HEIGHT][0])
        self.info = {"icc_profile": bytes(tags[_PROFILE])} if _PROFILE in tags else {}

    def tell(self) -> int:
        """The number of the page."""
        return self._frame

    def getexif(self) -> Image.Exif:
        """Texts about the picture, and its orientation."""
        exif = Image.Exif()
        for tag in _TEXTS:
            if tag in self.tag_v2:
                exif[tag] = bytes(self.tag_v2[tag]).rstrip(b"\0").decode("latin-1")
        if _ORIENTATION in self.tag_v2:
            exif[_ORIENTATION] = self.tag_v2[_ORIENTATION][0]
        return exif


def open_image(file: IO[bytes], name: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile | TiffByTags:
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
    image = _opened(factory, file, name, found)
    try:
        check_pixels(image, name, max_pixels)
    except ImageError:
        image.close()
        raise
    return image


def with_clear_canvas(data: bytes) -> bytes:
    """An animated WebP that says it has no alpha, so that Pillow keeps what no frame paints clear; else ``data``.

    libwebp leaves those pixels clear whatever the file says, and Pillow would take them for black.
    """
    if not is_animation_without_alpha(data):
        return data
    return data[:_WEBP_FLAGS] + bytes([data[_WEBP_FLAGS] | _WEBP_ALPHA]) + data[_WEBP_FLAGS + 1 :]


def is_animation_without_alpha(data: bytes) -> bool:
    """Whether a file is an animated WebP without the flag of alpha (RFC 9649, section 2.7)."""
    return (
        data[8:16] == b"WEBPVP8X"
        and data[_WEBP_FLAGS : _WEBP_FLAGS + 1] != b""
        and (data[_WEBP_FLAGS] & (_WEBP_ALPHA | _WEBP_ANIMATION) == _WEBP_ANIMATION)
    )


def check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise ImageError (``"bomb"``) where the page at which ``image`` stands has more than ``max_pixels``."""
    width, height = image.size
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
        text = f"refused by Pillow's own limit, which max_pixels does not raise; save it as PNG or JPEG ({error})"
        raise ImageError(f"{name}: {text}", reason="bomb") from error
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


def _opened(factory: Any, file: IO[bytes], name: str, found: str) -> ImageFile.ImageFile | TiffByTags:
    try:
        image: ImageFile.ImageFile = factory(file, name)
        return image
    # Pillow's versions say in different ways that they do not know a kind of TIFF.
    except Exception as error:
        if found == "PNG" and isinstance(error, ValueError):
            return _png_without_notes(factory, file, name)
        if found != "TIFF" or isinstance(error, Image.DecompressionBombError):
            raise
        file.seek(0)
        try:
            return TiffByTags(file.read())
        except _UnusualSamplesError as unusual:
            text = f"{name}: TIFF of {unusual}, which is not read here; save it as grey or RGB of 8 or 16 bits"
            raise ImageError(text, reason="unsupported") from error
        except (SyntaxError, struct.error):
            raise error from None


def _png_without_notes(factory: Any, file: IO[bytes], name: str) -> ImageFile.ImageFile:
    """For texts and profiles larger than Pillow allows, and colour chunks that are cut: the pixels are good."""
    file.seek(0)
    data = file.read()
    kept = without_notes(data)
    if len(kept) == len(data):
        raise ValueError("a damaged chunk")
    image: ImageFile.ImageFile = factory(io.BytesIO(kept), name)
    if {kind for kind, _ in head_chunks(data)} & {b"iCCP", b"gAMA", b"cHRM"}:
        # Without a profile here, its colours are unknown.
        image.info["icc_profile"] = large_profile(data)
    return image


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

"""Image files to arrays and back: the only place that knows file formats.

Whatever a file holds becomes 8-bit RGB, ``(H, W, 3)`` uint8, as the eye would see it:

* 16 bits a channel are scaled with rounding, ``v * 255 / 65535`` (said once, as a warning);
* grey is repeated, palettes are looked up, CMYK is converted without a colour profile;
* transparency is composited on white, or refused;
* the EXIF orientation is applied;
* of several frames or pages the first is taken.

Pillow does the reading, with its own limit on the number of pixels; none of its global settings is touched.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from synthpipe.errors import ImageError, ShapeError
from synthpipe.files.containers import is_truncated
from synthpipe.files.image_formats import IMAGE_FORMATS

__all__ = ["FORMATS", "AlphaPolicy", "BitDepthWarning", "decode_image", "encode_png", "thumbnail"]

AlphaPolicy = Literal["white", "refuse"]

#: Pillow's names of the formats that are read; everything else is refused as unreadable.
FORMATS = tuple(IMAGE_FORMATS)

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_PHOTOMETRIC_TAG = 262
_PLANAR_TAG = 284
_EXTRA_SAMPLES_TAG = 338

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_OPAQUE_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")

# Pillow keeps only the high byte of 16-bit colour.  Read as the other byte order, the "high" byte is the low one.
_NATIVE_SWAPPED = "B" if sys.byteorder == "little" else "L"
_OTHER_BYTE = {"B": "L", "L": "B", "N": _NATIVE_SWAPPED}


class BitDepthWarning(UserWarning):
    """Samples of more than 8 bits were rounded; Python shows it once for each place that decodes."""


class _Pixels(NamedTuple):
    """``color`` (H, W, 1 or 3 or 4) and ``alpha`` (H, W, 1) or None, integers from 0 to ``peak``."""

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    peak: int
    premultiplied: bool = False
    cmyk: bool = False


def decode_image(data: bytes, name: str, *, alpha: AlphaPolicy = "white") -> NDArray[np.uint8]:
    """Decode one PNG, JPEG, WebP or TIFF file.

    Args:
        data: the whole file.
        name: what errors call it.
        alpha: ``"white"`` composites on white; ``"refuse"`` raises for images with a pixel that is not opaque.

    Returns:
        ``(H, W, 3)`` uint8, RGB, writable, C-contiguous.

    Raises:
        ImageError: with ``reason`` ``"truncated"`` (the file ends too early), ``"bomb"`` (more pixels than
            Pillow's limit), ``"alpha"``, ``"unsupported"`` (32-bit or float samples, LAB), or ``"unreadable"``.
    """
    try:
        pixels, orientation = _read(data, name)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: refused, {error}", reason="bomb") from error
    # Parsers of hostile bytes raise anything, from struct.error to AttributeError.
    except Exception as error:
        if is_truncated(data):
            raise ImageError(f"{name}: the file ends too early, after {len(data)} bytes", "truncated") from error
        # Pillow's text for this error names a memory address.
        detail = "unknown format" if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"
        message = f"{name}: not a readable {', '.join(FORMATS)} image ({detail})"
        raise ImageError(message, reason="unreadable") from error
    if pixels.peak > 255:
        text = "images with more than 8 bits per channel are rounded to 8 bits"
        warnings.warn(text, BitDepthWarning, stacklevel=2)
    return _orient(_to_rgb8(pixels, name, alpha), orientation)


def encode_png(array: NDArray[np.uint8], *, optimize: bool = False) -> bytes:
    """Encode ``(H, W, 3)`` uint8 RGB as PNG; the same array gives the same bytes.

    Args:
        array: the pixels.
        optimize: a smaller file for more time.

    Raises:
        ShapeError: another shape or dtype.
    """
    buffer = io.BytesIO()
    _to_pillow(array, "encode_png").save(buffer, format="PNG", optimize=optimize)
    return buffer.getvalue()


def thumbnail(array: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB, reduced (bicubic) so that neither side has more than ``side`` pixels; never enlarged.

    Raises:
        ShapeError: another shape or dtype.
    """
    image = _to_pillow(array, "thumbnail")
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return np.array(image)


def _to_pillow(array: NDArray[np.uint8], caller: str) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ShapeError(f"{caller}: expected (H, W, 3) uint8, got {array.shape} {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def _read(data: bytes, name: str) -> tuple[_Pixels, int]:
    """The samples as stored, and the EXIF orientation 1..8 still to be applied."""
    if ImageFile.LOAD_TRUNCATED_IMAGES and is_truncated(data):
        # Another library has told Pillow to fill cut-off images with grey; we still refuse them.
        raise ImageError(f"{name}: the file ends too early, after {len(data)} bytes", reason="truncated")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _refuse_deep_planes(image, name)
        rawmode = _rawmode(image)
        premultiplied = image.mode == "RGBA" and _tiff_tag(image, _EXTRA_SAMPLES_TAG, (0,))[0] == 1
        if premultiplied and rawmode.startswith("RGBa"):
            # Pillow would divide by alpha, with a loss; we want the samples as they are.
            rawmode = rawmode.replace("a", "A", 1)
            _set_rawmode(image, rawmode)
        if image.mode.startswith("I;16"):
            pixels = _read_deep_grey(image)
        elif ";16" in rawmode and image.mode != "I":
            pixels = _read_deep_color(data, image, rawmode)
        else:
            pixels = _read_8bit(data, image, name)
        return pixels._replace(premultiplied=premultiplied), _orientation(image)


def _read_8bit(data: bytes, image: Image.Image, name: str) -> _Pixels:
    image.load()
    transparency = image.info.get("transparency")
    if image.mode in _ALPHA_MODES or (image.mode == "P" and transparency is not None):
        samples = np.array(image.convert("RGBA"))
        return _Pixels(samples[..., :3], samples[..., 3:], 255)
    if image.mode not in _OPAQUE_MODES:
        message = f"{name}: Pillow mode {image.mode!r} has no fixed range to convert from; save it as 8 or 16 bits"
        raise ImageError(message, reason="unsupported")
    if image.mode == "L" and image.format == "PNG" and transparency is not None:
        # Pillow scales 2- and 4-bit grey up, but not the transparent level.
        transparency = transparency * 255 // (2 ** data[24] - 1)
    samples = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return _with_transparent_color(samples, transparency, 255)


def _read_deep_grey(image: Image.Image) -> _Pixels:
    """12- and 16-bit grey."""
    bits = _tiff_tag(image, _BITS_PER_SAMPLE_TAG, (16,))[0]
    inverted = _tiff_tag(image, _PHOTOMETRIC_TAG, 1) == 0
    peak = 2**bits - 1
    samples = np.array(image).astype(np.uint16)[..., None]
    return _with_transparent_color(peak - samples if inverted else samples, image.info.get("transparency"), peak)


def _read_deep_color(data: bytes, image: ImageFile.ImageFile, rawmode: str) -> _Pixels:
    """16-bit colour: both bytes of each sample, by decoding twice."""
    if rawmode == "LA;16B":
        # Four bytes a pixel: read as RGBA they are grey high, grey low, alpha high, alpha low.
        _set_rawmode(image, "RGBA")
        four = np.array(image).astype(np.uint16)
        samples = four[..., 0::2] << 8 | four[..., 1::2]
        return _Pixels(samples[..., :1], samples[..., 1:], 65535)
    high = np.array(image).astype(np.uint16)
    with Image.open(io.BytesIO(data), formats=FORMATS) as again:
        _set_rawmode(again, rawmode[:-1] + _OTHER_BYTE[rawmode[-1]])
        samples = high << 8 | np.array(again)
    if image.mode == "CMYK":
        return _Pixels(samples, None, 65535, cmyk=True)
    if image.mode == "RGBA":
        return _Pixels(samples[..., :3], samples[..., 3:], 65535)
    return _with_transparent_color(samples[..., :3], image.info.get("transparency"), 65535)


def _refuse_deep_planes(image: Image.Image, name: str) -> None:
    """Pillow reads 16-bit TIFF with separate colour planes as if they were 8-bit ones."""
    bits = _tiff_tag(image, _BITS_PER_SAMPLE_TAG, (8,))
    if _tiff_tag(image, _PLANAR_TAG, 1) == 2 and len(bits) > 1 and max(bits) > 8:
        message = f"{name}: {bits} bits per sample in separate planes; save it with interleaved samples"
        raise ImageError(message, reason="unsupported")


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if image.format == "TIFF" else default  # type: ignore[attr-defined]


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the layout in the file; "" where it has none."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    tile = image.tile[0]
    args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
    image.tile = [part._replace(args=args) for part in image.tile]


def _with_transparent_color(samples: NDArray[Any], color: int | tuple[int, ...] | None, peak: int) -> _Pixels:
    """A single fully transparent colour (PNG's tRNS chunk) as an alpha channel."""
    if color is None:
        return _Pixels(samples, None, peak)
    hidden = (samples == (np.asarray(color) & peak)).all(axis=2, keepdims=True)
    return _Pixels(samples, np.where(hidden, 0, peak).astype(samples.dtype), peak)


def _to_rgb8(pixels: _Pixels, name: str, policy: AlphaPolicy) -> NDArray[np.uint8]:
    """Composite and scale to 8 bits with one rounding, in exact integers."""
    color, alpha, peak = pixels.color, pixels.alpha, pixels.peak
    if alpha is not None and (alpha == peak).all():
        alpha = None
    if alpha is None and peak == 255:
        return color
    if alpha is not None and policy == "refuse":
        raise ImageError(f"{name}: has transparency, which is refused here; flatten it or composite on white", "alpha")
    wide = color.astype(np.uint64)
    scale = peak
    if alpha is not None:
        opacity = alpha.astype(np.uint64)
        # Premultiplied colours may not exceed their alpha; files that break this are clipped.
        wide = np.minimum(wide, opacity) * peak if pixels.premultiplied else wide * opacity
        wide += peak * (peak - opacity)
        scale = peak * peak
    narrow = ((wide * 255 + scale // 2) // scale).astype(np.uint8)
    if pixels.cmyk:
        return np.array(Image.frombytes("CMYK", narrow.shape[1::-1], narrow.tobytes()).convert("RGB"))
    return np.repeat(narrow, 3, axis=2) if narrow.shape[2] == 1 else narrow


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; damaged metadata does not make an image unusable, so it counts as upright."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    except Exception:  # noqa: BLE001 - a metadata parser on hostile bytes
        return 1


def _orient(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn an image so that it stands upright; the table is EXIF 2.32, tag 0x0112."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()

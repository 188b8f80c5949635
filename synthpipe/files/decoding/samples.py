"""The samples of one page of an image file as stored: their depth, alpha and colour space, nothing composited.

Pillow reads 8 bits.  Of 16-bit colour it keeps the high bytes only, so imagecodecs (libpng, libtiff) reads that.
"""

from __future__ import annotations

import io
import sys
from typing import Any, Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from synthpipe.errors import ImageError
from synthpipe.files.decoding.open_image import TIFF_COLORS, TiffByTags, is_animation_without_alpha, open_image
from synthpipe.files.decoding.png_chunks import all_chunks

__all__ = ["Samples", "read_samples"]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _CHANNELS, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 284, 338, 339
_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 257, 322, 323
_WHITE_IS_ZERO = 0
# Tiles may be larger than the picture, but nobody makes them much larger than this.
_TILE_PIXELS = 1 << 20
_DEEP = 65535
# Channels by photometric interpretation; of a palette its index, of others three.
_COLORS = {**TIFF_COLORS, 3: 1, 5: 4}
# Of TIFF: whole and complex numbers.
_SIGNED = {2, 5}

_ALPHA_MODES = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
_OPAQUE_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "CMYK": "CMYK"}
_SPACES: dict[int, Literal["gray", "rgb", "cmyk"]] = {1: "gray", 3: "rgb", 4: "cmyk"}


class Samples(NamedTuple):
    """``color`` (H, W, 1 grey, 3 RGB or 4 CMYK) and ``alpha`` (H, W, 1) or None, whole numbers from 0 to ``peak``.

    ``premultiplied``: colours have been multiplied by their alpha.  ``cut``: the file holds more bits than these.
    ``further``: it holds channels that are neither colour nor alpha.
    """

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    peak: int
    premultiplied: bool = False
    cut: bool = False
    further: bool = False

    @property
    def space(self) -> Literal["gray", "rgb", "cmyk"]:
        """Of the colours, by their number."""
        return _SPACES[self.color.shape[2]]


def read_samples(data: bytes, image: ImageFile.ImageFile | TiffByTags, name: str) -> Samples:
    """The samples of the page at which ``image`` stands.

    Args:
        data: the whole file.
        image: opened from it.
        name: what errors call it.

    Raises:
        ImageError: ``reason`` ``"unsupported"``: 32-bit or float samples, LAB.
        Exception: whatever decoders raise on damaged pixels; see :func:`synthpipe.files.decoding.open_image.readable`.
    """
    samples = _samples(data, image, name)
    return samples._replace(further=True) if _has_further_channels(image, samples) else samples


def _samples(data: bytes, image: ImageFile.ImageFile | TiffByTags, name: str) -> Samples:
    if image.format == "TIFF":
        _check_tiles(image, name)
    if isinstance(image, TiffByTags):
        return _tiff_page(data, image, name)
    # Of an animation, libpng reads the first frame alone; Pillow has the others, with the high bytes of colours.
    if image.format == "PNG" and data[24] == 16 and image.mode != "I;16" and image.tell() == 0:
        _find_exif(image, data)
        return _split(imagecodecs.png_decode(data), _png_channels(data), image.info.get("transparency"))
    if image.format == "TIFF":
        _check_rows(image)
        if set(_tiff_tag(image, _SAMPLE_FORMAT, ())) & _SIGNED:
            raise ImageError(f"{name}: samples with a sign; save it with 8 or 16 bits without", reason="unsupported")
        bits = _tiff_tag(image, _BITS_PER_SAMPLE, (8,))
        if len(bits) > 1 and max(bits) == 16 and image.mode == "CMYK" and _tiff_tag(image, _PLANAR, 1) == 1:
            return _deep_inks(data, image)
        if len(bits) > 1 and max(bits) == 16 and image.mode != "CMYK":
            return _tiff_page(data, image, name)
        if len(bits) > 1 and max(bits) > 8:
            raise ImageError(f"{name}: {bits} bits per sample; save it with 8 or 16 bits", reason="unsupported")
        if _is_above_pillows_limit(image):
            return _tiff_page(data, image, name)
    if image.mode.startswith("I;16"):
        return _deep_grey(image)
    return _eight_bits(data, image, name)


def _is_above_pillows_limit(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would warn of a compressed TIFF, or refuse it, by a limit of its own that is not ours."""
    limit = Image.MAX_IMAGE_PIXELS
    plain = image.mode in ("L", "RGB", "RGBA") and _tiff_tag(image, _PHOTOMETRIC, -1) in (0, 1, 2)
    return plain and limit is not None and image.size[0] * image.size[1] > limit


def _eight_bits(data: bytes, image: ImageFile.ImageFile, name: str) -> Samples:
    premultiplied = image.format == "TIFF" and image.mode == "RGBA" and _tiff_tag(image, _EXTRA_SAMPLES, (0,))[0] == 1
    if premultiplied:
        _keep_premultiplied(image)
    image.load()
    transparency = image.info.get("transparency")
    if image.mode in _ALPHA_MODES or (image.mode == "P" and transparency is not None):
        wanted = _ALPHA_MODES.get(image.mode, "RGBA")
        samples = np.asarray(image if image.mode == wanted else image.convert(wanted))
        if is_animation_without_alpha(data) and int(samples[..., -1].min()) == 255:
            return Samples(samples[..., :-1], None, 255)
        return Samples(samples[..., :-1], samples[..., -1:], 255, premultiplied, _has_deep_samples(data, image))
    if image.mode not in _OPAQUE_MODES:
        message = f"{name}: Pillow mode {image.mode!r} has no fixed range to convert from; save it as 8 or 16 bits"
        raise ImageError(message, reason="unsupported")
    if image.mode == "L" and image.format == "PNG" and transparency is not None:
        # Pillow scales 2- and 4-bit grey up, but not the transparent level.
        transparency = transparency * 255 // (2 ** data[24] - 1)
    wanted = _OPAQUE_MODES[image.mode]
    samples = np.array(image if image.mode == wanted else image.convert(wanted))
    samples = samples if samples.ndim == 3 else samples[..., None]
    return _with_transparent_color(Samples(samples, None, 255, cut=_has_deep_samples(data, image)), transparency)


def _deep_grey(image: ImageFile.ImageFile) -> Samples:
    """12- and 16-bit grey."""
    bits = _tiff_tag(image, _BITS_PER_SAMPLE, (16,))[0]
    peak = 2**bits - 1
    samples = np.array(image).astype(np.uint16)[..., None]
    if _tiff_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        samples = peak - samples
    return _with_transparent_color(Samples(samples, None, peak), image.info.get("transparency"))


def _check_rows(image: ImageFile.ImageFile) -> None:
    """Of strips and tiles, Pillow decodes those that are there, and leaves the other rows black without a word."""
    rows, height = (
        max((part.extents[3] for part in image.tile if part.extents), default=0),
        _tiff_number(image, _HEIGHT, 0),
    )
    if rows < height:
        raise ValueError(f"pixels of {rows} rows for a height of {height}")


def _check_tiles(image: ImageFile.ImageFile | TiffByTags, name: str) -> None:
    """Decoders set memory aside for a whole tile before they look at its bytes."""
    tile = _tiff_number(image, _TILE_WIDTH, 0) * _tiff_number(image, _TILE_HEIGHT, 0)
    if tile > 4 * max(image.width * image.height, _TILE_PIXELS):
        raise ImageError(f"{name}: refused, tiles of {tile} pixels for {image.width}x{image.height}", reason="bomb")


def _tiff_page(data: bytes, image: ImageFile.ImageFile | TiffByTags, name: str) -> Samples:
    """8 or 16 bits a channel, by libtiff, which sets aside what tags say before it looks at the pixels."""
    try:
        samples = imagecodecs.tiff_decode(data, index=image.tell())
    except MemoryError as error:
        raise ImageError(f"{name}: refused, decoding it takes more memory than there is ({error})", "bomb") from error
    if samples.ndim == 3 and _tiff_number(image, _PLANAR, 1) == 2:
        samples = samples.transpose(1, 2, 0)
    samples = samples if samples.ndim == 3 else samples[..., None]
    photometric = _tiff_number(image, _PHOTOMETRIC, -1)
    colors = TIFF_COLORS.get(photometric, 3 if samples.shape[2] >= 3 else 1)
    # 1 is alpha that colours were multiplied with, 2 plain alpha, 0 anything.
    extra = _tiff_number(image, _EXTRA_SAMPLES, 2)
    alpha = samples[..., colors : colors + 1] if samples.shape[2] > colors and extra in (1, 2) else None
    color, peak = samples[..., :colors], int(np.iinfo(samples.dtype).max)
    color = peak - color if photometric == _WHITE_IS_ZERO else color
    return Samples(color, alpha, peak, premultiplied=alpha is not None and extra == 1)


def _deep_inks(data: bytes, image: ImageFile.ImageFile) -> Samples:
    """16-bit CMYK, which imagecodecs does not read: Pillow gives the high bytes, and the low ones as high ones."""
    page = image.tell()
    high = np.array(image).astype(np.uint16)
    with open_image(io.BytesIO(data), "") as again:
        again.seek(page)
        swapped = [part._replace(args=_of_other_order(part.args)) for part in again.tile]  # type: ignore[union-attr]
        again.tile = swapped  # type: ignore[union-attr]
        return Samples(high << 8 | np.array(again), None, _DEEP)


def _of_other_order(args: Any) -> Any:
    """Pillow's arguments to decode the samples as if their bytes came the other way round."""
    mode, *rest = args if isinstance(args, tuple) else (args,)
    native = "B" if sys.byteorder == "little" else "L"
    swapped = mode[:-1] + {"B": "L", "L": "B", "N": native}[mode[-1]]
    return (swapped, *rest) if isinstance(args, tuple) else swapped


def _split(samples: NDArray[Any], channels: int, transparency: Any) -> Samples:
    """Of 16-bit PNG, whose transparent colour the decoder may have made an alpha channel."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    colors = channels - (channels + 1) % 2
    if samples.shape[2] > colors:
        return Samples(samples[..., :colors], samples[..., colors:], _DEEP)
    return _with_transparent_color(Samples(samples, None, _DEEP), transparency)


def _find_exif(image: ImageFile.ImageFile, data: bytes) -> None:
    """EXIF may stand behind the pixels: to find it Pillow would decode them, which has been done."""
    if not {"exif", "Raw profile type exif"} & set(image.info):
        image.info["exif"] = next((bytes(payload) for kind, payload in all_chunks(data) if kind == b"eXIf"), b"")


def _png_channels(data: bytes) -> int:
    return {0: 1, 2: 3, 4: 2, 6: 4}[data[25]]


def _has_deep_samples(data: bytes, image: Image.Image) -> bool:
    """Whether PNG, or AVIF and HEIC by their ``pixi`` box (ISO/IEC 23008-12, 6.5.6), hold more bits than come out."""
    if image.format == "PNG":
        return data[24] == 16
    if image.format not in ("AVIF", "HEIF"):
        return False
    at = data.find(b"pixi")
    return 0 <= at < len(data) - 9 and any(bits > 8 for bits in data[at + 9 : at + 9 + data[at + 8]])


def _has_further_channels(image: ImageFile.ImageFile | TiffByTags, samples: Samples) -> bool:
    """Such as the near infrared beside RGB, and all but the first stain of a microscope."""
    if image.format != "TIFF":
        return False
    used = _COLORS.get(_tiff_number(image, _PHOTOMETRIC, -1), 3) + (samples.alpha is not None)
    return _tiff_number(image, _CHANNELS, 1) > used


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if image.format == "TIFF" else default  # type: ignore[attr-defined]


def _tiff_number(image: ImageFile.ImageFile | TiffByTags, tag: int, default: int) -> int:
    """The first number of a tag, of which Pillow gives some without and some with a tuple around them."""
    value: Any = image.tag_v2.get(tag, default)  # type: ignore[union-attr]
    return int(value if isinstance(value, int) else value[0]) if value != () else default


def _keep_premultiplied(image: ImageFile.ImageFile) -> None:
    """Pillow would divide by alpha, with a loss; we want the samples as they are."""

    def kept(args: Any) -> Any:
        first = args[0] if isinstance(args, tuple) and args else args
        if not (isinstance(first, str) and first.startswith("RGBa")):
            return args
        return ("RGBA" + first[4:], *args[1:]) if isinstance(args, tuple) else "RGBA" + first[4:]

    image.tile = [part._replace(args=kept(part.args)) for part in image.tile]


def _with_transparent_color(samples: Samples, color: int | tuple[int, ...] | None) -> Samples:
    """A single fully transparent colour (PNG's tRNS chunk) as an alpha channel."""
    if color is None or isinstance(color, bytes):
        return samples
    hidden = (samples.color == (np.asarray(color) & samples.peak)).all(axis=2, keepdims=True)
    alpha = np.where(hidden, 0, samples.peak).astype(samples.color.dtype)
    return samples._replace(alpha=alpha)

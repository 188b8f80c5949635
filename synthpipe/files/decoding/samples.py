"""The samples of one page of an image file as stored: their depth, alpha and colour space, nothing composited.

Pillow reads 8 bits.  Of 16-bit colour it keeps the high bytes only, so imagecodecs (libpng, libtiff) reads that.
"""

from __future__ import annotations

import io
from typing import Any, Literal, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from synthpipe.errors import ImageError
from synthpipe.files.containers import tiff_tags
from synthpipe.files.decoding.open_image import check_pixels, open_image
from synthpipe.files.decoding.png_chunks import all_chunks

__all__ = ["Samples", "open_or_read", "read_samples"]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES_PER_PIXEL, _PLANAR, _EXTRA_SAMPLES = 258, 262, 277, 284, 338
_WIDTH, _HEIGHT, _SAMPLE_FORMAT = 256, 257, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATED = 0, 1, 2, 5
_DEEP = 65535

_ALPHA_MODES = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
_OPAQUE_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "CMYK": "CMYK"}
_SPACES: dict[int, Literal["gray", "rgb", "cmyk"]] = {1: "gray", 3: "rgb", 4: "cmyk"}


class Samples(NamedTuple):
    """``color`` (H, W, 1 grey, 3 RGB or 4 CMYK) and ``alpha`` (H, W, 1) or None, whole numbers from 0 to ``peak``.

    ``premultiplied``: colours have been multiplied by their alpha.  ``cut``: the file holds more bits than these.
    """

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    peak: int
    premultiplied: bool = False
    cut: bool = False

    @property
    def space(self) -> Literal["gray", "rgb", "cmyk"]:
        """Of the colours, by their number."""
        return _SPACES[self.color.shape[2]]


def read_samples(data: bytes, image: ImageFile.ImageFile, name: str) -> Samples:
    """The samples of the page at which ``image`` stands.

    Args:
        data: the whole file.
        image: opened from it.
        name: what errors call it.

    Raises:
        ImageError: ``reason`` ``"unsupported"``: 32-bit or float samples, LAB.
        Exception: whatever decoders raise on damaged pixels; see :func:`synthpipe.files.decoding.open_image.readable`.
    """
    if image.format == "PNG" and data[24] == 16 and image.mode != "I;16":
        _find_exif(image, data)
        return _split(imagecodecs.png_decode(data), _png_channels(data), image.info.get("transparency"))
    if image.format == "TIFF":
        bits, planar = _tiff_tag(image, _BITS_PER_SAMPLE, (8,)), _tiff_tag(image, _PLANAR, 1)
        if len(bits) > 1 and max(bits) == 16 and image.mode != "CMYK":
            return _deep_tiff_page(data, image.tell(), planar, _tiff_tag(image, _EXTRA_SAMPLES, ()))
        if len(bits) > 1 and max(bits) > 8 and image.mode != "CMYK":
            raise ImageError(f"{name}: {bits} bits per sample; save it with 8 or 16 bits", reason="unsupported")
    if image.mode.startswith("I;16"):
        return _deep_grey(image)
    return _eight_bits(data, image, name)


def open_or_read(data: bytes, name: str, max_pixels: int) -> ImageFile.ImageFile | Samples:
    """The image, opened; of a TIFF that Pillow does not open, such as 16-bit grey with alpha, its first page.

    Raises:
        ImageError: ``reason`` ``"bomb"`` or ``"unsupported"``.
        Exception: as :func:`synthpipe.files.decoding.open_image.open_image` and :func:`read_samples`.
    """
    try:
        return open_image(io.BytesIO(data), name, max_pixels)
    except SyntaxError:
        deep = _read_deep_tiff(data, name, max_pixels)
        if deep is None:
            raise
        return deep


def _read_deep_tiff(data: bytes, name: str, max_pixels: int) -> Samples | None:
    tags = tiff_tags(data) or {}
    bits = tags.get(_BITS_PER_SAMPLE, ())
    unsigned = set(tags.get(_SAMPLE_FORMAT, (1,))) == {1}
    photometric = tags.get(_PHOTOMETRIC, (-1,))[0]
    if not bits or set(bits) != {16} or not unsigned or photometric not in (_BLACK_IS_ZERO, _RGB):
        return None
    # libtiff allocates what the header says, all channels of it.
    check_pixels(tags[_WIDTH][0] * len(bits), tags[_HEIGHT][0], name, 4 * max_pixels)
    return _deep_tiff_page(data, 0, tags.get(_PLANAR, (1,))[0], tags.get(_EXTRA_SAMPLES, ()))


def _eight_bits(data: bytes, image: ImageFile.ImageFile, name: str) -> Samples:
    premultiplied = image.format == "TIFF" and image.mode == "RGBA" and _tiff_tag(image, _EXTRA_SAMPLES, (0,))[0] == 1
    if premultiplied:
        _keep_premultiplied(image)
    image.load()
    transparency = image.info.get("transparency")
    if image.mode in _ALPHA_MODES or (image.mode == "P" and transparency is not None):
        wanted = _ALPHA_MODES.get(image.mode, "RGBA")
        samples = np.asarray(image if image.mode == wanted else image.convert(wanted))
        return Samples(samples[..., :-1], samples[..., -1:], 255, premultiplied)
    if image.mode not in _OPAQUE_MODES:
        message = f"{name}: Pillow mode {image.mode!r} has no fixed range to convert from; save it as 8 or 16 bits"
        raise ImageError(message, reason="unsupported")
    if image.mode == "L" and image.format == "PNG" and transparency is not None:
        # Pillow scales 2- and 4-bit grey up, but not the transparent level.
        transparency = transparency * 255 // (2 ** data[24] - 1)
    wanted = _OPAQUE_MODES[image.mode]
    samples = np.array(image if image.mode == wanted else image.convert(wanted))
    samples = samples if samples.ndim == 3 else samples[..., None]
    cut = image.mode == "CMYK" and max(_tiff_tag(image, _BITS_PER_SAMPLE, (8,))) > 8
    return _with_transparent_color(Samples(samples, None, 255, cut=cut or _has_deep_samples(data, image)), transparency)


def _deep_grey(image: ImageFile.ImageFile) -> Samples:
    """12- and 16-bit grey."""
    bits = _tiff_tag(image, _BITS_PER_SAMPLE, (16,))[0]
    peak = 2**bits - 1
    samples = np.array(image).astype(np.uint16)[..., None]
    if _tiff_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        samples = peak - samples
    return _with_transparent_color(Samples(samples, None, peak), image.info.get("transparency"))


def _deep_tiff_page(data: bytes, page: int, planar: int, extra: tuple[int, ...]) -> Samples:
    samples = imagecodecs.tiff_decode(data, index=page)
    if samples.ndim == 3 and planar == 2:
        samples = samples.transpose(1, 2, 0)
    samples = samples if samples.ndim == 3 else samples[..., None]
    colors = 3 if samples.shape[2] >= 3 else 1
    # 1 is alpha that colours were multiplied with, 2 plain alpha, 0 anything.
    has_alpha = samples.shape[2] > colors and (not extra or extra[0] in (1, 2))
    alpha = samples[..., colors : colors + 1] if has_alpha else None
    return Samples(samples[..., :colors], alpha, _DEEP, bool(has_alpha and extra and extra[0] == 1))


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
    """Whether AVIF or HEIC holds more bits than the 8 that come out: its ``pixi`` box (ISO/IEC 23008-12, 6.5.6)."""
    if image.format not in ("AVIF", "HEIF"):
        return False
    at = data.find(b"pixi")
    return 0 <= at < len(data) - 9 and any(bits > 8 for bits in data[at + 9 : at + 9 + data[at + 8]])


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    return image.tag_v2.get(tag, default) if image.format == "TIFF" else default  # type: ignore[attr-defined]


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

"""Image files at their own depth, for commands that write back what came in: grey, alpha, 16 bits, EXIF, all pages."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from synthpipe.errors import ImageError, ShapeError
from synthpipe.files.decoding import srgb
from synthpipe.files.decoding.color_profile import ProfileFound, find_profile
from synthpipe.files.decoding.open_image import (
    MAX_PIXELS,
    TiffByTags,
    check_pixels,
    open_image,
    readable,
    with_clear_canvas,
)
from synthpipe.files.decoding.samples import Samples, read_samples

__all__ = ["Original", "encode_original", "read_pages"]

_DEEP = 65535
_EXIF_IFD, _INTEROPERABILITY_IFD, _COLOR_SPACE, _ORIENTATION = 0x8769, 0xA005, 0xA001, 0x0112
_SRGB = 1
# Of TIFF, whose EXIF is the directory that also describes the pixels: description, make, model, resolution, software,
# date, artist, host, copyright, and the directories of EXIF and GPS.
_KEPT_OF_TIFF = frozenset({270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, _EXIF_IFD, 0x8825})
_AFTER_IHDR = 33


@dataclass(frozen=True)
class Original:
    """One page of an image file, upright, sRGB.

    Args:
        color: ``(H, W, 1)`` grey or ``(H, W, 3)``, uint8 or uint16; colours are not multiplied by alpha.
        alpha: ``(H, W, 1)`` of the same dtype, whose largest value is opaque; None where the file has none.
        peak: the value of white: 255, 65535, or less for 16-bit samples of a sensor of fewer bits.
        exif: a TIFF structure without the orientation, which has been applied; None where there is none.
        given_up: what the file holds and this page does not, by the reasons of ``decode.GIVEN_UP``.
        page: number of this page, from 0.
        pages: how many there are to read.
    """

    color: NDArray[Any]
    alpha: NDArray[Any] | None
    peak: int
    exif: bytes | None
    given_up: Mapping[str, int]
    page: int
    pages: int


def read_pages(
    data: bytes, name: str, *, value_range: int | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[Original]:
    """Every page or frame of a file, one at a time.  The preview inside a photograph (MPO) counts as given up.

    Args:
        data: the whole file.
        name: what errors call it.
        value_range: the value of white in 16-bit samples; None: 65535, or the least sensor range (4095, 1023) that
            holds all of a page that stays below, which is said as ``narrow_range``.
        max_pixels: width times height of a page, at most.

    Raises:
        ImageError: as :func:`synthpipe.files.decode.decode_image`; ``"out_of_range"`` for values above ``value_range``.
    """
    file = io.BytesIO(with_clear_canvas(data))
    with readable(data, name), open_image(file, name, max_pixels) as image:
        more = srgb.further_pages(image)
        skipped = {srgb.FURTHER_PAGES: more} if more and image.format == "MPO" else {}
        pages = 1 if skipped else 1 + more
        for page in range(pages):
            yield _page(data, image, _Where(name, value_range, max_pixels, page, pages, skipped))


def encode_original(color: NDArray[Any], alpha: NDArray[Any] | None = None, exif: bytes | None = None) -> bytes:
    """A PNG of 8 or 16 bits a channel, grey or RGB, with or without alpha; the same arrays give the same bytes.

    Args:
        color: ``(H, W, 1)`` or ``(H, W, 3)``, uint8 or uint16.
        alpha: ``(H, W, 1)`` of the same dtype.
        exif: as in :class:`Original`.

    Raises:
        ShapeError: other shapes or dtypes.
    """
    fits = color.ndim == 3 and color.shape[2] in (1, 3) and color.dtype in (np.uint8, np.uint16) and color.size > 0
    if not fits or (alpha is not None and (alpha.shape, alpha.dtype) != ((*color.shape[:2], 1), color.dtype)):
        raise ShapeError(
            "encode_original: expected colour (H, W, 1 or 3) and alpha (H, W, 1), both uint8 or both uint16, got "
            f"{color.shape} {color.dtype}" + ("" if alpha is None else f" and {alpha.shape} {alpha.dtype}")
        )
    samples = color if alpha is None else np.concatenate([color, alpha], axis=2)
    samples = np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    if color.dtype == np.uint8:
        buffer = io.BytesIO()
        Image.fromarray(samples).save(buffer, format="PNG", **({} if exif is None else {"exif": exif}))
        return buffer.getvalue()
    data = bytes(imagecodecs.png_encode(samples))
    return data if exif is None else data[:_AFTER_IHDR] + _chunk(b"eXIf", exif) + data[_AFTER_IHDR:]


class _Where(NamedTuple):
    """What is known of a page before it is read."""

    name: str
    value_range: int | None
    max_pixels: int
    page: int = 0
    pages: int = 1
    skipped: Mapping[str, int] = {}


def _page(data: bytes, image: ImageFile.ImageFile | TiffByTags, where: _Where) -> Original:
    image.seek(where.page)
    check_pixels(image, where.name, where.max_pixels)
    found = find_profile(image, data)
    samples = read_samples(data, image, where.name)
    # The orientation only now: Pillow turns TIFF itself where it decodes it.
    turn = srgb.orientation(image)
    return _original(samples, found, turn, _exif(image, found is not None), where)


def _original(samples: Samples, found: ProfileFound | None, turn: int, exif: bytes | None, where: _Where) -> Original:
    given_up = dict(where.skipped)
    if samples.cut:
        given_up[srgb.REDUCED_DEPTH] = 1
    if samples.further:
        given_up[srgb.FURTHER_CHANNELS] = 1
    samples = _all_16_bits(srgb.straight_alpha(samples))
    peak = samples.peak
    if peak == _DEEP:
        peak = srgb.data_range(samples) if where.value_range is None else where.value_range
        largest = int(samples.color.max())
        if largest > peak:
            message = f"{where.name}: holds values up to {largest}, above the range {peak}; give a larger one"
            raise ImageError(message, reason="out_of_range")
        if peak < _DEEP and where.value_range is None:
            given_up[srgb.NARROW_RANGE] = 1
    # Alpha of such a file has its own, full range.
    alpha = samples.alpha
    samples, reason = srgb.to_srgb(samples._replace(alpha=None, peak=peak), found)
    if reason is not None:
        given_up[reason] = 1
    color = srgb.rescaled(samples.color, samples.peak, peak)
    return Original(
        srgb.upright(color, turn),
        None if alpha is None else srgb.upright(alpha, turn),
        peak,
        exif,
        given_up,
        where.page,
        where.pages,
    )


def _all_16_bits(samples: Samples) -> Samples:
    """Samples of 9 to 15 bits, as some TIFF say they have, in the full range of 16."""
    if samples.peak in (255, _DEEP):
        return samples
    alpha = None if samples.alpha is None else srgb.rescaled(samples.alpha, samples.peak, _DEEP)
    return samples._replace(color=srgb.rescaled(samples.color, samples.peak, _DEEP), alpha=alpha, peak=_DEEP)


def _exif(image: ImageFile.ImageFile | TiffByTags, converted: bool) -> bytes | None:
    """What can be kept; a block that cannot be read is not."""
    try:
        exif = image.getexif()
        exif.pop(_ORIENTATION, None)
        if image.format == "TIFF":
            for tag in [tag for tag in exif if tag not in _KEPT_OF_TIFF]:
                del exif[tag]
        if converted and _EXIF_IFD in exif:
            details = exif.get_ifd(_EXIF_IFD)
            # They would say Adobe RGB of what is sRGB now.
            details.pop(_INTEROPERABILITY_IFD, None)
            details[_COLOR_SPACE] = _SRGB
        return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) else None
    except Exception:  # noqa: BLE001 - a metadata parser on hostile bytes
        return None


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

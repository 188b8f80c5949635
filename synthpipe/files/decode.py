"""Image files to arrays of 8-bit sRGB and back.

Whatever a file holds becomes ``(H, W, 3)`` uint8, as the eye would see it, and what is lost by that is said:

* colours are converted to sRGB by the profile (:mod:`synthpipe.files.decoding.color_profile`), CMYK without one by a
  formula;
* 16 bits a channel are scaled with rounding, ``v * 255 / 65535``;
* grey is repeated, palettes are looked up;
* transparency is composited on white, or refused;
* the EXIF orientation is applied;
* of several frames or pages the first is taken.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthpipe.errors import ImageError, ShapeError
from synthpipe.files.decoding import srgb
from synthpipe.files.decoding.color_profile import ProfileFound, find_profile
from synthpipe.files.decoding.open_image import MAX_PIXELS, open_image, readable, with_clear_canvas
from synthpipe.files.decoding.samples import Samples, read_samples
from synthpipe.files.decoding.srgb import (
    CONVERTED_PROFILE,
    FURTHER_CHANNELS,
    FURTHER_PAGES,
    NARROW_RANGE,
    REDUCED_DEPTH,
    UNKNOWN_PROFILE,
)

if TYPE_CHECKING:
    from synthpipe.files.original import Original

__all__ = [
    "GIVEN_UP",
    "MAX_PIXELS",
    "AlphaPolicy",
    "Decoded",
    "decode_image",
    "encode_png",
    "flatten_page",
    "thumbnail",
]

AlphaPolicy = Literal["white", "refuse"]

FLATTENED_ALPHA = "flattened_alpha"
GREY_TO_RGB = "grey_to_rgb"

#: What an image may lose on the way to 8-bit sRGB, and what to tell people of it.
GIVEN_UP = {
    CONVERTED_PROFILE: "colours converted to sRGB by the profile",
    UNKNOWN_PROFILE: "colours taken for sRGB: a profile that is broken or cannot be used, or CMYK without one",
    FLATTENED_ALPHA: "transparency composited on white",
    GREY_TO_RGB: "one grey channel repeated three times",
    REDUCED_DEPTH: "more than 8 bits a channel rounded to 8",
    NARROW_RANGE: "16-bit values that all lie below 4096, of a 10- or 12-bit sensor perhaps: dark in streams and "
    "tables, where 65535 is white; degrade, denoise and restore take their --range for white",
    FURTHER_CHANNELS: "channels beside grey or colours and alpha, not used",
    FURTHER_PAGES: "pages or frames after the first, not used",
}

# Rows are composited in blocks of about so many samples: what is wider than a byte stays in the processor's cache.
_BLOCK = 1 << 18
_DEEP = 65535


class Decoded(NamedTuple):
    """``pixels`` ``(H, W, 3)`` uint8, sRGB, upright, writable, C-contiguous; ``given_up`` as in :data:`GIVEN_UP`.

    A reason counts 1, ``further_pages`` the pages.
    """

    pixels: NDArray[np.uint8]
    given_up: Mapping[str, int]


def decode_image(data: bytes, name: str, *, alpha: AlphaPolicy = "white", max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode a file of one of the formats of :mod:`synthpipe.files.image_formats`, whatever its suffix.

    Args:
        data: the whole file.
        name: what errors call it.
        alpha: ``"white"`` composites on white; ``"refuse"`` raises for images with a pixel that is not opaque.
        max_pixels: width times height, at most.

    Raises:
        ImageError: with ``reason`` ``"truncated"`` (the file ends too early), ``"bomb"`` (more than ``max_pixels``),
            ``"alpha"``, ``"unsupported"`` (32-bit or float samples, LAB, a format that is not installed), or
            ``"unreadable"``.

    >>> from pathlib import Path
    >>> from synthpipe.files.decode import decode_image
    >>> path = min(Path("photos").glob("*.png"))
    >>> pixels, given_up = decode_image(path.read_bytes(), path.name)
    >>> pixels.shape, given_up
    ((160, 192, 3), {})
    """
    with readable(data, name):
        samples, found, turn, more = _read(data, name, max_pixels)
    given_up: dict[str, int] = {}
    if srgb.data_range(samples) != samples.peak:
        given_up[NARROW_RANGE] = 1
    samples, reason = srgb.to_srgb(samples, found)
    if reason is not None:
        given_up[reason] = 1
    if alpha == "refuse" and _is_seen_through(samples):
        text = f"{name}: has transparency, which is refused here; flatten it or composite on white"
        raise ImageError(text, reason="alpha")
    pixels, lost = _flattened(samples)
    given_up |= lost
    if samples.further:
        given_up[FURTHER_CHANNELS] = 1
    if more:
        given_up[FURTHER_PAGES] = more
    return Decoded(srgb.upright(pixels, turn), given_up)


def flatten_page(page: Original) -> Decoded:
    """A page read at its own depth as :func:`decode_image` gives the first; ``page.peak`` is white.

    So 12-bit samples in a 16-bit file fill the range here, where ``decode_image`` shows them dark.

    >>> from pathlib import Path
    >>> from synthpipe.files.decode import flatten_page
    >>> from synthpipe.files.original import read_pages
    >>> path = min(Path("photos").glob("*.png"))
    >>> page, = read_pages(path.read_bytes(), path.name)
    >>> flatten_page(page).pixels.shape
    (160, 192, 3)
    """
    color, alpha, peak = page.color, page.alpha, page.peak
    if alpha is not None:
        alpha = srgb.rescaled(alpha, int(np.iinfo(alpha.dtype).max), peak)
    if peak == 255:
        # Also of 16-bit samples that need no more.
        color, alpha = color.astype(np.uint8), None if alpha is None else alpha.astype(np.uint8)
    pixels, lost = _flattened(Samples(color, alpha, peak))
    return Decoded(srgb.upright(pixels, 1), {**page.given_up, **lost})


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


def _read(data: bytes, name: str, max_pixels: int) -> tuple[Samples, ProfileFound | None, int, int]:
    """Samples of the first page as stored, its profile, its orientation, and how many pages follow."""
    with open_image(io.BytesIO(with_clear_canvas(data)), name, max_pixels) as image:
        found, more = find_profile(image, data), srgb.further_pages(image)
        samples = read_samples(data, image, name)
        # Only now: Pillow turns TIFF itself where it decodes it.
        return samples, found, srgb.orientation(image), more


def _is_seen_through(samples: Samples) -> bool:
    return samples.alpha is not None and int(samples.alpha.min()) < samples.peak


def _flattened(samples: Samples) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """``(H, W, 3)`` on white, and what was given up by that."""
    given_up: dict[str, int] = {}
    if _is_seen_through(samples):
        given_up[FLATTENED_ALPHA] = 1
    else:
        samples = samples._replace(alpha=None, premultiplied=False)
    if samples.cut or (samples.peak > 255 and _loses_depth(samples)):
        given_up[REDUCED_DEPTH] = 1
    pixels = _to_8bit(samples)
    if pixels.shape[2] == 1:
        given_up[GREY_TO_RGB] = 1
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels, given_up


def _loses_depth(samples: Samples) -> bool:
    """Whether 8 bits hold less: not of what was 8 bits before, each value 257 times another."""
    if samples.peak != _DEEP:
        return True
    parts = [samples.color] if samples.alpha is None else [samples.color, samples.alpha]
    return any(bool((rows >> 8 != rows & 255).any()) for part in parts for rows in _blocks(part))


def _to_8bit(samples: Samples) -> NDArray[np.uint8]:
    """Composite on white and scale to 8 bits with one rounding, in exact integers; ``(H, W, 1 or 3)``."""
    color, alpha, peak = samples.color, samples.alpha, samples.peak
    if alpha is None and peak == 255:
        return color
    made = np.empty(color.shape, np.uint8)
    if alpha is None:
        for rows, out in zip(_blocks(color), _blocks(made), strict=True):
            out[:] = _scaled(rows, peak)
        return made
    step = _step(color)
    for top in range(0, len(color), step):
        part = slice(top, top + step)
        made[part] = _on_white(color[part], alpha[part], peak, samples.premultiplied)
    return made


def _scaled(color: NDArray[Any], peak: int) -> NDArray[Any]:
    if peak == 255:
        return color
    wide = color.astype(np.uint32) * 255
    # Exact for each of the 65536 values, and faster than a division.
    narrow: NDArray[Any] = (wide + 32895) >> 16 if peak == _DEEP else (wide + peak // 2) // peak
    return narrow


def _on_white(color: NDArray[Any], alpha: NDArray[Any], peak: int, premultiplied: bool) -> NDArray[Any]:
    if premultiplied:
        # Such colours may not exceed their alpha; files that break this are clipped.
        return _scaled(np.minimum(color, alpha) + (peak - alpha), peak)
    if peak == 255:
        # White less what is missing of it; the sum below is an exact division by 255 with rounding, in 16 bits.
        missing = (255 - color) * alpha.astype(np.uint16) + np.uint16(128)
        return np.uint16(255) - ((missing + (missing >> 8)) >> 8)
    dark = (peak - color).astype(np.uint32) * alpha
    # The divisor is odd, so that no value lies half-way between two levels, where rounding errors would decide.
    made: NDArray[Any] = 255 - (dark * (255 / (peak * peak)) + 0.5).astype(np.uint8)
    return made


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = _step(array)
    return (array[top : top + step] for top in range(0, len(array), step))


def _step(array: NDArray[Any]) -> int:
    return int(max(_BLOCK // (array.shape[1] * array.shape[2]), 1))

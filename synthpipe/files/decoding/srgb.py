"""Samples of a file as upright sRGB: profile, orientation, and what of the file is left behind."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synthpipe.files.decoding.color_profile import ProfileFound, convert_to_srgb, profile_space
from synthpipe.files.decoding.samples import Samples

__all__ = [
    "CONVERTED_PROFILE",
    "FURTHER_CHANNELS",
    "FURTHER_PAGES",
    "NARROW_RANGE",
    "REDUCED_DEPTH",
    "UNKNOWN_PROFILE",
    "data_range",
    "further_pages",
    "orientation",
    "rescaled",
    "straight_alpha",
    "to_srgb",
    "upright",
]

CONVERTED_PROFILE = "converted_profile"
UNKNOWN_PROFILE = "unknown_profile"
REDUCED_DEPTH = "reduced_depth"
NARROW_RANGE = "narrow_range"
FURTHER_CHANNELS = "further_channels"
FURTHER_PAGES = "further_pages"

#: EXIF 2.32, tag 0x0112.
_ORIENTATION_TAG = 0x0112
_DEEP = 65535
_MOST_PAGES = 100_000
# Ranges of sensors of 8, 10 and 12 bits.  A photograph of 16 bits that stays below is next to black.
_SENSOR_RANGES = (255, 1023, 4095)


def to_srgb(samples: Samples, found: ProfileFound | None) -> tuple[Samples, str | None]:
    """Samples of one or three colours in sRGB, and what became of the profile: a reason to count, or None.

    Where a profile cannot be used the colours are taken for sRGB; CMYK is then converted without one.
    """
    if found is not None and found.icc is not None:
        space = profile_space(found.icc)
        if space == {"gray": "GRAY", "rgb": "RGB", "cmyk": "CMYK"}[samples.space] or (
            samples.space == "gray" and space == "RGB"
        ):
            plain = straight_alpha(samples)
            # Profiles have 255 or 65535 for white.
            peak = 255 if plain.peak == 255 else _DEEP
            converted = convert_to_srgb(rescaled(plain.color, plain.peak, peak), found.icc)
            if converted is not None:
                alpha = None if plain.alpha is None else rescaled(plain.alpha, plain.peak, peak)
                return plain._replace(color=converted, alpha=alpha, peak=peak), CONVERTED_PROFILE
    if samples.space == "cmyk":
        return samples._replace(color=_without_profile(samples.color, samples.peak)), UNKNOWN_PROFILE
    return samples, UNKNOWN_PROFILE if found is not None else None


def _without_profile(inks: NDArray[Any], peak: int) -> NDArray[Any]:
    """CMYK to RGB as if inks were ideal: what is not absorbed by a colour and not by black."""
    if peak == 255:
        return np.array(Image.fromarray(np.ascontiguousarray(inks), "CMYK").convert("RGB"))
    light = (peak - inks).astype(np.uint64)
    return ((light[..., :3] * light[..., 3:] + peak // 2) // peak).astype(inks.dtype)


def straight_alpha(samples: Samples) -> Samples:
    """Colours that were multiplied by their alpha divided by it again; where nothing is seen they are 0."""
    if not samples.premultiplied or samples.alpha is None:
        return samples
    opacity = np.maximum(samples.alpha, 1).astype(np.uint64)
    color = (np.minimum(samples.color, samples.alpha).astype(np.uint64) * samples.peak + opacity // 2) // opacity
    return samples._replace(color=color.astype(samples.color.dtype), premultiplied=False)


def data_range(samples: Samples) -> int:
    """The value of white: of 16-bit samples that stay below 4096, the least sensor range that holds them."""
    if samples.peak != _DEEP or samples.space == "cmyk":
        return samples.peak
    largest = int(samples.color.max())
    return next((top for top in _SENSOR_RANGES if 0 < largest <= top), _DEEP)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; damaged metadata does not make an image unusable, so it counts as upright."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    except Exception:  # noqa: BLE001 - a metadata parser on hostile bytes
        return 1


def upright(array: NDArray[Any], turn: int) -> NDArray[Any]:
    """``(H, W, C)`` turned so that it stands upright, writable and C-contiguous; the table is EXIF 2.32, tag 0x0112."""
    if turn >= 5:
        array = array.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


def further_pages(image: Image.Image) -> int:
    """Pages or frames after the first; of a file that is damaged on the way, up to and with the one that is."""
    try:
        return max(int(getattr(image, "n_frames", 1)) - 1, 0)
    except Exception:  # noqa: BLE001 - a parser on hostile bytes
        return _first_unreadable(image)


def _first_unreadable(image: Image.Image) -> int:
    page = 0
    with contextlib.suppress(Exception):
        for page in range(1, _MOST_PAGES):
            image.seek(page)
    image.seek(0)
    return page


def rescaled(values: NDArray[Any], peak: int, wanted: int) -> NDArray[Any]:
    """Whole numbers 0..``peak`` as 0..``wanted``, rounded, of the same dtype; both at most 65535."""
    if peak == wanted:
        return values
    # 65535 * 65535 and the rounding fit into 32 bits.
    return ((values.astype(np.uint32) * wanted + peak // 2) // peak).astype(values.dtype)

"""One validation image as BasicSR reads it, beside what it shows: where the two part, a metric means nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from synthpipe.errors import ImageError
from synthpipe.files.containers import is_truncated
from synthpipe.files.decode import decode_image
from synthpipe.files.decoding.color_profile import find_profile
from synthpipe.files.decoding.open_image import open_image, readable

__all__ = ["AsRead", "read_as_basicsr"]

#: Formats of which OpenCV and we read the same where nothing stands beside the colours.
_PLAIN_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_PLAIN_MODES = ("RGB", "L")
_ORIENTATION = 0x0112
#: Decoders of JPEG round differently; from here on two readings are two pictures, of 255.
_SAME = 4
_PNG_DEPTH_AT = 24
_DEEP = 16

#: What an image holds that OpenCV passes over, by our decoder's reasons.
_MEANINGS = {
    "flattened_alpha": "has transparent pixels, and BasicSR reads the colours behind them",
    "converted_profile": "has a colour profile other than sRGB, which BasicSR passes over",
    "unknown_profile": "has a colour profile or CMYK colours that nobody can read for sure",
}
_ROUNDED = {
    "reduced_depth": "has more than 8 bits a channel, of which BasicSR takes the upper 8: up to 1 of 255 off",
    "narrow_range": "has 16 bits of which the lowest 10 or 12 are used: it is read dark",
}


class AsRead(NamedTuple):
    """``size`` as (height, width); what is read otherwise than it looks, by reason; and what is only rounded."""

    size: tuple[int, int]
    changed: Mapping[str, str]
    rounded: tuple[str, ...]


def read_as_basicsr(path: str) -> AsRead:
    """From the header where that says enough; else the image is decoded twice, by OpenCV and by us.

    Raises:
        ImageError: BasicSR could not read the file.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ImageError(f"{path!r}: cannot be read: {error.strerror or error}", "unreadable") from error
    if is_truncated(data):  # OpenCV fills what is missing with grey
        raise ImageError(f"{path!r}: the file ends too early, after {len(data)} bytes", "truncated")
    with readable(data, repr(path)), open_image(io.BytesIO(data), path) as image:
        if _is_plain(image, data):
            return AsRead((image.height, image.width), {}, ())
    return _compare(path, data)


def _is_plain(image: Any, data: bytes) -> bool:
    return (
        image.format in _PLAIN_FORMATS
        and image.mode in _PLAIN_MODES
        and "transparency" not in image.info
        and not (image.format == "PNG" and data[_PNG_DEPTH_AT] == _DEEP)
        and find_profile(image, data) is None
        and image.getexif().get(_ORIENTATION, 1) == 1
    )


def _compare(path: str, data: bytes) -> AsRead:
    from basicsr.utils import imfrombytes

    try:
        theirs = imfrombytes(data, float32=False)
    except Exception as error:  # OpenCV has no one exception for a file that it cannot read
        raise ImageError(f"{path!r}: BasicSR's OpenCV cannot read it ({error})", "unreadable") from error
    if theirs is None:
        raise ImageError(f"{path!r}: BasicSR's OpenCV cannot read it; save it as PNG", "unreadable")
    size = (int(theirs.shape[0]), int(theirs.shape[1]))
    ours, given_up = decode_image(data, repr(path))
    rounded = tuple(text for reason, text in _ROUNDED.items() if reason in given_up)
    if ours.shape != theirs.shape:
        text = (
            f"is {ours.shape[1]}x{ours.shape[0]}, and BasicSR reads it as {size[1]}x{size[0]}, not turned by its EXIF"
        )
        return AsRead(size, {"shape": text}, rounded)
    apart = int(np.abs(ours.astype(np.int16) - theirs[..., ::-1]).max())
    if apart <= _SAME:
        return AsRead(size, {}, rounded)
    reasons = {reason: text for reason, text in _MEANINGS.items() if reason in given_up}
    reasons = reasons or {"other": "is read otherwise by BasicSR's OpenCV"}
    return AsRead(size, {reason: f"{text} (up to {apart} of 255 apart)" for reason, text in reasons.items()}, rounded)

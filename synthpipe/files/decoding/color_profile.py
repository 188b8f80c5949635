"""Which colours the numbers of an image file mean, and what they are in sRGB.

A file says it in one of several ways; the first that is there counts:

* PNG: a cICP chunk, an ICC profile, an sRGB chunk, gAMA and cHRM chunks (PNG 3rd edition, section 4.3);
* AVIF and HEIC: an ICC profile, the code points of their ``colr`` box;
* other formats: an ICC profile; in EXIF the interoperability index ``R03``, by which cameras mark Adobe RGB (DCF 2.0).

What says nothing is sRGB.  So is a profile that LittleCMS takes to sRGB within one level, and a gAMA of 0.45455 with
the primaries of sRGB or none: it is what ImageMagick writes into every file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from synthpipe.files.decoding.jpeg_segments import icc_profile
from synthpipe.files.decoding.media_colors import color_codes
from synthpipe.files.decoding.png_chunks import head_chunks

__all__ = ["ADOBE_RGB", "ProfileFound", "convert_to_srgb", "find_profile", "profile_space"]

#: White point, red, green, blue as (x, y) of CIE 1931; ITU-T H.273, table 2.
_BT709 = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_DISPLAY_P3 = ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_BT2020 = ((0.3127, 0.3290), (0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_DCI_P3 = ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))

_Primaries = Sequence[Sequence[float]]

_BT601_625 = ((0.3127, 0.3290), (0.64, 0.33), (0.29, 0.60), (0.15, 0.06))
_BT601_525 = ((0.3127, 0.3290), (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_CICP_PRIMARIES: dict[int, _Primaries] = {
    1: _BT709,
    5: _BT601_625,
    6: _BT601_525,
    7: _BT601_525,
    9: _BT2020,
    11: _DCI_P3,
    12: _DISPLAY_P3,
}
_SRGB_CURVE = "srgb"
_BT709_CURVE = "bt709"
_CICP_CURVES: dict[int, float | str] = {
    1: _BT709_CURVE,
    4: 2.2,
    5: 2.8,
    6: _BT709_CURVE,
    8: 1.0,
    13: _SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
}
# "Unspecified", of which MIAF (ISO/IEC 23000-22) makes sRGB.
_UNSAID, _USUAL = 2, (1, 13)
_ADOBE_GAMMA = 563 / 256
_SRGB_GAMMA = 0.45455
# libpng takes gammas that differ by less for the same.
_SAME_GAMMA = 0.05
_SAME_PRIMARIES = 0.005
_CURVE_POINTS = 4096
# Levels between which a profile counts as sRGB; and the steps of the colours that are tried.
_SAME_LEVELS = 1
_TRIED_STEP = 15
_PROFILES_REMEMBERED = 32
# LittleCMS' cmsFLAGS_NOOPTIMIZE: for 16 bits and for grey it would else interpolate in a coarse table, up to 20 of 255
# off.
_NO_OPTIMIZATION = 0x0100

_EXIF_IFD = 0x8769
_INTEROPERABILITY_IFD = 0xA005
_BMP_EMBEDDED = b"DEBM"
_BMP_HEADER = 14


class ProfileFound(NamedTuple):
    """``icc``, where the colours are to be converted from; or ``problem``, where nobody can say what they are."""

    icc: bytes | None = None
    problem: str | None = None


def find_profile(image: Image.Image, data: bytes) -> ProfileFound | None:
    """What the file says about its colours; None where it says nothing, or sRGB.

    Args:
        image: opened, pixels not needed.
        data: the whole file.
    """
    if image.format == "PNG":
        return _png_profile(image, data)
    icc = _bmp_icc(data) if image.format == "BMP" else image.info.get("icc_profile")
    if icc is None and image.format in ("JPEG", "MPO"):
        icc = icc_profile(data)
    if icc is not None:
        return _of_icc(icc)
    codes = color_codes(data) if image.format in ("AVIF", "HEIF") else None
    if codes is not None:
        primaries, curve = (usual if code == _UNSAID else code for code, usual in zip(codes, _USUAL, strict=True))
        return _of_codes(primaries, curve, "a colr box")
    return ProfileFound(_matrix_profile(ADOBE_RGB, _ADOBE_GAMMA)) if _marked_adobe_rgb(image) else None


@lru_cache(maxsize=_PROFILES_REMEMBERED)
def profile_space(icc: bytes) -> str | None:
    """``"RGB"``, ``"GRAY"``, ``"CMYK"``, ...; None of what is not a profile."""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile.xcolor_space).strip()
    # Parsers of hostile bytes raise anything.
    except Exception:  # noqa: BLE001
        return None


def convert_to_srgb(color: NDArray[Any], icc: bytes) -> NDArray[Any] | None:
    """Samples in the space of ``icc`` as sRGB, perceptual intent; None where LittleCMS refuses.

    Args:
        color: ``(H, W, 1)``, ``(H, W, 3)`` or (CMYK, 255 is full ink) ``(H, W, 4)``, uint8 or uint16, full range.
        icc: a profile of that space; of RGB also for one channel.

    Returns:
        ``(H, W, 3)``, or ``(H, W, 1)`` of one channel, of the same dtype.
    """
    channels = color.shape[2]
    if channels == 1 and profile_space(icc) == "RGB":
        color = np.repeat(color, 3, axis=2)
    space = {1: "gray", 3: "rgb", 4: "cmyk"}[color.shape[2]]
    try:
        made = imagecodecs.cms_transform(
            np.ascontiguousarray(color[..., 0] if space == "gray" else color),
            icc,
            _srgb_icc(),
            colorspace=space,
            outcolorspace="rgb",
            outdtype=color.dtype,
            intent=int(ImageCms.Intent.PERCEPTUAL),
            flags=_NO_OPTIMIZATION if color.dtype == np.uint16 or space == "gray" else 0,
        )
    except Exception:  # noqa: BLE001 - as above
        return None
    # A grey axis stays grey in sRGB.
    return made[..., 1:2] if channels == 1 else made


def _png_profile(image: Image.Image, data: bytes) -> ProfileFound | None:
    cicp = next((payload for kind, payload in head_chunks(data) if kind == b"cICP"), None)
    if cicp is not None:
        return _cicp_profile(cicp)
    if "icc_profile" in image.info:
        return _of_icc(image.info["icc_profile"] or b"")
    if "srgb" in image.info or not {"gamma", "chromaticity"} & set(image.info):
        return None
    gamma: float | None = image.info.get("gamma")
    numbers = image.info.get("chromaticity")
    primaries = _BT709 if numbers is None else tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if gamma is not None and not gamma > 0:
        return ProfileFound(problem="a gAMA chunk of 0")
    usual = gamma is None or abs(gamma / _SRGB_GAMMA - 1) < _SAME_GAMMA
    if usual and np.allclose(primaries, _BT709, rtol=0, atol=_SAME_PRIMARIES):
        return None
    return _made(primaries, _SRGB_CURVE if gamma is None else 1 / gamma, "gAMA and cHRM chunks")


def _cicp_profile(payload: bytes) -> ProfileFound | None:
    if len(payload) != 4:
        return ProfileFound(problem="a broken cICP chunk")
    if payload[2:] != b"\0\1":
        return ProfileFound(problem=f"a cICP chunk of {tuple(payload)}")
    return _of_codes(payload[0], payload[1], "a cICP chunk")


def _of_codes(primaries_code: int, curve_code: int, source: str) -> ProfileFound | None:
    """Of ITU-T H.273's code points; PQ and HLG have no meaning without a display."""
    primaries, curve = _CICP_PRIMARIES.get(primaries_code), _CICP_CURVES.get(curve_code)
    if primaries is None or curve is None:
        return ProfileFound(problem=f"{source} of {primaries_code}, {curve_code}")
    if primaries is _BT709 and curve == _SRGB_CURVE:
        return None
    return _made(primaries, curve, source)


def _made(primaries: _Primaries, curve: float | str, source: str) -> ProfileFound:
    try:
        return ProfileFound(_matrix_profile(tuple(map(tuple, primaries)), curve))
    except Exception:  # noqa: BLE001 - primaries that are no triangle
        return ProfileFound(problem=f"{source} that describe no colours")


def _of_icc(icc: bytes) -> ProfileFound | None:
    if profile_space(icc) is None:
        return ProfileFound(problem="a broken ICC profile")
    return None if _is_srgb(icc) else ProfileFound(icc)


@lru_cache(maxsize=_PROFILES_REMEMBERED)
def _is_srgb(icc: bytes) -> bool:
    """Judged by what it does to colours, for the names of profiles say little."""
    if profile_space(icc) != "RGB":
        return False
    steps = np.arange(0, 256, _TRIED_STEP, dtype=np.uint8)
    tried = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    made = convert_to_srgb(tried, icc)
    return made is not None and bool((abs(made.astype(int) - tried) <= _SAME_LEVELS).all())


@lru_cache(maxsize=_PROFILES_REMEMBERED)
def _matrix_profile(primaries: tuple[tuple[float, float], ...], curve: float | str) -> bytes:
    """An ICC profile of white point, primaries and an exponent or the name of a curve."""
    white, *others = [(x, y, 1.0) for x, y in primaries]
    how: dict[str, Any] = {"gamma": curve}
    if isinstance(curve, str):
        how = {"transferfunction": (_curve(curve) * 65535).round().astype(np.uint16)}
    return bytes(imagecodecs.cms_profile("rgb", whitepoint=white, primaries=sum(others, ()), **how))


def _curve(name: str) -> NDArray[np.float64]:
    """Linear light at evenly spaced levels: IEC 61966-2-1, or the inverse of ITU-R BT.709's."""
    level = np.linspace(0, 1, _CURVE_POINTS)
    if name == _SRGB_CURVE:
        return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return np.where(level < 0.081, level / 4.5, ((level + 0.099) / 1.099) ** (1 / 0.45))


@cache
def _srgb_icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _marked_adobe_rgb(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        if _EXIF_IFD not in exif and _INTEROPERABILITY_IFD not in exif:
            return False
        index = exif.get_ifd(_INTEROPERABILITY_IFD).get(1)
    except Exception:  # noqa: BLE001 - a metadata parser on hostile bytes
        return False
    return isinstance(index, str | bytes) and index[:3] in ("R03", b"R03")


def _bmp_icc(data: bytes) -> bytes | None:
    """The profile inside a BITMAPV5HEADER; other ways of BMP to describe colours are not in use."""
    try:
        (header,) = struct.unpack_from("<I", data, _BMP_HEADER)
        if header < 124 or data[_BMP_HEADER + 56 : _BMP_HEADER + 60] != _BMP_EMBEDDED:
            return None
        offset, size = struct.unpack_from("<II", data, _BMP_HEADER + 112)
    except struct.error:
        return None
    return data[_BMP_HEADER + offset : _BMP_HEADER + offset + size]

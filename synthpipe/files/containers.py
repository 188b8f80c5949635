"""What the bytes of an image file say about themselves: which format they are, and whether they end too early.

Image libraries report a cut-off file and a damaged one with the same errors; the lengths that the formats
themselves store tell the two apart.
"""

from __future__ import annotations

import struct

__all__ = ["image_suffix", "is_truncated"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
# TIFF tags: (where the pixel data start, how long they are), for strips and for tiles.
_TIFF_DATA = ((273, 279), (324, 325))
_TIFF_CODES = {3: "H", 4: "I"}


def is_truncated(data: bytes) -> bool:
    """True when ``data`` begins as PNG, JPEG, WebP or TIFF and stops before the end that the format announces.

    An empty file counts as truncated.  Anything else is not: it is something other than a cut-off image.
    """
    if not data or (len(data) < len(_PNG) and _PNG.startswith(data)):
        return True
    if data.startswith(_PNG):
        return _png_is_cut(data)
    if data.startswith(_JPEG):
        return _jpeg_is_cut(data)
    if data[:4] == b"RIFF" and b"WEBP".startswith(data[8:12]):
        return len(data) < 12 or len(data) < 8 + struct.unpack_from("<I", data, 4)[0]
    if data[:4] in _TIFF_ORDERS:
        return _tiff_is_cut(data, _TIFF_ORDERS[data[:4]])
    return False


def _png_is_cut(data: bytes) -> bool:
    """Walk the chunks (length, type, payload, checksum) until the end chunk."""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND":
            return False
        position += 12 + length
    return True


def _jpeg_is_cut(data: bytes) -> bool:
    """Walk the segments to the first scan; after it an end-of-image marker must come.

    The walk steps over previews inside metadata, which have an end marker of their own.
    """
    position = 2
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFFDA:
            return data.rfind(b"\xff\xd9", position) < 0
        if marker < 0xFF00 or length < 2:
            return False  # damaged rather than cut
        position += 2 + length
    return True


def _tiff_is_cut(data: bytes, order: str) -> bool:
    """Read the first directory; it, the arrays it points to and the pixel data must lie inside the file."""
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        entries = [struct.unpack_from(order + "HHI4s", data, start + 2 + 12 * i) for i in range(count)]
        values = {tag: _tiff_numbers(data, order, kind, n, raw) for tag, kind, n, raw in entries if kind in _TIFF_CODES}
    except struct.error:
        return True
    ends = [
        offset + length
        for where, size in _TIFF_DATA
        for offset, length in zip(values.get(where, ()), values.get(size, ()), strict=False)
    ]
    return max(ends, default=0) > len(data)


def _tiff_numbers(data: bytes, order: str, kind: int, count: int, raw: bytes) -> tuple[int, ...]:
    layout = f"{order}{count}{_TIFF_CODES[kind]}"
    if struct.calcsize(layout) <= 4:
        return struct.unpack_from(layout, raw)
    (offset,) = struct.unpack(order + "I", raw)
    return struct.unpack_from(layout, data, offset)


def image_suffix(data: bytes) -> str:
    """The usual file suffix of a readable PNG, JPEG, WebP or TIFF image: ``png``, ``jpg``, ``webp`` or ``tiff``."""
    if data.startswith(_PNG):
        return "png"
    if data.startswith(_JPEG):
        return "jpg"
    return "webp" if data.startswith(b"RIFF") else "tiff"

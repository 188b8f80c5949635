"""What the bytes of an image file say about themselves: which format they are, and whether they end too early.

Image libraries report a cut-off file and a damaged one with the same errors; the lengths that the formats
themselves store tell the two apart.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping, Sequence

from synthpipe.files.decoding.png_chunks import PNG_SIGNATURE

__all__ = ["image_format", "image_suffix", "is_truncated", "tiff_pages", "tiff_tags"]

_JPEG = b"\xff\xd8\xff"
_TIFF_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
_BIG_TIFF_ORDERS = {b"II+\x00": "<", b"MM\x00+": ">"}
_GIF = (b"GIF87a", b"GIF89a")
# Brands of ISO base media files, by the format that Pillow calls them.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JPEG_XL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
# TIFF tags: (where the pixel data start, how long they are), for strips and for tiles.
_TIFF_DATA = ((273, 279), (324, 325))
_TIFF_CODES = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TIFF_BYTES = (1, 2, 7)
_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "AVIF": "avif", "HEIF": "heic"}
# Boxes of an ISO media file that are looked at, far more than any image has.
_MOST_BOXES = 10_000


def image_format(data: bytes) -> str | None:
    """Pillow's name of the format that the first bytes announce, ``"JPEG XL"``, or None.

    >>> from synthpipe.files.containers import image_format
    >>> image_format(b"GIF89a..."), image_format(b"Hello")
    ('GIF', None)
    """
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(_JPEG):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in _TIFF_ORDERS or data[:4] in _BIG_TIFF_ORDERS:
        return "TIFF"
    if data.startswith(_GIF):
        return "GIF"
    if data[4:8] == b"ftyp":
        return _media_format(data)
    if data.startswith(_JPEG_XL):
        return "JPEG XL"
    # The weakest mark comes last: two letters.
    return "BMP" if data.startswith(b"BM") else None


def image_suffix(data: bytes) -> str:
    """The usual file suffix of a readable image: ``png``, ``jpg``, ``webp``, ``tiff``, ``bmp``, ``gif``, ..."""
    return _SUFFIXES.get(image_format(data) or "", "tiff")


def is_truncated(data: bytes) -> bool:
    """True when ``data`` begins as an image that is read and stops before the end that the format announces.

    An empty file counts as truncated.  Anything else is not: it is something other than a cut-off image.
    """
    if not data or (len(data) < len(PNG_SIGNATURE) and PNG_SIGNATURE.startswith(data)):
        return True
    if data[:4] == b"RIFF" and b"WEBP".startswith(data[8:12]):
        return len(data) < 12 or len(data) < 8 + struct.unpack_from("<I", data, 4)[0]
    cut = {
        "PNG": _png_is_cut,
        "JPEG": _jpeg_is_cut,
        "TIFF": _tiff_is_cut,
        "GIF": _gif_is_cut,
        "BMP": _bmp_is_cut,
        "AVIF": _media_is_cut,
        "HEIF": _media_is_cut,
    }.get(image_format(data) or "")
    return cut is not None and cut(data)


def tiff_pages(data: bytes) -> Iterator[int]:
    """Where the directory of each page of a TIFF or BigTIFF begins.

    Raises:
        struct.error: a directory reaches beyond the end.
    """
    order, many, offset, entry = _tiff_layout(data)
    link = struct.calcsize(order + offset)
    seen: set[int] = set()
    while True:
        (start,) = struct.unpack_from(order + offset, data, link)
        if start == 0 or start in seen:
            return
        if start >= len(data):
            raise struct.error("beyond the end")
        seen.add(start)
        (count,) = struct.unpack_from(order + many, data, start)
        link = start + struct.calcsize(order + many) + entry * count
        if link > len(data):
            raise struct.error("beyond the end")
        yield start


def tiff_tags(data: bytes, start: int, wanted: Container[int]) -> dict[int, Sequence[int]]:
    """Whole numbers, texts and bytes of the directory at ``start`` by tag, of those that are ``wanted``.

    Raises:
        struct.error: a value lies beyond the end.
    """
    order, many, offset, entry = _tiff_layout(data)
    (count,) = struct.unpack_from(order + many, data, start)
    first = start + struct.calcsize(order + many)
    tags: dict[int, Sequence[int]] = {}
    for at in range(first, first + entry * count, entry):
        tag, kind, length = struct.unpack_from(order + "HH" + offset, data, at)
        if tag in wanted and (kind in _TIFF_CODES or kind in _TIFF_BYTES):
            tags[tag] = _tiff_values(data, order, offset, kind, length, at + 4 + struct.calcsize(order + offset))
    return tags


def _tiff_layout(data: bytes) -> tuple[str, str, str, int]:
    """The order of bytes, and how wide numbers of entries, offsets and entries are."""
    if data[:4] in _BIG_TIFF_ORDERS:
        return _BIG_TIFF_ORDERS[data[:4]], "Q", "Q", 20
    return _TIFF_ORDERS[data[:4]], "H", "I", 12


def _tiff_is_cut(data: bytes) -> bool:
    """The directory of each page, and the pixel data that it points to, must lie inside the file."""
    wanted = {tag for tags in _TIFF_DATA for tag in tags}
    try:
        return any(_reaches_beyond(tiff_tags(data, start, wanted), len(data)) for start in tiff_pages(data))
    except struct.error:
        return True


def _reaches_beyond(tags: Mapping[int, Sequence[int]], size: int) -> bool:
    ends = [
        offset + length
        for where, lengths in _TIFF_DATA
        for offset, length in zip(tags.get(where, ()), tags.get(lengths, ()), strict=False)
    ]
    return max(ends, default=0) > size


def _tiff_values(data: bytes, order: str, offset: str, kind: int, count: int, place: int) -> Sequence[int]:
    code = _TIFF_CODES.get(kind, "s")
    size = count * struct.calcsize(order + code)
    if size > struct.calcsize(order + offset):
        (place,) = struct.unpack_from(order + offset, data, place)
    if place + size > len(data):
        raise struct.error("beyond the end")  # before a layout of billions of numbers is made
    if code == "s":
        return data[place : place + size]
    numbers: tuple[int, ...] = struct.unpack_from(f"{order}{count}{code}", data, place)
    return numbers


def _png_is_cut(data: bytes) -> bool:
    """Walk the chunks (length, type, payload, checksum) until the end chunk."""
    position = len(PNG_SIGNATURE)
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


def _gif_is_cut(data: bytes) -> bool:
    """The trailer, perhaps with padding after it; a block of pixels that ends in the middle has none."""
    return not data.rstrip(b"\0").endswith(b";")


def _bmp_is_cut(data: bytes) -> bool:
    """The header says how long the file is; writers that leave 0 there say nothing."""
    return len(data) < 14 or len(data) < struct.unpack_from("<I", data, 2)[0]


def _media_format(data: bytes) -> str | None:
    """Of an ISO media file, by its brands (ISO/IEC 23008-12, AVIF 1.1)."""
    (size,) = struct.unpack_from(">I", data)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(size, len(data), 256), 4))]
    if any(brand in _AVIF_BRANDS for brand in brands):
        return "AVIF"
    return "HEIF" if any(brand in _HEIF_BRANDS for brand in brands) else None


def _media_is_cut(data: bytes) -> bool:
    """Walk the boxes (length, type); the last may run to the end of the file."""
    position = 0
    for _ in range(_MOST_BOXES):
        if position == len(data):
            return False
        if position + 8 > len(data):
            return True
        (length,) = struct.unpack_from(">I", data, position)
        if length == 1:
            if position + 16 > len(data):
                return True
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:
            return False
        if length < 8:
            return False  # damaged rather than cut
        position += length
        if position > len(data):
            return True
    return False

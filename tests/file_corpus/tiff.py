"""TIFF files, byte by byte (TIFF 6.0; BigTIFF), in the layouts that image libraries do not write.  Also EXIF."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["MINISBLACK", "MINISWHITE", "RGB", "SEPARATED", "YCBCR", "Page", "exif", "tiff"]

MINISWHITE, MINISBLACK, RGB, SEPARATED, YCBCR = 0, 1, 2, 5, 6
_SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16
_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
_COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}

#: Tag, type, values.
Entry = tuple[int, int, Sequence[int]]


@dataclass
class Page:
    """One page.

    Args:
        samples: ``(H, W, C)``.
        photometric: tag 262.
        bits: of a sample, where fewer than the array's type has.
        planar: each channel by itself.
        tile: ``(height, width)`` of tiles; None for strips of 16 rows.
        compression: ``none``, ``lzw``, ``deflate`` or ``packbits``.
        predictor: differences of neighbours, tag 317.
        extra: tag 338: 0 nothing said, 1 premultiplied, 2 unassociated alpha.
        tags: other tags: text, bytes (UNDEFINED), a number or numbers (SHORT).
    """

    samples: np.ndarray
    photometric: int = RGB
    bits: int | None = None
    planar: bool = False
    tile: tuple[int, int] | None = None
    compression: str = "none"
    predictor: bool = False
    extra: tuple[int, ...] = ()
    tags: Mapping[int, str | bytes | int | tuple[int, ...]] = field(default_factory=dict)


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """The file; ``order`` is ``"<"`` or ``">"``, ``big`` a BigTIFF."""
    data = b"II" if order == "<" else b"MM"
    data += struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    for number, page in enumerate(pages):
        entries, segments = _entries(page, order), _segments(page, order)
        # The data come behind the directory, whose length hangs on the number of entries and segments alone.
        draft = _directory(entries, [0] * len(segments), list(map(len, segments)), len(data), 0, order, big)
        starts = (len(data) + len(draft) + np.cumsum([0, *map(len, segments[:-1])])).tolist()
        whole = len(data) + len(draft) + sum(map(len, segments))
        following = 0 if number == len(pages) - 1 else whole + whole % 2
        data += _directory(entries, starts, list(map(len, segments)), len(data), following, order, big)
        data += b"".join(segments) + bytes(whole % 2)
    return data


def exif(*, orientation: int | None = None, make: str | None = None, interop: str | None = None) -> bytes:
    """An EXIF block without its ``Exif`` prefix; ``interop`` is the index of DCF, such as R03 for Adobe RGB."""
    base = [_tag(271, make)] if make is not None else []
    base += [(274, _SHORT, [orientation])] if orientation is not None else []
    head = b"II" + struct.pack("<HI", 42, 8)
    if interop is None:
        return head + _ifd(sorted(base), 8, 0, "<", False)
    length = len(_ifd([*base, (34665, _LONG, [0])], 8, 0, "<", False))
    sub = [(40961, _SHORT, [65535]), (40965, _LONG, [0])]
    deeper = 8 + length + len(_ifd(sub, 8 + length, 0, "<", False))
    data = head + _ifd([*sorted(base), (34665, _LONG, [8 + length])], 8, 0, "<", False)
    data += _ifd([sub[0], (40965, _LONG, [deeper])], 8 + length, 0, "<", False)
    return data + _ifd([_tag(1, interop), (2, _UNDEFINED, list(b"0100"))], deeper, 0, "<", False)


def _entries(page: Page, order: str) -> list[Entry]:
    height, width, channels = page.samples.shape
    bits = page.bits or page.samples.dtype.itemsize * 8
    entries: list[Entry] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [bits] * channels),
        (259, _SHORT, [_COMPRESSIONS[page.compression]]),
        (262, _SHORT, [page.photometric]),
        (277, _SHORT, [channels]),
        (284, _SHORT, [2 if page.planar else 1]),
    ]
    entries += [(322, _LONG, [page.tile[1]]), (323, _LONG, [page.tile[0]])] if page.tile else [(278, _LONG, [16])]
    entries += [(317, _SHORT, [2])] if page.predictor else []
    entries += [(338, _SHORT, list(page.extra))] if page.extra else []
    entries += [(339, _SHORT, [3] * channels)] if page.samples.dtype.kind == "f" else []
    entries += [(339, _SHORT, [2] * channels)] if page.samples.dtype.kind == "i" else []
    return entries + [_tag(number, value) for number, value in page.tags.items()]


def _tag(number: int, value: Any) -> Entry:
    if isinstance(value, str):
        return number, 2, list(value.encode("ascii") + b"\0")
    if isinstance(value, bytes):
        return number, _UNDEFINED, list(value)
    return number, _SHORT, [value] if isinstance(value, int) else list(value)


def _directory(
    entries: list[Entry], starts: list[int], counts: list[int], place: int, following: int, order: str, big: bool
) -> bytes:
    tiled = any(number == 322 for number, _, _ in entries)
    kind = _LONG8 if big else _LONG
    offsets: list[Entry] = [(324 if tiled else 273, kind, starts), (325 if tiled else 279, kind, counts)]
    return _ifd(sorted([*entries, *offsets]), place, following, order, big)


def _ifd(entries: list[Entry], place: int, following: int, order: str, big: bool) -> bytes:
    """The directory at ``place``, and behind it what did not find room in it."""
    room, count, offset = (8, "Q", "Q") if big else (4, "H", "I")
    head = struct.calcsize(order + count)
    after = place + head + len(entries) * (20 if big else 12) + room
    table, rest = b"", b""
    for number, kind, values in entries:
        data = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        table += struct.pack(f"{order}HH{offset}", number, kind, len(values))
        if len(data) <= room:
            table += data.ljust(room, b"\0")
        else:
            table += struct.pack(order + offset, after + len(rest))
            rest += data + bytes(len(data) % 2)
    return struct.pack(order + count, len(entries)) + table + struct.pack(order + offset, following) + rest


def _segments(page: Page, order: str) -> list[bytes]:
    planes = [page.samples[..., [c]] for c in range(page.samples.shape[2])] if page.planar else [page.samples]
    height, width = page.tile or (16, page.samples.shape[1])
    found = []
    for plane in planes:
        for top in range(0, plane.shape[0], height):
            for left in range(0, plane.shape[1], width):
                part = plane[top : top + height, left : left + width]
                if page.tile:
                    short = [(0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0)]
                    part = np.pad(part, short, mode="edge")
                found.append(_compressed(_rows(part, page, order), page.compression))
    return found


def _rows(part: np.ndarray, page: Page, order: str) -> list[bytes]:
    if page.predictor:
        part = np.concatenate([part[:, :1], np.diff(part, axis=1)], axis=1)
    if page.bits is None:
        return [row.astype(part.dtype.newbyteorder(order)).tobytes() for row in part]
    bits = (part.reshape(len(part), -1, 1) >> np.arange(page.bits - 1, -1, -1)) & 1
    return [packed.tobytes() for packed in np.packbits(bits.reshape(len(part), -1).astype(np.uint8), axis=1)]


def _compressed(rows: list[bytes], how: str) -> bytes:
    if how == "packbits":
        return b"".join(_literal_runs(row) for row in rows)
    data = b"".join(rows)
    return {"none": bytes, "deflate": zlib.compress, "lzw": _lzw}[how](data)


def _literal_runs(row: bytes) -> bytes:
    return b"".join(bytes([len(row[at : at + 128]) - 1]) + row[at : at + 128] for at in range(0, len(row), 128))


def _lzw(data: bytes) -> bytes:
    """Codes of 9 bits alone: the table is cleared before they would grow."""
    codes = [code for at in range(0, len(data), 250) for code in (256, *data[at : at + 250])]
    bits = (np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()

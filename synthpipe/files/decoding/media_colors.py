"""What AVIF and HEIC say of their colours by code points: the ``colr`` box of type ``nclx`` (ISO/IEC 14496-12, 12.1.5).

Decoders turn YCbCr into RGB by the matrix that stands there, and leave primaries and transfer curve to the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["color_codes"]

_NCLX = b"nclx"
# A box is found by its path from the root; `meta` has four bytes before its children.
_PROPERTIES = (b"iprp", b"ipco")
_MOST_BOXES = 10_000


def color_codes(data: bytes) -> tuple[int, int] | None:
    """Code points of primaries and transfer curve of the primary item (ITU-T H.273); None where no box says them."""
    try:
        meta = _child(data, b"meta")
        if meta is None:
            return None
        meta = meta[4:]
        item = _primary_item(meta)
        properties = list(_boxes(_inside(meta, _PROPERTIES)))
        for number in _numbers_of(_inside(meta, (b"iprp", b"ipma")), item):
            if 1 <= number <= len(properties):
                kind, payload = properties[number - 1]
                if kind == b"colr" and payload[:4] == _NCLX:
                    primaries, curve = struct.unpack_from(">HH", payload, 4)
                    return primaries, curve
    except struct.error:
        pass
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        end = len(data) if length == 0 else position + length
        if end < position + head:
            return
        yield kind, data[position + head : end]
        position = end


def _child(data: bytes, wanted: bytes) -> bytes | None:
    return next((payload for kind, payload in _boxes(data) if kind == wanted), None)


def _inside(data: bytes, path: tuple[bytes, ...]) -> bytes:
    for kind in path:
        data = _child(data, kind) or b""
    return data


def _primary_item(meta: bytes) -> int:
    payload = _inside(meta, (b"pitm",))
    (item,) = struct.unpack_from(">I" if payload[:1] == b"\1" else ">H", payload, 4)
    return int(item)


def _numbers_of(payload: bytes, wanted: int) -> list[int]:
    """Numbers of the properties of an item, from 1; the box is ``ipma`` (ISO/IEC 23008-12, 9.3.1)."""
    version, wide = payload[:1] == b"\1", bool(payload[3] & 1) if len(payload) > 3 else False
    (entries,) = struct.unpack_from(">I", payload, 4)
    position = 8
    for _ in range(min(entries, _MOST_BOXES)):
        (item,) = struct.unpack_from(">I" if version else ">H", payload, position)
        position += 4 if version else 2
        (count,) = struct.unpack_from(">B", payload, position)
        found = struct.unpack_from(f">{count}{'H' if wide else 'B'}", payload, position + 1)
        if item == wanted:
            # The highest bit says that readers must know the property.
            return [number & (0x7FFF if wide else 0x7F) for number in found]
        position += 1 + count * (2 if wide else 1)
    return []

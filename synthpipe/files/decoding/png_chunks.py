"""The chunks of a PNG file: what it says about itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["PNG_SIGNATURE", "all_chunks", "head_chunks"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def head_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, payload)`` of each chunk before the pixels, checksums not looked at; none of what is not PNG."""
    for kind, payload in all_chunks(data):
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, bytes(payload)


def all_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """``(type, payload)`` of each chunk of a PNG, pixels included, as far as the file goes."""
    position = len(PNG_SIGNATURE)
    view = memoryview(data)
    while data.startswith(PNG_SIGNATURE) and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += 12 + length

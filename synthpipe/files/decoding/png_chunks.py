"""The chunks of a PNG file before its pixels: what it says about itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["PNG_SIGNATURE", "head_chunks"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def head_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, payload)`` of each chunk before the pixels, checksums not looked at; none of what is not PNG."""
    position = len(PNG_SIGNATURE)
    while data.startswith(PNG_SIGNATURE) and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length

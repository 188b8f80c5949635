"""The chunks of a PNG file: what it says about itself."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["PNG_SIGNATURE", "all_chunks", "head_chunks", "large_profile", "without_notes"]

#: Bytes of a colour profile; those of measured displays and printers have one or two million.
LARGEST_PROFILE = 16 << 20

# Texts, and what describes colours: decoders of pixels need none of them.
_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM"})

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def head_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, payload)`` of each chunk before the pixels, checksums not looked at; none of what is not PNG."""
    for kind, payload in all_chunks(data):
        if kind in (b"IDAT", b"IEND"):
            return
        yield kind, bytes(payload)


def without_notes(data: bytes) -> bytes:
    """The same picture without its texts and colour descriptions, for decoders that stumble over them."""
    kept = [PNG_SIGNATURE]
    for kind, payload in all_chunks(data):
        if kind not in _NOTES:
            head = struct.pack(">I4s", len(payload), kind)
            kept += [head, bytes(payload), struct.pack(">I", zlib.crc32(payload, zlib.crc32(kind)))]
    return b"".join(kept)


def large_profile(data: bytes) -> bytes | None:
    """The ICC profile of a PNG, up to :data:`LARGEST_PROFILE`; None where there is none that can be had."""
    payload = next((payload for kind, payload in head_chunks(data) if kind == b"iCCP"), None)
    if payload is None:
        return None
    _, _, packed = payload.partition(b"\0")
    try:
        inflate = zlib.decompressobj()
        profile = inflate.decompress(packed[1:], LARGEST_PROFILE)
    except zlib.error:
        return None
    return profile if inflate.eof else None


def all_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """``(type, payload)`` of each chunk of a PNG, pixels included, as far as the file goes."""
    position = len(PNG_SIGNATURE)
    view = memoryview(data)
    while data.startswith(PNG_SIGNATURE) and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += 12 + length

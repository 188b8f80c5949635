"""EXIF blocks made in memory: a TIFF structure with sub-directories (EXIF 2.32, section 4.6)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

Value = int | str | tuple[int, int] | Mapping[int, "Value"]  # SHORT, ASCII, RATIONAL, a directory of its own


def exif_block(tags: Mapping[int, Value]) -> bytes:
    """Little-endian; sub-directories are values that are mappings."""
    return b"II*\0" + struct.pack("<I", 8) + _directory(tags, 8)


def _directory(tags: Mapping[int, Value], start: int) -> bytes:
    entries, data = b"", b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        if isinstance(value, int):
            entries += struct.pack("<HHIHH", tag, 3, 1, value, 0)
            continue
        kind, count, payload = _payload(value, behind + len(data))
        if kind == 2 and len(payload) <= 4:
            entries += struct.pack("<HHI", tag, kind, count) + payload.ljust(4, b"\0")
            continue
        entries += struct.pack("<HHII", tag, kind, count, behind + len(data))
        data += payload + bytes(len(payload) % 2)
    return struct.pack("<H", len(tags)) + entries + bytes(4) + data


def _payload(value: str | tuple[int, int] | Mapping[int, Value], at: int) -> tuple[int, int, bytes]:
    if isinstance(value, str):
        text = value.encode() + b"\0"
        return 2, len(text), text
    if isinstance(value, tuple):
        return 5, 1, struct.pack("<II", *value)
    return 4, 1, _directory(value, at)

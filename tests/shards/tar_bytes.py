"""Tars made of headers that no library would write."""

from __future__ import annotations

import tarfile

__all__ = ["END", "member", "pax_record"]

#: The empty blocks at the end of an archive.
END = bytes(1024)


def member(name: str | bytes, data: bytes, size: bytes | None = None, kind: bytes = b"0") -> bytes:
    """A header with a checksum that fits, and the contents.

    Args:
        name: of at most 100 bytes.
        data: the contents.
        size: what the header says of their size, 12 bytes; what they have, by default.
        kind: the type flag.
    """
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:512])
    header[:100] = (name if isinstance(name, bytes) else name.encode()).ljust(100, b"\0")
    header[124:136] = size or b"%011o\0" % len(data)
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def pax_record(name: bytes, value: bytes) -> bytes:
    """``LENGTH NAME=VALUE`` and a line end."""
    rest = b" " + name + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest

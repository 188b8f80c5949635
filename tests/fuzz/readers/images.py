"""Image files of every format that is read: what decodes them, keeps their depth, and reads their size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from random import Random

from synthpipe.errors import ImageError
from synthpipe.files.decode import decode_image
from synthpipe.files.image_size import image_size
from synthpipe.files.original import encode_original, read_pages
from tests.file_corpus import Truth, odd_files
from tests.fuzz.reader import Reader

#: Far more than any seed has: what a header promises above it is refused before memory is set aside.
MAX_PIXELS = 2_000_000
#: Where most formats keep what decides about the rest.
_HEAD = 400
_PNG = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\x10", b"\x10\0\0\0")


def prepare(folder: Path) -> Reader:
    """The odd files that can be read."""
    seeds = [file.data for file in odd_files().values() if isinstance(file.truth, Truth)]
    words = (b"IHDR", b"iCCP", b"cICP", b"eXIf", b"acTL", b"Exif\0\0", b"ICC_PROFILE\0", b"VP8X", b"ftypavif", b"acsp")

    def read(data: bytes) -> None:
        refused: ImageError | None = None
        for reading in (decode_image, _pages, _size):
            try:
                reading(data, "fuzzed", max_pixels=MAX_PIXELS)
            except ImageError as error:
                refused = error
        if refused is not None:
            raise refused

    return Reader(seeds, read, words, _mutate)


def _pages(data: bytes, name: str, *, max_pixels: int) -> None:
    for number, page in enumerate(read_pages(data, name, max_pixels=max_pixels)):
        encode_original(page.color, page.alpha, page.exif)
        if number == 5:
            break


def _size(data: bytes, name: str, *, max_pixels: int) -> None:
    image_size(data, max_pixels)


def _mutate(data: bytes, rng: Random) -> bytes:
    if data.startswith(_PNG) and rng.random() < 0.6:
        return _png_with_a_changed_chunk(data, rng)
    return _changed(data, rng, min(len(data), _HEAD) if rng.random() < 0.7 else len(data))


def _changed(data: bytes, rng: Random, within: int) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(max(within, 1))
        if rng.random() < 0.6:
            out[at : at + 1] = bytes([rng.choice((rng.randrange(256), 0, 1, 0x7F, 0x80, 0xFF))])
        else:
            out[at : at + 4] = rng.choice(_EXTREMES)
    return bytes(out)


def _png_with_a_changed_chunk(data: bytes, rng: Random) -> bytes:
    """With a right checksum, or nothing behind it would be reached."""
    chunks = []
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = rng.randrange(len(chunks))
    kind, payload = chunks[number]
    chunks[number] = (kind, _changed(payload, rng, min(len(payload), _HEAD)))
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return _PNG + b"".join(parts)

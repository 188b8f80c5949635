"""Files that are cut, damaged, far too large or far too small, have odd names, or are no images."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.file_corpus.pillow_files import has_avif, has_heic, heic, plain, saved
from tests.file_corpus.tiff import Page, tiff
from tests.file_corpus.truth import OddFile, Truth, deep_picture, picture
from tests.files.image_bytes import png, png_chunk

__all__ = ["BOMB_SIDE", "broken_files"]

#: Pixels on each side that the headers of bombs promise; a WebP can promise no more than 16384.
BOMB_SIDE = 60000

_RGB = 2


def broken_files() -> Iterator[OddFile]:
    """All of them."""
    yield from _cut()
    yield from _damaged()
    yield from _bombs()
    yield from _small()
    yield from _other_suffixes()
    yield from _unknown_formats()
    yield from _names()


def _cut() -> Iterator[OddFile]:
    wholes = {
        "png": png(picture("cut.png"), _RGB),
        "jpg": saved(picture("cut.jpg"), format="JPEG", quality=92),
        "webp": saved(picture("cut.webp"), format="WEBP", lossless=True, method=0),
        "tif": tiff(Page(picture("cut.tif"))),
        "bmp": saved(picture("cut.bmp"), format="BMP"),
        "gif": saved(Image.fromarray(picture("cut.gif")).quantize(128), format="GIF"),
    }
    if has_avif():
        wholes["avif"] = saved(picture("cut.avif"), format="AVIF", quality=90, speed=10)
    if has_heic():
        wholes["heic"] = heic(picture("cut.heic"))
    for suffix, whole in wholes.items():
        yield OddFile(f"cut_half.{suffix}", whole[: len(whole) // 2], "truncated")
        yield OddFile(f"cut_end.{suffix}", whole[:-60], "truncated")
        yield OddFile(f"cut_header.{suffix}", whole[: {"gif": 9, "tif": 7}.get(suffix, 21)], "truncated")
    progressive = saved(picture("cut_progressive.jpg"), format="JPEG", quality=92, progressive=True)
    yield OddFile("cut_progressive.jpg", progressive[: len(progressive) * 2 // 3], "truncated")
    big = tiff(Page(picture("cut_bigtiff.tif"), tile=(32, 32)), big=True)
    yield OddFile("cut_bigtiff.tif", big[:-5000], "truncated")
    grey_alpha = tiff(Page(deep_picture("cut_la_16.tif")[..., :2], 1, extra=(2,)), order=">", big=True)
    yield OddFile("cut_la_16.tif", grey_alpha[: len(grey_alpha) // 2], "truncated")
    yield OddFile("empty.png", b"", "truncated")
    yield OddFile("empty.jpg", b"", "truncated")
    # All pixels came before the cut.
    color = picture("without_end.png")
    yield OddFile("without_end.png", png(color, _RGB)[:-12], Truth(color))


def _damaged() -> Iterator[OddFile]:
    whole = png(picture("damaged"), _RGB)
    yield OddFile("crc_of_header.png", _flipped(whole, 30), "unreadable")
    # A wrong checksum over whole data spoils nothing: zlib's own checksum vouches for them.
    color = picture("crc_of_data.png")
    data = png(color, _RGB)
    yield OddFile("crc_of_data.png", _flipped(data, len(data) - 14), Truth(color))
    yield OddFile("flipped_bits.png", _flipped(whole, len(whole) // 2, 0xFF), "unreadable")
    # Stored, not compressed: a flipped byte is a pixel of another colour, and only checksums tell.
    rows = b"".join(b"\0" + row.tobytes() for row in picture("flipped_pixel.png"))
    header = struct.pack(">IIBBBBB", 128, 112, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    whole = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, payload) for kind, payload in chunks)
    yield OddFile("flipped_pixel.png", _flipped(whole, 20000, 0x80), "unreadable")
    whole = saved(picture("twelve_bit.jpg"), format="JPEG", quality=92)
    place = whole.index(b"\xff\xc0") + 4
    yield OddFile("twelve_bit.jpg", whole[:place] + b"\x0c" + whole[place + 1 :], "unreadable")
    # Rows that no strip holds: the height was changed, or strips were lost.
    for name, page in (
        ("lost_strips_8.tif", Page(picture("lost_strips_8.tif"))),
        ("lost_strips_grey_16.tif", Page(deep_picture("lost_strips_grey_16.tif")[..., :1], 1)),
        ("lost_strips_16.tif", Page(deep_picture("lost_strips_16.tif"))),
        ("lost_strips_lzw.tif", Page(picture("lost_strips_lzw.tif"), compression="lzw")),
        ("lost_strips_turned.tif", Page(picture("lost_strips_turned.tif"), tags={274: 6})),
    ):
        data = tiff(page).replace(struct.pack("<HHII", 257, 4, 1, 112), struct.pack("<HHII", 257, 4, 1, 200))
        yield OddFile(name, data, "unreadable")
    yield OddFile("text.png", b"This is no picture, whatever its name says.\n" * 20, "unreadable")
    yield OddFile("zeros.tif", bytes(3000), "unreadable")
    yield OddFile("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "unreadable")


def _flipped(data: bytes, place: int, bits: int = 0x01) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def _bombs() -> Iterator[OddFile]:
    side, small = BOMB_SIDE, picture("bomb", 16, 16)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = png(small, _RGB)
    yield OddFile("bomb.png", data[:8] + header + data[33:], "bomb")
    data = saved(small, format="JPEG")
    place = data.index(b"\xff\xc0") + 5
    yield OddFile("bomb.jpg", data[:place] + struct.pack(">HH", side, side) + data[place + 4 :], "bomb")
    data = tiff(Page(small))
    for tag in (256, 257):
        data = data.replace(struct.pack("<HHII", tag, 4, 1, 16), struct.pack("<HHII", tag, 4, 1, side))
    yield OddFile("bomb.tif", data, "bomb")
    data = tiff(Page(deep_picture("bomb", 16, 16)[..., :2], 1, extra=(2,)), order=">")
    for tag in (256, 257):
        data = data.replace(struct.pack(">HHII", tag, 4, 1, 16), struct.pack(">HHII", tag, 4, 1, side))
    yield OddFile("bomb_la_16.tif", data, "bomb")
    # Tiles of gigabytes for a small picture.
    for name, how in (("bomb_tile_8.tif", {"big": True, "order": ">"}), ("bomb_tile_16.tif", {"order": "<"})):
        data = tiff(Page(deep_picture(name) if "16" in name else picture(name), tile=(112, 128)), **how)
        pattern = ">HHQI" if "8" in name else "<HHII"
        for tag, tile_side in ((322, 128), (323, 112)):
            data = data.replace(struct.pack(pattern, tag, 4, 1, tile_side), struct.pack(pattern, tag, 4, 1, side))
        yield OddFile(name, data, "bomb")
    data = saved(Image.fromarray(small).quantize(16), format="GIF")
    sides = struct.pack("<HH", 16, 16)
    yield OddFile("bomb.gif", data.replace(sides, struct.pack("<HH", side, side)), "bomb")
    data = saved(small, format="BMP")
    yield OddFile("bomb.bmp", data[:18] + struct.pack("<ii", side, side) + data[26:], "bomb")
    data = saved(small, format="WEBP", lossless=True)
    place = data.index(b"VP8L") + 9
    yield OddFile("bomb.webp", data[:place] + b"\xff\xff\xff\x0f" + data[place + 4 :], "bomb")


def _small() -> Iterator[OddFile]:
    for name, height, width in (("one_pixel.png", 1, 1), ("one_row.png", 1, 500), ("one_column.png", 500, 1)):
        color = picture(name, height, width)
        yield OddFile(name, png(color, _RGB), Truth(color))
    grey = picture("one_pixel_grey.tif", 1, 1)[..., :1]
    yield OddFile("one_pixel_grey.tif", tiff(Page(grey, 1)), Truth(grey, reasons="grey_to_rgb"))


def _other_suffixes() -> Iterator[OddFile]:
    color = picture("really_png.jpg")
    yield OddFile("really_png.jpg", png(color, _RGB), Truth(color))
    data = saved(picture("really_jpeg.png"), format="JPEG", quality=92)
    yield OddFile("really_jpeg.png", data, Truth(plain(data), tolerance=1))
    color = picture("really_bmp.tif")
    yield OddFile("really_bmp.tif", saved(color, format="BMP"), Truth(color))
    color = picture("really_webp.png")
    yield OddFile("really_webp.png", saved(color, format="WEBP", lossless=True, method=0), Truth(color))
    color = picture("no_suffix")
    yield OddFile("no_suffix", png(color, _RGB), Truth(color), taken=False)
    yield OddFile(".hidden.png", png(color, _RGB), Truth(color), taken=False)
    yield OddFile("notes.txt", b"no picture", "unreadable", taken=False)


def _unknown_formats() -> Iterator[OddFile]:
    """Known by their first bytes, and not read."""
    yield OddFile("jpeg_xl.png", b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(500), "unsupported")
    if not has_heic():
        head = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic")
        yield OddFile("phone.heic", head + bytes(500), "unsupported")
    if "JPEG2000" in Image.SAVE:
        yield OddFile("jpeg_2000.png", saved(picture("jpeg_2000.png"), format="JPEG2000"), "unreadable")


def _names() -> Iterator[OddFile]:
    for name in (
        "müßte 图像 🌲.png",
        "u\u0308 decomposed.png",
        "a space and, a comma.png",
        "dots.in.the.stem.png",
        "100%.png",
        "50%25.png",
        "two\nlines.png",
        "-rf.png",
        "{0..3}.png",
        "[a-z]*.png",
        "back\\slash.png",
        "long" * 60 + ".png",
        os.fsdecode(b"latin-1 \xfc.png"),
    ):
        color = picture(name)
        yield OddFile(name, png(color, _RGB), Truth(color))
    # Below names that mean something to somebody.
    for name in ("__MACOSX__/inside.png", "deep/er/and.dotted/inside.png"):
        color = np.ascontiguousarray(picture(name))
        yield OddFile(name, png(color, _RGB), Truth(color))

"""PNG files: all colour types and depths, and the chunks that say what the numbers mean."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.file_corpus import icc
from tests.file_corpus.colour_math import ADOBE, P3, PROPHOTO, SRGB, Space, grey_to_srgb, to_srgb
from tests.file_corpus.tiff import exif
from tests.file_corpus.truth import MAKE, OddFile, Truth, deep_picture, picture, rounded, stored
from tests.files.image_bytes import png

__all__ = ["png_files"]

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6

Chunk = tuple[bytes, bytes]


def png_files() -> Iterator[OddFile]:
    """All of them."""
    yield from _depths()
    yield from _transparency()
    yield from _narrow()
    yield from _profiles()
    yield from _color_chunks()
    yield from _orientations()


def iccp(profile: bytes) -> Chunk:
    """The chunk of a profile."""
    return b"iCCP", b"odd\0\0" + zlib.compress(profile)


def chrm(space: Space) -> Chunk:
    """The chunk of primaries."""
    numbers = [number for point in (space.white, *space.primaries) for number in point]
    return b"cHRM", struct.pack(">8I", *(round(number * 100000) for number in numbers))


def gama(value: int) -> Chunk:
    """The chunk of the exponent, times 100000."""
    return b"gAMA", struct.pack(">I", value)


def _depths() -> Iterator[OddFile]:
    for depth in (1, 2, 4, 8):
        name = f"grey_{depth}_bit.png"
        levels = picture(name)[..., :1] >> (8 - depth)
        yield OddFile(
            name, png(levels, GREY, depth=depth), Truth(levels * (255 // (2**depth - 1)), reasons="grey_to_rgb")
        )
    for depth in (1, 4, 8):
        name = f"palette_{depth}_bit.png"
        palette, index = picture(name, 2**depth, 1)[:, 0], picture(name)[..., :1] >> (8 - depth)
        data = png(index, PALETTE, depth=depth, chunks=((b"PLTE", palette.tobytes()),))
        yield OddFile(name, data, Truth(palette[index[..., 0]]))
    color = picture("rgb.png")
    yield OddFile("rgb.png", png(color, RGB, row_filter=4), Truth(color))
    color = picture("interlaced.png")
    yield OddFile("interlaced.png", png(color, RGB, interlaced=True), Truth(color))
    deep = deep_picture("rgb_16.png")
    yield OddFile("rgb_16.png", png(deep, RGB, row_filter=1), Truth(deep, reasons="reduced_depth"))
    deep = deep_picture("interlaced_16.png")
    yield OddFile("interlaced_16.png", png(deep, RGB, interlaced=True), Truth(deep, reasons="reduced_depth"))
    deep = deep_picture("grey_16.png")[..., :1]
    yield OddFile("grey_16.png", png(deep, GREY, row_filter=2), Truth(deep, reasons="grey_to_rgb reduced_depth"))
    # 16 bits that hold what 8 would: nothing is lost.
    shallow = picture("rgb_16_of_8.png").astype(np.uint16) * 257
    yield OddFile("rgb_16_of_8.png", png(shallow, RGB), Truth(shallow))


def _transparency() -> Iterator[OddFile]:
    for name, kind, channels, reasons in (
        ("grey_alpha.png", GREY_ALPHA, 1, "grey_to_rgb flattened_alpha"),
        ("rgba.png", RGBA, 3, "flattened_alpha"),
    ):
        color, alpha = picture(name)[..., :channels], picture("alpha of " + name)[..., :1]
        data = png(np.concatenate([color, alpha], 2), kind)
        yield OddFile(name, data, Truth(color, alpha, reasons))
        deep = name.replace(".", "_16.")
        color16, alpha16 = deep_picture(deep)[..., :channels], deep_picture("alpha of " + deep)[..., :1]
        data = png(np.concatenate([color16, alpha16], 2), kind, row_filter=4)
        yield OddFile(deep, data, Truth(color16, alpha16, f"{reasons} reduced_depth"))
    color = picture("rgba_opaque.png")
    opaque = np.full_like(color[..., :1], 255)
    yield OddFile("rgba_opaque.png", png(np.concatenate([color, opaque], 2), RGBA), Truth(color, opaque))
    color = picture("rgba_clear.png")  # a sprite's sheet with nothing on it
    clear = np.zeros_like(color[..., :1])
    data = png(np.concatenate([color, clear], 2), RGBA)
    yield OddFile("rgba_clear.png", data, Truth(color, clear, "flattened_alpha"))
    yield from _one_clear_color()
    palette, index = picture("palette", 16, 1)[:, 0], picture("palette_trns.png")[..., :1] >> 4
    opacity = np.arange(0, 160, 16, dtype=np.uint8)  # entries after the tenth are opaque
    chunks = ((b"PLTE", palette.tobytes()), (b"tRNS", opacity.tobytes()))
    alpha = np.concatenate([opacity, np.full(6, 255, np.uint8)])[index]
    data = png(index, PALETTE, depth=4, chunks=chunks)
    yield OddFile("palette_trns.png", data, Truth(palette[index[..., 0]], alpha, "flattened_alpha"))


def _one_clear_color() -> Iterator[OddFile]:
    """PNG's tRNS for grey and RGB: one value is clear, at the file's own depth."""
    for depth in (4, 8, 16):
        name = f"grey_trns_{depth}_bit.png"
        levels = deep_picture(name)[..., :1] >> (16 - depth)
        hidden = int(levels[50, 60, 0])
        data = png(levels, GREY, depth=depth, chunks=((b"tRNS", struct.pack(">H", hidden)),))
        peak = 65535 if depth == 16 else 255
        color = (levels.astype(np.uint32) * peak // (2**depth - 1)).astype(np.uint16 if depth == 16 else np.uint8)
        alpha = np.where(levels == hidden, 0, peak).astype(color.dtype)
        reasons = "grey_to_rgb flattened_alpha" + (" reduced_depth" if depth == 16 else "")
        yield OddFile(name, data, Truth(color, alpha, reasons))
    for name, values in (
        ("rgb_trns.png", picture("rgb_trns.png")),
        ("rgb_trns_16.png", deep_picture("rgb_trns_16.png")),
    ):
        values[20:40, 30:50] = values[20, 30]
        data = png(values, RGB, chunks=((b"tRNS", struct.pack(">3H", *values[20, 30].tolist())),))
        alpha = np.where((values == values[20, 30]).all(2, keepdims=True), 0, np.iinfo(values.dtype).max)
        reasons = "flattened_alpha" + (" reduced_depth" if "16" in name else "")
        yield OddFile(name, data, Truth(values, alpha.astype(values.dtype), reasons))
    color = picture("trns_unused.png")
    data = png(color, RGB, chunks=((b"tRNS", struct.pack(">3H", 1, 2, 3)),))
    yield OddFile("trns_unused.png", data, Truth(color, np.full_like(color[..., :1], 255)))


def _narrow() -> Iterator[OddFile]:
    """Data of cameras and microscopes that use the low end of 16 bits."""
    for bits in (10, 12):
        name = f"grey_{bits}_in_16.png"
        levels = deep_picture(name)[..., :1] >> (16 - bits)
        data = png(levels, GREY)
        yield OddFile(name, data, Truth(levels, reasons="grey_to_rgb reduced_depth narrow_range"))
    levels = deep_picture("rgb_12_in_16.png") >> 4
    yield OddFile("rgb_12_in_16.png", png(levels, RGB), Truth(levels, reasons="reduced_depth narrow_range"))


def _profiles() -> Iterator[OddFile]:
    spaces = (("adobe", ADOBE, 2), ("p3", P3, 4), ("prophoto", PROPHOTO, 2))
    for label, space, version in spaces:
        values = picture(f"icc_{label}.png")
        data = png(values, RGB, chunks=(iccp(icc.rgb_profile(space, version=version)),))
        truth = Truth(rounded(to_srgb(values, space)), reasons="converted_profile", tolerance=1)
        yield OddFile(f"icc_{label}.png", data, truth)
    deep = deep_picture("icc_prophoto_16.png")
    data = png(deep, RGB, chunks=(iccp(icc.rgb_profile(PROPHOTO)),))
    color = rounded(to_srgb(deep, PROPHOTO, 65535), np.uint16)
    truth = Truth(color, reasons="converted_profile reduced_depth", tolerance=1)
    yield OddFile("icc_prophoto_16.png", data, truth)
    values, alpha = picture("icc_adobe_alpha.png"), picture("alpha of icc_adobe_alpha.png")[..., :1]
    data = png(np.concatenate([values, alpha], 2), RGBA, chunks=(iccp(icc.rgb_profile(ADOBE)),))
    truth = Truth(rounded(to_srgb(values, ADOBE)), alpha, "converted_profile flattened_alpha", tolerance=1)
    yield OddFile("icc_adobe_alpha.png", data, truth)
    palette, index = picture("icc palette", 256, 1), picture("icc_p3_palette.png")[..., 0]
    chunks = (iccp(icc.rgb_profile(P3, version=4)), (b"PLTE", palette.tobytes()))
    truth = Truth(rounded(to_srgb(palette, P3))[index, 0], reasons="converted_profile", tolerance=1)
    yield OddFile("icc_p3_palette.png", png(index[..., None], PALETTE, chunks=chunks), truth)
    for label, gamma in (("18", 1.8), ("22", 2.2)):
        values = picture(f"icc_grey_gamma_{label}.png")[..., :1]
        data = png(values, GREY, chunks=(iccp(icc.grey_profile(gamma)),))
        truth = Truth(rounded(grey_to_srgb(values, gamma)), reasons="converted_profile grey_to_rgb", tolerance=1)
        yield OddFile(f"icc_grey_gamma_{label}.png", data, truth)
    # Programs that turn a photo grey often leave the profile: grey is a colour of its space.
    values = picture("icc_adobe_in_grey.png")[..., :1]
    data = png(values, GREY, chunks=(iccp(icc.rgb_profile(ADOBE)),))
    color = rounded(to_srgb(np.repeat(values, 3, 2), ADOBE)[..., :1])
    truth = Truth(color, reasons="converted_profile grey_to_rgb", tolerance=1)
    yield OddFile("icc_adobe_in_grey.png", data, truth)
    values = picture("icc_srgb_in_grey.png")[..., :1]
    data = png(values, GREY, chunks=(iccp(icc.rgb_profile(SRGB)),))
    yield OddFile("icc_srgb_in_grey.png", data, Truth(values, reasons="grey_to_rgb"))
    for label, version in (("table", 2), ("formula", 4)):
        values = picture(f"icc_srgb_{label}.png")
        data = png(values, RGB, chunks=(iccp(icc.rgb_profile(SRGB, version=version, name="sRGB by its numbers")),))
        yield OddFile(f"icc_srgb_{label}.png", data, Truth(values))
    yield from _bad_profiles()


def _bad_profiles() -> Iterator[OddFile]:
    values = picture("icc_broken.png")
    data = png(values, RGB, chunks=(iccp(icc.rgb_profile(ADOBE)[:200]),))
    yield OddFile("icc_broken.png", data, Truth(values, reasons="unknown_profile"))
    values = picture("icc_noise.png")
    data = png(values, RGB, chunks=(iccp(bytes(range(250)) * 3),))
    yield OddFile("icc_noise.png", data, Truth(values, reasons="unknown_profile"))
    values = picture("icc_of_cmyk.png")
    data = png(values, RGB, chunks=(iccp(icc.cmyk_profile(3)),))
    yield OddFile("icc_of_cmyk.png", data, Truth(values, reasons="unknown_profile"))
    values = picture("icc_empty.png")
    yield OddFile("icc_empty.png", png(values, RGB, chunks=(iccp(b""),)), Truth(values, reasons="unknown_profile"))


def _color_chunks() -> Iterator[OddFile]:
    """What PNG says of colours without a profile (PNG, third edition, 4.3 and 11.3.2: cICP, iCCP, sRGB, gAMA)."""
    linear_space = SRGB._replace(gamma=1.0)
    adobe = ADOBE._replace(gamma=100000 / 45455)
    prophoto = PROPHOTO._replace(gamma=100000 / 55556)
    for name, chunks, space in (
        ("gama_linear.png", (gama(100000),), linear_space),
        ("gama_chrm_adobe.png", (gama(45455), chrm(ADOBE)), adobe),
        ("gama_chrm_prophoto.png", (gama(55556), chrm(PROPHOTO)), prophoto),
        ("cicp_p3.png", ((b"cICP", bytes([12, 13, 0, 1])),), P3),
        ("cicp_p3_over_srgb.png", ((b"cICP", bytes([12, 13, 0, 1])), (b"sRGB", b"\0"), gama(45455)), P3),
        ("icc_over_gama.png", (iccp(icc.rgb_profile(ADOBE)), gama(100000)), ADOBE),
    ):
        values = picture(name)
        truth = Truth(rounded(to_srgb(values, space)), reasons="converted_profile", tolerance=1)
        yield OddFile(name, png(values, RGB, chunks=chunks), truth)
    deep = deep_picture("cicp_p3_16.png")
    data = png(deep, RGB, chunks=((b"cICP", bytes([12, 13, 0, 1])),))
    color = rounded(to_srgb(deep, P3, 65535), np.uint16)
    truth = Truth(color, reasons="converted_profile reduced_depth", tolerance=1)
    yield OddFile("cicp_p3_16.png", data, truth)
    for name, chunks, reasons in (
        ("gama_of_srgb.png", (gama(45455),), ""),
        ("gama_chrm_of_srgb.png", (gama(45455), chrm(SRGB)), ""),
        ("srgb_chunk.png", ((b"sRGB", b"\0"),), ""),
        ("srgb_over_gama.png", ((b"sRGB", b"\0"), gama(100000), chrm(PROPHOTO)), ""),
        ("cicp_srgb_over_icc.png", ((b"cICP", bytes([1, 13, 0, 1])), iccp(icc.rgb_profile(ADOBE))), ""),
        ("cicp_pq.png", ((b"cICP", bytes([9, 16, 0, 1])),), "unknown_profile"),
        ("cicp_hlg.png", ((b"cICP", bytes([9, 18, 0, 1])),), "unknown_profile"),
    ):
        values = picture(name)
        yield OddFile(name, png(values, RGB, chunks=chunks), Truth(values, reasons=reasons))


def _orientations() -> Iterator[OddFile]:
    for orientation in (3, 6):
        color = picture(f"turned_{orientation}.png")
        chunks = ((b"eXIf", exif(orientation=orientation, make=MAKE)),)
        data = png(stored(color, orientation), RGB, chunks=chunks)
        yield OddFile(f"turned_{orientation}.png", data, Truth(color, exif=True))
    deep = deep_picture("turned_8_alpha_16.png")
    alpha = deep_picture("alpha of turned_8_alpha_16.png")[..., :1]
    data = png(stored(np.concatenate([deep, alpha], 2), 8), RGBA, chunks=((b"eXIf", exif(orientation=8, make=MAKE)),))
    yield OddFile("turned_8_alpha_16.png", data, Truth(deep, alpha, "flattened_alpha reduced_depth", exif=True))

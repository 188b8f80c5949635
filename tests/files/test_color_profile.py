"""Colours against LittleCMS through Pillow, and against the formulas of the standards."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from synthpipe.errors import ImageError
from synthpipe.files.decode import decode_image
from tests.files.exif_bytes import exif_block
from tests.files.icc_bytes import ADOBE_RGB, DISPLAY_P3, PROPHOTO, SRGB, cmyk_profile, grey_profile, rgb_profile
from tests.files.image_bytes import png
from tests.files.library_images import saved

BT709_PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
CONVERTED = {"converted_profile": 1}
UNKNOWN = {"unknown_profile": 1}
# Exponents as their 8 bits after the point can hold them.
SPACES = {"adobe": (ADOBE_RGB, 563 / 256), "p3": (DISPLAY_P3, 563 / 256), "prophoto": (PROPHOTO, 461 / 256)}
PROFILES = {name: rgb_profile(*space) for name, space in SPACES.items()}


def colors(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Every corner, and random ones between."""
    values = np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, (40, 48, channels), dtype=dtype)
    values[0, : 2**channels] = np.stack(np.meshgrid(*[[0, np.iinfo(dtype).max]] * channels), -1).reshape(-1, channels)
    values[1, :, :] = np.linspace(0, np.iinfo(dtype).max, 48).astype(dtype)[:, None]
    return values


def by_littlecms(image: Image.Image, icc: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert made is not None
    return np.asarray(made).astype(int)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear sRGB to levels: IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def to_srgb(xyz: np.ndarray) -> np.ndarray:
    """XYZ of white point D65 to levels."""
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    return encoded(xyz @ matrix.T)


class TestIcc:
    @pytest.mark.parametrize("name", sorted(PROFILES))
    @pytest.mark.parametrize("how", [{"format": "PNG"}, {"format": "TIFF"}, {"format": "WEBP", "lossless": True}])
    def test_rgb(self, name: str, how: dict[str, object]) -> None:
        image = Image.fromarray(colors(3))
        decoded, given_up = decode_image(saved(image, icc_profile=PROFILES[name], **how), "x")
        assert abs(decoded.astype(int) - by_littlecms(image, PROFILES[name])).max() <= 1
        assert given_up == CONVERTED

    @pytest.mark.parametrize("name", sorted(PROFILES))
    def test_jpeg(self, name: str) -> None:
        data = saved(Image.fromarray(colors(3)), format="JPEG", quality=90, icc_profile=PROFILES[name])
        decoded, given_up = decode_image(data, "x")
        assert abs(decoded.astype(int) - by_littlecms(Image.open(io.BytesIO(data)), PROFILES[name])).max() <= 1
        assert given_up == CONVERTED

    @pytest.mark.parametrize("name", sorted(PROFILES))
    def test_16_bits(self, name: str) -> None:
        """By the matrices: 8-bit LittleCMS is no measure where a curve is steep."""
        values = colors(3, np.uint16)
        chunk = b"x\0\0" + zlib.compress(PROFILES[name])
        decoded, given_up = decode_image(png(values, 2, chunks=((b"iCCP", chunk),)), "x")
        primaries, gamma = SPACES[name]
        light = (values / 65535) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
        assert abs(decoded - encoded(light)).max() <= 1
        assert given_up == CONVERTED | {"reduced_depth": 1}

    def test_palette_and_alpha(self) -> None:
        image = Image.fromarray(colors(3))
        palette = image.quantize(32)
        expected = by_littlecms(palette.convert("RGB"), PROFILES["adobe"])
        decoded, given_up = decode_image(saved(palette, format="PNG", icc_profile=PROFILES["adobe"]), "x")
        assert abs(decoded.astype(int) - expected).max() <= 1
        assert given_up == CONVERTED
        image.putalpha(Image.fromarray(np.full((40, 48), 128, np.uint8)))
        decoded, given_up = decode_image(saved(image, format="PNG", icc_profile=PROFILES["adobe"]), "x")
        expected = (by_littlecms(image.convert("RGB"), PROFILES["adobe"]) * 128 + 255 * 127) / 255
        assert abs(decoded - expected).max() <= 1.1
        assert given_up == CONVERTED | {"flattened_alpha": 1}

    @pytest.mark.parametrize("gamma", [1.0, 1.8])
    @pytest.mark.parametrize("how", [{"format": "PNG"}, {"format": "TIFF"}])
    def test_grey(self, gamma: float, how: dict[str, object]) -> None:
        levels = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
        image = Image.fromarray(levels)
        decoded, given_up = decode_image(saved(image, icc_profile=grey_profile(gamma), **how), "x")
        assert abs(decoded - encoded((levels / 255) ** gamma)[..., None]).max() <= 1
        assert given_up == CONVERTED | {"grey_to_rgb": 1}

    def test_rgb_profile_on_grey(self) -> None:
        """What Pillow's own ``convert("L")`` leaves in files."""
        levels = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
        data = saved(Image.fromarray(levels), format="PNG", icc_profile=PROFILES["prophoto"])
        decoded, given_up = decode_image(data, "x")
        expected = by_littlecms(Image.fromarray(np.stack([levels] * 3, -1)), PROFILES["prophoto"])
        assert abs(decoded.astype(int) - expected).max() <= 1
        assert given_up == CONVERTED | {"grey_to_rgb": 1}

    @pytest.mark.parametrize("fmt", ["TIFF", "JPEG"])
    def test_cmyk(self, fmt: str) -> None:
        data = saved(Image.fromarray(colors(4), "CMYK"), format=fmt, icc_profile=cmyk_profile())
        stored = Image.open(io.BytesIO(data))
        assert stored.mode == "CMYK"
        decoded, given_up = decode_image(data, "x")
        assert abs(decoded.astype(int) - by_littlecms(stored, cmyk_profile())).max() <= 1
        assert given_up == CONVERTED

    def test_bmp_of_version_5(self) -> None:
        values = colors(3)
        plain = saved(Image.fromarray(values), format="BMP")
        header = bytearray(124)
        header[:40] = plain[14:54]
        header[0:4] = struct.pack("<I", 124)
        icc = PROFILES["adobe"]
        pixels = plain[54:]
        header[56:60] = struct.pack("<I", 0x4D424544)
        header[112:120] = struct.pack("<II", 124 + len(pixels), len(icc))
        size = 14 + 124 + len(pixels) + len(icc)
        data = struct.pack("<2sIII", b"BM", size, 0, 14 + 124) + bytes(header) + pixels + icc
        decoded, given_up = decode_image(data, "x")
        assert abs(decoded.astype(int) - by_littlecms(Image.fromarray(values), icc)).max() <= 1
        assert given_up == CONVERTED


class TestSrgbIsLeftAlone:
    def test_profile(self) -> None:
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        values = colors(3)
        decoded, given_up = decode_image(saved(Image.fromarray(values), format="PNG", icc_profile=icc), "x")
        np.testing.assert_array_equal(decoded, values)
        assert given_up == {}

    def test_its_primaries_with_another_curve_are_not_srgb(self) -> None:
        icc = rgb_profile(SRGB, 1.8)
        image = Image.fromarray(colors(3))
        decoded, given_up = decode_image(saved(image, format="PNG", icc_profile=icc), "x")
        assert abs(decoded.astype(int) - by_littlecms(image, icc)).max() <= 1
        assert given_up == CONVERTED

    @pytest.mark.parametrize(
        "chunks",
        [
            ((b"gAMA", struct.pack(">I", 45455)),),
            ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100000))),
            (
                (b"gAMA", struct.pack(">I", 45455)),
                (b"cHRM", BT709_PRIMARIES),
            ),
            ((b"cICP", b"\x01\x0d\x00\x01"), (b"gAMA", struct.pack(">I", 100000))),
        ],
    )
    def test_png(self, chunks: tuple[tuple[bytes, bytes], ...]) -> None:
        """By the precedence of the PNG specification; the first is what ImageMagick writes into every file."""
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=chunks), "x")
        np.testing.assert_array_equal(decoded, values)
        assert given_up == {}


class TestPngChunks:
    def test_linear_light(self) -> None:
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=((b"gAMA", struct.pack(">I", 100000)),)), "x")
        assert abs(decoded - encoded(values / 255)).max() <= 1
        assert given_up == CONVERTED

    def test_wide_primaries(self) -> None:
        """Adobe RGB (1998) by chunks; the matrix is that of its specification, section 4.3.5.3."""
        values = colors(3)
        primaries = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
        chunks = ((b"gAMA", struct.pack(">I", 45470)), (b"cHRM", primaries))
        decoded, given_up = decode_image(png(values, 2, chunks=chunks), "x")
        matrix = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
        expected = to_srgb((values / 255) ** 2.2 @ matrix.T)
        assert abs(decoded - expected).max() <= 1.2
        assert given_up == CONVERTED

    def test_cicp_of_display_p3(self) -> None:
        """SMPTE EG 432-1 primaries, sRGB's curve."""
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=((b"cICP", b"\x0c\x0d\x00\x01"),)), "x")
        level = values / 255
        light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        matrix = np.array([[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0.0, 0.04511, 1.04394]])
        assert abs(decoded - to_srgb(light @ matrix.T)).max() <= 1.2
        assert given_up == CONVERTED

    @pytest.mark.parametrize(
        "chunks",
        [
            ((b"cICP", b"\x09\x10\x00\x01"),),  # PQ
            ((b"cICP", b"\x09\x12\x00\x01"),),  # HLG
            ((b"cICP", b"\x01"),),
            ((b"gAMA", bytes(4)),),
            ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", bytes(32))),
            ((b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),),
            ((b"iCCP", b"x\0\0" + b"not compressed"),),
        ],
    )
    def test_what_nobody_can_read_is_said(self, chunks: tuple[tuple[bytes, bytes], ...]) -> None:
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=chunks), "x")
        np.testing.assert_array_equal(decoded, values)
        assert given_up == UNKNOWN


class TestPngNotesThatPillowRefuses:
    """Texts and profiles above Pillow's megabyte, chunks that are too short: the pixels are good."""

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_a_long_text(self, dtype: type) -> None:
        text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)
        values = colors(3, dtype)
        decoded = decode_image(png(values, 2, chunks=((b"iTXt", text),)), "x")
        np.testing.assert_array_equal(decoded.pixels, decode_image(png(values, 2), "x").pixels)
        assert decoded.given_up == decode_image(png(values, 2), "x").given_up

    def test_a_large_profile(self) -> None:
        """Padding behind the tags of a profile belongs to its size, and says nothing."""
        icc = PROFILES["adobe"] + bytes(2_000_000)
        icc = struct.pack(">I", len(icc)) + icc[4:]
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=((b"iCCP", b"x\0\0" + zlib.compress(icc)),)), "x")
        assert abs(decoded.astype(int) - by_littlecms(Image.fromarray(values), PROFILES["adobe"])).max() <= 1
        assert given_up == CONVERTED

    @pytest.mark.parametrize("size", [17 << 20, 200 << 20])
    def test_a_profile_without_bounds(self, size: int) -> None:
        values = colors(3)
        chunk = (b"iCCP", b"x\0\0" + zlib.compress(bytes(size), 1))
        decoded, given_up = decode_image(png(values, 2, chunks=(chunk,)), "x")
        np.testing.assert_array_equal(decoded, values)
        assert given_up == UNKNOWN

    @pytest.mark.parametrize("chunk", [(b"gAMA", b"\0"), (b"cHRM", bytes(9))])
    def test_short_colour_chunks(self, chunk: tuple[bytes, bytes]) -> None:
        values = colors(3)
        decoded, given_up = decode_image(png(values, 2, chunks=(chunk,)), "x")
        np.testing.assert_array_equal(decoded, values)
        assert given_up == UNKNOWN


class TestUnknown:
    @pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
    def test_cmyk_without_a_profile(self, fmt: str) -> None:
        data = saved(Image.fromarray(colors(4), "CMYK"), format=fmt)
        decoded, given_up = decode_image(data, "x")
        np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert given_up == UNKNOWN

    @pytest.mark.parametrize("icc", [cmyk_profile(), grey_profile(1.8), b"x" * 200, PROFILES["adobe"][:200], b"?"])
    @pytest.mark.parametrize("fmt", ["PNG", "TIFF", "JPEG"])
    def test_of_another_space_or_broken(self, icc: bytes, fmt: str) -> None:
        data = saved(Image.fromarray(colors(3)), format=fmt, icc_profile=icc)
        decoded, given_up = decode_image(data, "x")
        np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data))))
        assert given_up == UNKNOWN


def adobe_exif(index: str = "R03") -> bytes:
    return b"Exif\0\0" + exif_block({0x8769: {0xA001: 65535, 0xA005: {1: index}}})


def test_cameras_mark_adobe_rgb_in_exif() -> None:
    """DCF 2.0, optional colour space: no profile, but interoperability index R03."""
    image = Image.fromarray(colors(3))
    data = saved(image, format="JPEG", quality=95, exif=adobe_exif())
    decoded, given_up = decode_image(data, "x")
    assert abs(decoded.astype(int) - by_littlecms(Image.open(io.BytesIO(data)), PROFILES["adobe"])).max() <= 2
    assert given_up == CONVERTED
    assert decode_image(saved(image, format="JPEG", exif=adobe_exif("R98")), "x").given_up == {}


def test_any_profile_gives_an_image_or_an_image_error() -> None:
    rng = np.random.default_rng(3)
    image = Image.fromarray(colors(3)[:4, :4])
    for number in range(300):
        icc = bytearray(PROFILES["adobe"])
        for _ in range(rng.integers(1, 8)):
            icc[rng.integers(len(icc))] = rng.integers(256)
        try:
            given_up = decode_image(saved(image, format="PNG", icc_profile=bytes(icc)), f"{number}").given_up
        except ImageError as error:
            raise AssertionError(f"{number}: a bad profile must not cost the image: {error}") from error
        assert set(given_up) <= {"converted_profile", "unknown_profile"}

"""Decoding against samples that the test itself laid down: byte layouts built by hand, peers for compressed TIFF."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from synthpipe.errors import ImageError, ShapeError
from synthpipe.files.containers import image_suffix, is_truncated
from synthpipe.files.decode import MAX_PIXELS, AlphaPolicy, decode_image, encode_png, thumbnail
from tests.files.image_bytes import png, png_chunk
from tests.files.library_images import samples, saved


def pixels_of(data: bytes, name: str = "x", *, alpha: AlphaPolicy = "white") -> np.ndarray:
    return decode_image(data, name, alpha=alpha).pixels


def outcome(data: bytes) -> np.ndarray | ImageError:
    try:
        return pixels_of(data, "some image")
    except ImageError as error:
        return error


def to8(deep_samples: np.ndarray, peak: int = 65535) -> np.ndarray:
    return np.round(deep_samples.astype(np.float64) * 255 / peak).astype(np.uint8)


def on_white(color: np.ndarray, alpha: np.ndarray, peak: int) -> np.ndarray:
    opacity = alpha.astype(np.float64) / peak
    return 255 * (color / peak * opacity + (1 - opacity))


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)


RGB = samples((9, 13, 3))
Image.init()
WRITTEN = set(Image.SAVE)  # not every Pillow writes AVIF


class TestWhatComesOut:
    def test_contract(self) -> None:
        for data in (png(RGB, 2), png(RGB[..., :1], 0), saved(Image.fromarray(RGB), format="JPEG")):
            array = pixels_of(data, "x")
            assert array.shape == (9, 13, 3)
            assert array.dtype == np.uint8
            assert array.flags.writeable
            assert array.flags.c_contiguous

    @pytest.mark.parametrize("how", [{"format": "PNG"}, {"format": "WEBP", "lossless": True}, {"format": "TIFF"}])
    def test_lossless_formats_return_the_samples(self, how: dict[str, object]) -> None:
        np.testing.assert_array_equal(pixels_of(saved(Image.fromarray(RGB), **how), "x"), RGB)

    def test_jpeg_is_close_to_a_smooth_original(self) -> None:
        y, x = np.mgrid[0:32, 0:48]
        smooth = np.stack([4 * x, 5 * y, 2 * x + 3 * y], axis=2).astype(np.uint8)
        data = saved(Image.fromarray(smooth), format="JPEG", quality=98, subsampling=0)
        assert abs(pixels_of(data, "x").astype(int) - smooth).max() <= 4

    def test_encode_png_is_read_back(self) -> None:
        assert encode_png(RGB) == encode_png(RGB.copy())
        np.testing.assert_array_equal(pixels_of(encode_png(RGB[:, ::-1]), "x"), RGB[:, ::-1])

    @pytest.mark.parametrize("bad", [RGB[..., :1], RGB.astype(np.float32), RGB[0], RGB[:0]])
    def test_encode_png_refuses(self, bad: np.ndarray) -> None:
        with pytest.raises(ShapeError, match=r"encode_png: expected \(H, W, 3\) uint8"):
            encode_png(bad)
        with pytest.raises(ShapeError, match=r"thumbnail: expected \(H, W, 3\) uint8"):
            thumbnail(bad, 4)

    def test_encode_png_to_fewer_bytes(self) -> None:
        steps = np.repeat(np.repeat(samples((40, 40, 3)) >> 4, 3, 0), 3, 1)
        assert len(encode_png(steps, optimize=True)) < len(encode_png(steps))
        np.testing.assert_array_equal(pixels_of(encode_png(steps, optimize=True), "x"), steps)


class TestThumbnail:
    @pytest.mark.parametrize(("size", "side", "expected"), [((100, 300), 60, (20, 60)), ((512, 128), 128, (128, 32))])
    def test_the_longer_side_is_what_was_asked_for(
        self, size: tuple[int, int], side: int, expected: tuple[int, int]
    ) -> None:
        small = thumbnail(samples((*size, 3)), side)
        assert (small.shape, small.dtype) == ((*expected, 3), np.uint8)

    def test_never_enlarged(self) -> None:
        np.testing.assert_array_equal(thumbnail(RGB, 13), RGB)

    def test_a_ramp_stays_a_ramp(self) -> None:
        """Reduced four times, each pixel of a linear ramp is the mean of the four it stands for, borders apart."""
        ramp = np.broadcast_to(np.arange(0, 256, dtype=np.uint8)[None, :, None], (256, 256, 3))
        expected = np.arange(0, 256).reshape(64, 4).mean(1)
        small = thumbnail(ramp, 64).astype(float)
        assert np.abs(small - expected[None, :, None])[:, 2:-2].max() <= 0.51
        flat = thumbnail(np.full((256, 256, 3), 77, np.uint8), 64)
        assert (flat == 77).all()


class TestPngLayouts:
    """Every colour type and depth of the PNG specification, from bytes packed by the test."""

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_grey(self, depth: int) -> None:
        levels = samples((7, 11, 1)) >> (8 - depth)
        expected = grey3(levels.astype(int) * 255 // (2**depth - 1))
        np.testing.assert_array_equal(pixels_of(png(levels, 0, depth=depth), "x"), expected)

    @pytest.mark.parametrize("depth", [1, 2, 4, 8])
    def test_palette(self, depth: int) -> None:
        palette = samples((2**depth, 3), seed=1)
        index = samples((7, 11, 1)) >> (8 - depth)
        data = png(index, 3, depth=depth, chunks=((b"PLTE", palette.tobytes()),))
        np.testing.assert_array_equal(pixels_of(data, "x"), palette[index[..., 0]])

    def test_palette_with_transparency(self) -> None:
        palette, alpha = samples((16, 3), seed=1), samples((16,), seed=2)
        index = samples((7, 11, 1)) >> 4
        data = png(index, 3, depth=4, chunks=((b"PLTE", palette.tobytes()), (b"tRNS", alpha.tobytes())))
        expected = on_white(palette[index[..., 0]], alpha[index], 255)
        np.testing.assert_allclose(pixels_of(data, "x"), expected, atol=0.501)

    @pytest.mark.parametrize(("color_type", "channels"), [(4, 2), (6, 4)])
    def test_alpha(self, color_type: int, channels: int) -> None:
        values = samples((7, 11, channels))
        expected = on_white(values[..., :-1], values[..., -1:], 255)
        decoded = pixels_of(png(values, color_type), "x")
        np.testing.assert_allclose(decoded, np.broadcast_to(expected, decoded.shape), atol=0.501)

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("row_filter", [0, 1, 2, 4])
    @pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3)])
    def test_16_bits_are_rounded_not_cut(
        self, color_type: int, channels: int, row_filter: int, interlaced: bool
    ) -> None:
        values = samples((17, 19, channels), np.uint16)
        data = png(values, color_type, row_filter=row_filter, interlaced=interlaced)
        decoded = pixels_of(data, "x")
        np.testing.assert_array_equal(decoded, np.broadcast_to(to8(values), decoded.shape))
        assert (decoded != np.broadcast_to(values >> 8, decoded.shape)).any()  # what Pillow alone would give

    @pytest.mark.parametrize("row_filter", [0, 4])
    @pytest.mark.parametrize(("color_type", "channels"), [(4, 2), (6, 4)])
    def test_16_bits_with_alpha(self, color_type: int, channels: int, row_filter: int) -> None:
        values = samples((7, 11, channels), np.uint16)
        expected = on_white(values[..., :-1], values[..., -1:], 65535)
        decoded = pixels_of(png(values, color_type, row_filter=row_filter), "x")
        np.testing.assert_allclose(decoded, np.broadcast_to(expected, decoded.shape), atol=0.501)

    def test_all_16_bit_levels(self) -> None:
        levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
        expected = to8(levels)
        np.testing.assert_array_equal(pixels_of(png(levels, 0), "x"), grey3(expected))
        np.testing.assert_array_equal(pixels_of(png(np.repeat(levels, 3, 2), 2), "x"), grey3(expected))

    @pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
    def test_one_transparent_grey(self, depth: int) -> None:
        levels = samples((7, 11, 1), np.uint16) >> (16 - depth)
        hidden = int(levels[3, 4, 0])
        peak = 2**depth - 1
        expected = np.where(levels == hidden, 255, to8(levels, peak))
        data = png(levels.astype(np.uint16), 0, depth=depth, chunks=((b"tRNS", struct.pack(">H", hidden)),))
        np.testing.assert_array_equal(pixels_of(data, "x"), grey3(expected))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_one_transparent_color(self, dtype: type) -> None:
        values = samples((7, 11, 3), dtype)
        hidden = values[2, 5]
        expected = to8(values, np.iinfo(dtype).max)
        expected[2, 5] = 255
        data = png(values, 2, chunks=((b"tRNS", struct.pack(">3H", *hidden.tolist())),))
        np.testing.assert_array_equal(pixels_of(data, "x"), expected)


class TestTiff:
    """tifffile writes what Pillow cannot; the samples are ours."""

    def write(self, values: np.ndarray, **how: object) -> bytes:
        tifffile = pytest.importorskip("tifffile")
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, **how)
        return buffer.getvalue()

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_16_bit_color(self, byteorder: str, compression: str | None) -> None:
        values = samples((8, 16, 3), np.uint16)
        data = self.write(values, photometric="rgb", byteorder=byteorder, compression=compression)
        np.testing.assert_array_equal(pixels_of(data, "x"), to8(values))

    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_16_bit_alpha_plain_and_premultiplied(self, compression: str | None) -> None:
        values = samples((8, 16, 4), np.uint16)
        data = self.write(values, photometric="rgb", extrasamples=["unassalpha"], compression=compression)
        expected = on_white(values[..., :3], values[..., 3:], 65535)
        np.testing.assert_allclose(pixels_of(data, "x"), expected, atol=0.501)
        values[..., :3] = np.minimum(values[..., :3], values[..., 3:])
        data = self.write(values, photometric="rgb", extrasamples=["assocalpha"], compression=compression)
        expected = (values[..., :3] + (65535.0 - values[..., 3:])) * 255 / 65535
        np.testing.assert_allclose(pixels_of(data, "x"), expected, atol=0.501)

    def test_8_bit_premultiplied(self) -> None:
        values = samples((8, 16, 4))
        values[..., :3] = np.minimum(values[..., :3], values[..., 3:])
        data = self.write(values, photometric="rgb", extrasamples=["assocalpha"])
        np.testing.assert_array_equal(pixels_of(data, "x"), values[..., :3] + (255 - values[..., 3:]))

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_16_bit_grey(self, byteorder: str, compression: str | None) -> None:
        values = samples((8, 16), np.uint16)
        data = self.write(values, photometric="minisblack", byteorder=byteorder, compression=compression)
        np.testing.assert_array_equal(pixels_of(data, "x"), grey3(to8(values)))

    def test_inverted_16_bit_grey(self) -> None:
        values = samples((8, 16), np.uint16)
        data = self.write(values, photometric="miniswhite")
        np.testing.assert_array_equal(pixels_of(data, "x"), grey3(to8(65535 - values)))

    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_separate_planes(self, compression: str | None) -> None:
        how = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
        np.testing.assert_array_equal(pixels_of(self.write(RGB.transpose(2, 0, 1), **how), "x"), RGB)
        deep = samples((3, 8, 16), np.uint16)
        np.testing.assert_array_equal(pixels_of(self.write(deep, **how), "x"), to8(deep.transpose(1, 2, 0)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("planar", [True, False])
    def test_tiles_of_gigabytes_are_refused(self, planar: bool, dtype: type) -> None:
        """Found by fuzzing: libtiff sets memory aside for a whole tile before it looks at its bytes."""
        values = samples((64, 80, 3), dtype)
        how: dict[str, object] = {"photometric": "rgb", "tile": (32, 32), "compression": "lzw"}
        if planar:
            values, how["planarconfig"] = values.transpose(2, 0, 1), "separate"
        data = bytearray(self.write(values, **how))
        order = "<" if data[:2] == b"II" else ">"
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, at) == (323,):
                struct.pack_into(order + "HII", data, at + 2, 4, 1, 1 << 24)
        with pytest.raises(ImageError, match="refused, tiles of 536870912 pixels for 80x64") as caught:
            pixels_of(bytes(data))
        assert caught.value.reason == "bomb"

    @pytest.mark.parametrize("compression", [None, "lzw", "zstd"])
    def test_16_bit_grey_with_alpha(self, compression: str | None) -> None:
        """Pillow does not open such a file."""
        values = samples((8, 16, 2), np.uint16)
        data = self.write(values, photometric="minisblack", extrasamples=["unassalpha"], compression=compression)
        expected = on_white(values[..., :1], values[..., 1:], 65535)
        decoded, given_up = decode_image(data, "x")
        np.testing.assert_allclose(decoded, np.broadcast_to(expected, (8, 16, 3)), atol=0.501)
        assert given_up == {"flattened_alpha": 1, "grey_to_rgb": 1, "reduced_depth": 1}
        with pytest.raises(ImageError) as caught:
            decode_image(data, "x", max_pixels=50)
        assert caught.value.reason == "bomb"

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_cmyk(self, dtype: type) -> None:
        values = samples((8, 16, 4), dtype)
        ink = values / np.iinfo(dtype).max
        expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
        # One rounding to 8 bits before the product and one after it.
        np.testing.assert_allclose(pixels_of(self.write(values, photometric="separated"), "x"), expected, atol=1.6)

    @pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32])
    def test_samples_without_a_range_are_refused(self, dtype: type) -> None:
        with pytest.raises(ImageError) as caught:
            pixels_of(self.write(np.ones((8, 16), dtype)), "odd.tif")
        assert caught.value.reason in ("unsupported", "unreadable")
        assert "odd.tif" in str(caught.value)


def test_cmyk_jpeg() -> None:
    inks = np.full((16, 16, 4), (30, 120, 200, 40), np.uint8)
    data = saved(Image.fromarray(inks, mode="CMYK"), format="JPEG", quality=98)
    expected = 255 * (1 - inks[0, 0, :3] / 255) * (1 - inks[0, 0, 3] / 255)
    np.testing.assert_allclose(pixels_of(data, "x")[8, 8], expected, atol=3)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(fmt: str, orientation: int) -> None:
    """EXIF 2.32: the tag says which sides of the scene row 0 and column 0 of the file are."""
    scene = np.zeros((32, 48, 3), np.uint8)
    scene[:16, :24] = 250  # top left
    scene[:16, 24:] = 120  # top right
    stored = {
        1: scene,  # (top, left)
        2: scene[:, ::-1],  # (top, right)
        3: scene[::-1, ::-1],  # (bottom, right)
        4: scene[::-1],  # (bottom, left)
        5: scene.transpose(1, 0, 2),  # (left, top)
        6: scene.transpose(1, 0, 2)[::-1],  # (right, top)
        7: scene[::-1, ::-1].transpose(1, 0, 2),  # (right, bottom)
        8: scene.transpose(1, 0, 2)[:, ::-1],  # (left, bottom)
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored[orientation])), format=fmt, exif=exif)
    decoded = pixels_of(data, "x")
    assert decoded.shape == scene.shape
    assert abs(decoded[2:14, 2:22].astype(int) - 250).max() < 10
    assert abs(decoded[2:14, 26:46].astype(int) - 120).max() < 10
    assert decoded[18:].max() < 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("behind", [False, True])
def test_orientation_of_png_before_and_behind_the_pixels(behind: bool, dtype: type) -> None:
    values = samples((4, 6, 3), dtype)
    exif = Image.Exif()
    exif[0x0112] = 3
    chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    data = png(values, 2, chunks=() if behind else (chunk,))
    if behind:
        data = data[:-12] + png_chunk(*chunk) + data[-12:]
    expected = values if dtype == np.uint8 else to8(values)
    np.testing.assert_array_equal(pixels_of(data), expected[::-1, ::-1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_metadata_does_not_spoil_an_image() -> None:
    data = png(RGB, 2, chunks=((b"eXIf", b"II*\x00\xff\xff\xff\x7f"),))
    np.testing.assert_array_equal(pixels_of(data, "x"), RGB)


def test_first_frame_of_several() -> None:
    frames = [Image.fromarray(samples((8, 8, 3), seed=seed)) for seed in range(3)]
    for how in ({"format": "TIFF"}, {"format": "WEBP", "lossless": True}, {"format": "PNG"}):
        data = saved(frames[0], save_all=True, append_images=frames[1:], **how)
        np.testing.assert_array_equal(pixels_of(data, "x"), np.array(frames[0]))


class TestAlphaPolicy:
    def test_refuse_names_the_image(self) -> None:
        with pytest.raises(ImageError, match=r"logo\.png: has transparency") as caught:
            pixels_of(png(samples((4, 4, 4)), 6), "logo.png", alpha="refuse")
        assert caught.value.reason == "alpha"

    def test_opaque_alpha_is_no_transparency(self) -> None:
        values = samples((4, 4, 4))
        values[..., 3] = 255
        np.testing.assert_array_equal(pixels_of(png(values, 6), "x", alpha="refuse"), values[..., :3])


class TestGivenUp:
    """What is lost by becoming 8-bit sRGB is said, and nothing else."""

    @pytest.mark.parametrize("how", [{"format": f} for f in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")])
    def test_plain_images_lose_nothing(self, how: dict[str, object]) -> None:
        assert decode_image(saved(Image.fromarray(RGB), **how), "x").given_up == {}
        assert decode_image(png(samples((16, 3))[index_of((5, 5))], 2), "x").given_up == {}

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (png(samples((4, 4, 1)), 0), {"grey_to_rgb": 1}),
            (png(samples((4, 4, 1)) >> 7, 0, depth=1), {"grey_to_rgb": 1}),
            (png(samples((4, 4, 2)), 4), {"grey_to_rgb": 1, "flattened_alpha": 1}),
            (png(samples((4, 4, 3), np.uint16), 2), {"reduced_depth": 1}),
            (png(samples((4, 4, 3)).astype(np.uint16) * 257, 2), {}),
            (png(samples((4, 4, 4), np.uint16), 6), {"reduced_depth": 1, "flattened_alpha": 1}),
            (png(samples((4, 4, 3), np.uint16) >> 4, 2), {"reduced_depth": 1, "narrow_range": 1}),
            (png(samples((4, 4, 1), np.uint16) >> 6, 0), {"reduced_depth": 1, "narrow_range": 1, "grey_to_rgb": 1}),
            (png(np.zeros((4, 4, 3), np.uint16), 2), {}),
        ],
    )
    def test_of_png(self, data: bytes, expected: dict[str, int]) -> None:
        assert decode_image(data, "x").given_up == expected

    @pytest.mark.parametrize("fmt", ["TIFF", "WEBP", "PNG", "GIF"])
    def test_pages_are_counted(self, fmt: str) -> None:
        frames = [Image.fromarray(samples((8, 8, 3), seed=seed)) for seed in range(5)]
        data = saved(frames[0], format=fmt, save_all=True, append_images=frames[1:])
        assert decode_image(data, "x").given_up == {"further_pages": 4}


def index_of(shape: tuple[int, int]) -> np.ndarray:
    return samples(shape) >> 4


class TestBadFiles:
    @pytest.mark.parametrize("data", [b"no image at all, but text", b"GIF89a" + bytes(50), bytes(1000), b"II*\x00zz"])
    def test_garbage(self, data: bytes) -> None:
        with pytest.raises(ImageError, match=r"note\.txt") as caught:
            pixels_of(data, "note.txt")
        assert caught.value.reason in ("unreadable", "truncated")
        assert (caught.value.reason == "truncated") == data.startswith((b"II", b"GIF"))
        assert "0x" not in str(caught.value)  # the same text on every run

    def test_empty(self) -> None:
        with pytest.raises(ImageError) as caught:
            pixels_of(b"", "empty.png")
        assert caught.value.reason == "truncated"

    def test_bomb(self) -> None:
        size = int(1.01 * MAX_PIXELS**0.5)
        header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
        data = png(RGB, 2)
        bomb = data[:8] + png_chunk(b"IHDR", header) + data[33:]
        with pytest.raises(ImageError, match=r"big\.png: refused") as caught:
            pixels_of(bomb, "big.png")
        assert caught.value.reason == "bomb"

    def test_the_limit_is_settable_and_independent_of_pillows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        data = png(RGB, 2)
        np.testing.assert_array_equal(decode_image(data, "x", max_pixels=9 * 13).pixels, RGB)
        with pytest.raises(ImageError, match=r"13x9 are 117 pixels, more than max_pixels \(116\)") as caught:
            decode_image(data, "x", max_pixels=116)
        assert caught.value.reason == "bomb"

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_of_compressed_tiff(self, channels: int, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pillow looks at its own limit once more where libtiff decodes."""
        values = samples((9, 13, channels))
        image = Image.fromarray(values if channels > 1 else values[..., 0])
        data = saved(image, format="TIFF", compression="tiff_lzw", tiffinfo={0x0112: orientation})
        before = decode_image(data, "x")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        after = decode_image(data, "x")
        np.testing.assert_array_equal(after.pixels, before.pixels)
        assert after.given_up == before.given_up

    @pytest.mark.parametrize(
        "how",
        [
            {"format": "PNG"},
            {"format": "JPEG"},
            {"format": "JPEG", "progressive": True},
            {"format": "WEBP"},
            {"format": "TIFF"},
            {"format": "TIFF", "compression": "tiff_adobe_deflate"},
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about damaged TIFF tags
    def test_cut_off_anywhere(self, how: dict[str, object]) -> None:
        """Every cut is called a cut, unless all pixels came before it."""
        whole = saved(Image.fromarray(samples((24, 24, 3))), **how)
        assert not is_truncated(whole)
        full = pixels_of(whole, "x")
        refused = 0
        for length in range(0, len(whole), max(len(whole) // 60, 1)):
            got = outcome(whole[:length])
            if isinstance(got, ImageError):
                assert got.reason == "truncated", f"{how} after {length} of {len(whole)} bytes: {got}"
                refused += length >= len(whole) // 2
            else:
                np.testing.assert_array_equal(got, full)
        assert refused > 10

    def test_cut_off_is_refused_even_where_pillow_is_told_to_fill(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        whole = saved(Image.fromarray(samples((64, 64, 3))), format="JPEG")
        with pytest.raises(ImageError, match="ends too early") as caught:
            pixels_of(whole[: len(whole) // 2], "cut.jpg")
        assert caught.value.reason == "truncated"
        assert pixels_of(whole, "whole.jpg").shape == (64, 64, 3)

    def test_preview_inside_a_cut_jpeg_does_not_hide_the_cut(self) -> None:
        preview = saved(Image.fromarray(samples((16, 16, 3))), format="JPEG")
        whole = saved(Image.fromarray(samples((64, 64, 3))), format="JPEG")
        segment = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
        data = whole[:2] + segment + whole[2:]
        assert not is_truncated(data)
        assert is_truncated(data[:-100])

    def test_pillow_is_left_as_it_was(self) -> None:
        before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.WARN_POSSIBLE_FORMATS)
        pixels_of(png(RGB, 2), "x")
        for bad in (b"", b"x" * 100, png(RGB, 2)[:60]):
            with pytest.raises(ImageError):
                pixels_of(bad, "x")
        assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, Image.WARN_POSSIBLE_FORMATS)

    @pytest.mark.filterwarnings("ignore")
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(data=st.data())
    def test_any_damage_gives_an_image_or_an_image_error(self, data: st.DataObject) -> None:
        how = data.draw(
            st.sampled_from(
                [{"format": f} for f in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF") if f in WRITTEN]
            )
        )
        damaged = bytearray(saved(Image.fromarray(RGB), **how))
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        got = outcome(bytes(damaged))
        if isinstance(got, ImageError):
            assert got.reason in ("truncated", "unreadable", "unsupported", "bomb")
        else:
            assert got.dtype == np.uint8
            assert got.shape[2] == 3


@pytest.mark.parametrize(
    ("fmt", "suffix"),
    [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("TIFF", "tiff"), ("BMP", "bmp"), ("GIF", "gif")],
)
def test_suffix_comes_from_the_bytes(fmt: str, suffix: str) -> None:
    assert image_suffix(saved(Image.fromarray(RGB), format=fmt)) == suffix

"""What commands write back: read at full depth, encoded, and read again by other libraries."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from synthpipe.errors import ImageError, ShapeError
from synthpipe.files.decode import decode_image
from synthpipe.files.original import Original, encode_original, read_pages
from tests.files.exif_bytes import exif_block
from tests.files.icc_bytes import ADOBE_RGB, SRGB, rgb_profile
from tests.files.image_bytes import png, png_chunk
from tests.files.library_images import samples, saved, tiff
from tests.files.test_color_profile import adobe_exif, encoded


def only(data: bytes, **options: int) -> Original:
    (page,) = read_pages(data, "x", **options)  # type: ignore[arg-type]
    return page


def frame_control(number: int, width: int, height: int) -> tuple[bytes, bytes]:
    """A chunk of APNG: the frame that follows replaces what was there."""
    return b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0)


COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_nothing_is_lost(self, channels: int, dtype: type) -> None:
        values = samples((9, 13, channels), dtype)
        page = only(png(values, COLOR_TYPES[channels]))
        colors = channels - (channels + 1) % 2
        np.testing.assert_array_equal(page.color, values[..., :colors])
        assert (page.peak, page.pages, page.given_up) == (np.iinfo(dtype).max, 1, {})
        if channels == colors:
            assert page.alpha is None
        else:
            np.testing.assert_array_equal(page.alpha, values[..., colors:])
        data = encode_original(page.color, page.alpha)
        assert (data[24], data[25]) == (8 * values.dtype.itemsize, COLOR_TYPES[channels])
        again = only(data)
        np.testing.assert_array_equal(again.color, page.color)
        assert data == encode_original(page.color, page.alpha)

    def test_of_tiff(self) -> None:
        values = samples((9, 13, 4), np.uint16)
        page = only(tiff(values, photometric="rgb", extrasamples=["unassalpha"]))
        np.testing.assert_array_equal(np.concatenate([page.color, page.alpha], 2), values)  # type: ignore[list-item]
        values = samples((9, 13, 2), np.uint16)
        page = only(tiff(values, photometric="minisblack", extrasamples=["unassalpha"]))
        np.testing.assert_array_equal(np.concatenate([page.color, page.alpha], 2), values)  # type: ignore[list-item]

    def test_premultiplied_colours_are_divided(self) -> None:
        alpha = samples((9, 13, 1), np.uint16) | 4096
        color = (samples((9, 13, 3), np.uint16, 1) * (alpha / 65535)).astype(np.uint16)
        page = only(tiff(np.concatenate([color, alpha], 2), photometric="rgb", extrasamples=["assocalpha"]))
        assert abs(page.color - np.minimum(color * 65535.0 / alpha, 65535)).max() <= 0.5

    @pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
    def test_encode_refuses(self, bad: np.ndarray) -> None:
        with pytest.raises(ShapeError, match="expected colour"):
            encode_original(bad)
        with pytest.raises(ShapeError, match="expected colour"):
            encode_original(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 1), np.uint16))


class TestRange:
    def test_of_a_12_bit_sensor_is_found(self) -> None:
        values = samples((9, 13, 1), np.uint16) >> 4
        values[0, 0] = 4095
        page = only(png(values, 0))
        assert (page.peak, page.given_up) == (4095, {"narrow_range": 1})
        np.testing.assert_array_equal(page.color, values)
        np.testing.assert_array_equal(only(png(values >> 2, 0)).color, values >> 2)
        assert only(png(values >> 2, 0)).peak == 1023

    def test_is_what_was_asked_for(self) -> None:
        values = samples((9, 13, 1), np.uint16) >> 4
        assert only(png(values, 0), value_range=65535).peak == 65535
        page = only(png(values, 0), value_range=16383)
        assert (page.peak, page.given_up) == (16383, {})
        with pytest.raises(ImageError, match=r"x: holds values up to \d+, above the range 1023") as caught:
            only(png(values, 0), value_range=1023)
        assert caught.value.reason == "out_of_range"

    def test_bits_that_the_file_states_fill_the_range(self) -> None:
        """12-bit samples of a TIFF that says so: 4095 is white, and so is 65535 of a 16-bit PNG."""
        packed = bytes.fromhex("000fff800123") * 4  # 0, 4095, 2048, 291
        entries = [(256, 4, 4), (257, 4, 4), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 150), (277, 3, 1)]
        entries += [(278, 4, 4), (279, 4, len(packed))]
        body = struct.pack("<H", len(entries)) + b"".join(
            struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
        )
        data = (b"II*\0" + struct.pack("<I", 8) + body + bytes(4)).ljust(150, b"\0") + packed
        page = only(data)
        expected = np.round(np.array([0, 4095, 2048, 291]) * 65535 / 4095).astype(int)
        np.testing.assert_array_equal(page.color[..., 0], np.tile(expected, (4, 1)))
        assert (page.peak, page.given_up) == (65535, {})


class TestColour:
    def test_16_bits_keep_their_precision(self) -> None:
        values = samples((40, 48, 3), np.uint16)
        chunk = b"x\0\0" + zlib.compress(rgb_profile(ADOBE_RGB, 563 / 256))
        page = only(png(values, 2, chunks=((b"iCCP", chunk),)))
        light = (values / 65535) ** (563 / 256) @ np.array(ADOBE_RGB) @ np.linalg.inv(np.array(SRGB))
        assert page.color.dtype == np.uint16
        # In the dark the last digits of a profile's numbers are worth a part of a level.
        assert abs(page.color / 257 - encoded(light)).max() <= 0.4
        assert abs(page.color / 257 - encoded(light)).mean() <= 0.03
        assert page.given_up == {"converted_profile": 1}

    def test_of_a_narrow_range(self) -> None:
        """The numbers stay those of the sensor's range."""
        values = samples((40, 48, 3), np.uint16) >> 4
        values[0, 0] = 4095
        chunk = b"x\0\0" + zlib.compress(rgb_profile(ADOBE_RGB, 563 / 256))
        page = only(png(values, 2, chunks=((b"iCCP", chunk),)))
        light = (values / 4095) ** (563 / 256) @ np.array(ADOBE_RGB) @ np.linalg.inv(np.array(SRGB))
        assert page.peak == 4095
        assert abs(page.color / 4095 * 255 - encoded(light)).max() <= 0.4
        assert abs(page.color / 4095 * 255 - encoded(light)).mean() <= 0.05


class TestPages:
    @pytest.mark.parametrize("fmt", ["TIFF", "WEBP", "PNG"])
    def test_each_is_read(self, fmt: str) -> None:
        frames = [Image.fromarray(samples((8, 8, 3), seed=seed)) for seed in range(4)]
        how = {"lossless": True} if fmt == "WEBP" else {}
        data = saved(frames[0], format=fmt, save_all=True, append_images=frames[1:], **how)
        pages = list(read_pages(data, "x"))
        assert [(page.page, page.pages) for page in pages] == [(number, 4) for number in range(4)]
        for page, frame in zip(pages, frames, strict=True):
            np.testing.assert_array_equal(page.color, np.asarray(frame))

    def test_of_16_bits(self) -> None:
        stack = samples((3, 8, 9, 3), np.uint16)
        pages = list(read_pages(tiff(stack, photometric="rgb"), "x"))
        np.testing.assert_array_equal(np.stack([page.color for page in pages]), stack)

    def test_of_16_bits_in_an_animated_png(self) -> None:
        first, second = samples((8, 9, 4), np.uint16), samples((8, 9, 4), np.uint16, seed=1)
        data = png(first, COLOR_TYPES[4], chunks=((b"acTL", struct.pack(">II", 2, 0)), frame_control(0, 9, 8)))
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in second)
        frame = (frame_control(1, 9, 8), (b"fdAT", struct.pack(">I", 2) + zlib.compress(rows)))
        data = data[:-12] + b"".join(png_chunk(kind, payload) for kind, payload in frame) + data[-12:]
        pages = list(read_pages(data, "x"))
        np.testing.assert_array_equal(pages[0].color, first[..., :3])
        # Of further frames the high bytes are read.
        np.testing.assert_array_equal(pages[1].color, second[..., :3] >> 8)
        np.testing.assert_array_equal(pages[1].alpha, second[..., 3:] >> 8)
        assert [page.given_up for page in pages] == [{}, {"reduced_depth": 1}]

    def test_of_a_webp_whose_frames_leave_the_canvas_clear(self) -> None:
        frames = np.zeros((3, 20, 20, 4), np.uint8)
        for number, frame in enumerate(frames):
            frame[2 + 4 * number : 8 + 4 * number, 2:8] = [255, 60 * number, 0, 255]
        images = [Image.fromarray(frame) for frame in frames]
        data = saved(images[0], format="WEBP", save_all=True, append_images=images[1:], lossless=True)
        assert not data[20] & 0x10  # libwebp's encoder says: no alpha
        for page, frame in zip(read_pages(data, "x"), frames, strict=True):
            assert page.alpha is not None
            np.testing.assert_array_equal(page.alpha, frame[..., 3:])
            np.testing.assert_array_equal(page.color, frame[..., :3])
        pixels, given_up = decode_image(data, "x")
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert given_up == {"flattened_alpha": 1, "further_pages": 2}

    def test_of_an_opaque_webp_without_alpha(self) -> None:
        frames = [Image.fromarray(samples((8, 8, 3), seed=seed)) for seed in range(2)]
        data = saved(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
        assert [page.alpha for page in read_pages(data, "x")] == [None, None]

    def test_the_preview_of_a_photograph_is_counted(self) -> None:
        frames = [Image.fromarray(samples((64, 64, 3), seed=seed)) for seed in range(2)]
        page = only(saved(frames[0], format="MPO", save_all=True, append_images=frames[1:]))
        assert page.given_up == {"further_pages": 1}

    def test_the_limit_holds_for_each(self) -> None:
        frames = [Image.fromarray(samples((side, side, 3))) for side in (8, 64)]
        data = saved(frames[0], format="TIFF", save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="64x64 are 4096 pixels, more than max_pixels") as caught:
            list(read_pages(data, "x", max_pixels=4095))
        assert caught.value.reason == "bomb"

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
    def test_a_cut_page_is_an_image_error(self) -> None:
        frames = [Image.fromarray(samples((64, 64, 3), seed=seed)) for seed in range(3)]
        data = saved(frames[0], format="TIFF", compression="tiff_lzw", save_all=True, append_images=frames[1:])
        for share in (0.4, 0.67, 0.9):
            with pytest.raises(ImageError) as caught:
                list(read_pages(data[: int(len(data) * share)], "x"))
            assert caught.value.reason == "truncated"


class TestExif:
    def test_is_kept_but_for_the_orientation(self) -> None:
        exif = b"Exif\0\0" + exif_block({0x0112: 6, 0x010F: "Maker", 0x8769: {0x829A: (1, 4)}, 0x8825: {1: "N"}})
        for how in ({"format": "JPEG"}, {"format": "PNG"}, {"format": "WEBP"}):
            page = only(saved(Image.fromarray(samples((8, 12, 3))), exif=exif, **how))
            assert page.color.shape == (12, 8, 3)
            for color in (page.color, page.color.astype(np.uint16) * 257):
                kept = Image.open(io.BytesIO(encode_original(color, None, page.exif))).getexif()
                assert (kept[0x010F], 0x0112 in kept) == ("Maker", False)
                assert kept.get_ifd(0x8769)[0x829A] == 0.25
                assert kept.get_ifd(0x8825)[1] == "N"

    def test_of_tiff_without_what_describes_pixels(self) -> None:
        image = Image.fromarray(samples((8, 12, 3)))
        page = only(saved(image, format="TIFF", tiffinfo={270: "a scene", 274: 8}))
        assert page.color.shape == (12, 8, 3)
        kept = Image.open(io.BytesIO(encode_original(page.color, None, page.exif))).getexif()
        assert dict(kept) == {270: "a scene"}

    def test_says_srgb_once_converted(self) -> None:
        """Read again, the colours must not be converted a second time."""
        data = saved(Image.fromarray(samples((8, 12, 3))), format="JPEG", exif=adobe_exif())
        page = only(data)
        assert page.given_up == {"converted_profile": 1}
        again = only(encode_original(page.color, page.alpha, page.exif))
        assert again.given_up == {}
        np.testing.assert_array_equal(again.color, page.color)

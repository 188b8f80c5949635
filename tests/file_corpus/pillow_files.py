"""JPEG, WebP, GIF, BMP and AVIF, as Pillow writes them: what is lossy is held against Pillow's own plain decoding."""

from __future__ import annotations

import importlib.util
import io
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tests.file_corpus import icc
from tests.file_corpus.colour_math import ADOBE, P3, to_srgb
from tests.file_corpus.tiff import exif
from tests.file_corpus.truth import MAKE, OddFile, Truth, picture, rounded, stored

__all__ = ["by_littlecms", "has_avif", "has_heic", "heic", "pillow_files", "plain", "saved"]


def saved(image: Image.Image | np.ndarray, **how: Any) -> bytes:
    """The image as a file; ``how`` is what Pillow's `save` takes."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())).save(buffer, **how)
    return buffer.getvalue()


def plain(data: bytes, mode: str = "RGB", frame: int = 0) -> np.ndarray:
    """``(H, W, C)`` as Pillow decodes it, with nothing applied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about garbage in metadata
        with Image.open(io.BytesIO(data)) as image:
            image.seek(frame)
            samples = np.array(image.convert(mode))
    return samples if samples.ndim == 3 else samples[..., None]


def by_littlecms(samples: np.ndarray, mode: str, profile: bytes, *, exact: bool = False) -> np.ndarray:
    """``(H, W, 3)`` uint8, sRGB, with ImageCms's defaults; ``exact``: without its coarser table of the profile's."""
    image = Image.frombytes(mode, samples.shape[1::-1], np.ascontiguousarray(samples).tobytes())
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    flags = ImageCms.Flags.NOOPTIMIZE if exact else ImageCms.Flags.NONE
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB", flags=flags)
    assert converted is not None
    return np.array(converted)


def has_avif() -> bool:
    """Whether this Pillow writes AVIF."""
    Image.init()
    return "AVIF" in Image.SAVE


def has_heic() -> bool:
    """Whether the extra is there."""
    return importlib.util.find_spec("pillow_heif") is not None


def heic(samples: np.ndarray, **how: Any) -> bytes:
    """The image as a HEIC."""
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(np.ascontiguousarray(samples))).save(buffer, quality=90, **how)
    return buffer.getvalue()


def pillow_files() -> Iterator[OddFile]:
    """All of them."""
    yield from _jpegs()
    yield from _jpeg_profiles()
    yield from _orientations()
    yield from _webps()
    yield from _gifs()
    yield from _bmps()
    if has_avif():
        yield from _avifs()
    if has_heic():
        yield from _heics()


def _jpegs() -> Iterator[OddFile]:
    for name, how in (
        ("baseline.jpg", {"quality": 92, "subsampling": 0}),
        ("progressive_420.jpeg", {"quality": 85, "subsampling": 2, "progressive": True}),
        ("suffix.jpe", {"quality": 90}),
        ("suffix.jfif", {"quality": 90}),
        ("SUFFIX.JPG", {"quality": 90, "subsampling": 1}),
        ("restart_markers.jpg", {"quality": 90, "restart_marker_rows": 2}),
    ):
        data = saved(picture(name), format="JPEG", **how)
        yield OddFile(name, data, Truth(plain(data), tolerance=1))
    data = saved(picture("grey.jpg")[..., :1], format="JPEG", quality=90)
    yield OddFile("grey.jpg", data, Truth(plain(data, "L"), reasons="grey_to_rgb", tolerance=1))
    data = saved(picture("exif_garbage.jpg"), format="JPEG", quality=90, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    yield OddFile("exif_garbage.jpg", data, Truth(plain(data), tolerance=1))
    data = saved(picture("twin.jpg"), format="JPEG", quality=90)
    yield OddFile("twin.jpg", data, Truth(plain(data), tolerance=1))
    color = picture("twin.png")
    yield OddFile("twin.png", saved(color, format="PNG"), Truth(color))
    frames = [Image.fromarray(picture(f"two_pictures.jpg {number}")) for number in range(2)]
    data = saved(frames[0], format="MPO", save_all=True, append_images=frames[1:], quality=90)
    truth = Truth(plain(data), further_pages=(plain(data, frame=1),), tolerance=1, preview=True)
    yield OddFile("two_pictures.jpg", data, truth)


def _jpeg_profiles() -> Iterator[OddFile]:
    for name, space, version in (("icc_adobe.jpg", ADOBE, 2), ("icc_p3.jpg", P3, 4)):
        profile = icc.rgb_profile(space, version=version)
        data = saved(picture(name), format="JPEG", quality=92, icc_profile=profile)
        truth = Truth(rounded(to_srgb(plain(data), space)), reasons="converted_profile", tolerance=1)
        yield OddFile(name, data, truth)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:24] + bytes(12) + profile[36:]  # without the hour of its making
    data = saved(picture("icc_srgb.jpg"), format="JPEG", quality=92, icc_profile=profile)
    yield OddFile("icc_srgb.jpg", data, Truth(plain(data), tolerance=1))
    for name, profile in (
        ("icc_broken.jpg", icc.rgb_profile(ADOBE)[:150]),
        ("icc_of_grey_in_rgb.jpg", icc.grey_profile(1.8)),
    ):
        data = saved(picture(name), format="JPEG", quality=92, icc_profile=profile)
        yield OddFile(name, data, Truth(plain(data), reasons="unknown_profile", tolerance=1))
    yield from _profiles_in_parts()
    inks = np.concatenate([picture("cmyk.jpg"), picture("black ink of a JPEG")[..., :1] // 3], 2)
    image = Image.frombytes("CMYK", (128, 112), inks.tobytes())
    data = saved(image, format="JPEG", quality=92)
    yield OddFile("cmyk.jpg", data, Truth(plain(data), reasons="unknown_profile", tolerance=1))
    profile = icc.cmyk_profile()
    data = saved(image, format="JPEG", quality=92, icc_profile=profile)
    truth = Truth(by_littlecms(plain(data, "CMYK"), "CMYK", profile), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_cmyk.jpg", data, truth)
    # Cameras say Adobe RGB so (DCF 2.0, 5.2), often without a profile.
    for interop, reasons in (("R03", "converted_profile"), ("R98", "")):
        name = f"exif_{interop.lower()}.jpg"
        data = saved(picture(name), format="JPEG", quality=92, exif=b"Exif\0\0" + exif(interop=interop, make=MAKE))
        color = rounded(to_srgb(plain(data), ADOBE)) if interop == "R03" else plain(data)
        yield OddFile(name, data, Truth(color, reasons=reasons, tolerance=1, exif=True))


def _profiles_in_parts() -> Iterator[OddFile]:
    """APP2 segments number the parts of a profile (ICC.1, annex B.4), and may stand anywhere before the scan."""
    mark = b"ICC_PROFILE\0"
    data = saved(picture("icc_part_missing.jpg"), format="JPEG", quality=92, icc_profile=icc.rgb_profile(ADOBE))
    count = data.index(mark) + len(mark) + 1
    data = data[:count] + b"\2" + data[count + 1 :]
    yield OddFile("icc_part_missing.jpg", data, Truth(plain(data), reasons="unknown_profile", tolerance=1))
    data = saved(picture("icc_behind_frame.jpg"), format="JPEG", quality=92, icc_profile=icc.rgb_profile(ADOBE))
    start = data.index(mark) - 4
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    scan = data.index(b"\xff\xda", end)
    data = data[:start] + data[end:scan] + data[start:end] + data[scan:]
    truth = Truth(rounded(to_srgb(plain(data), ADOBE)), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_behind_frame.jpg", data, truth)


def _with_code_points(data: bytes, primaries: int, curve: int) -> bytes:
    """AVIF or HEIC whose ``colr`` box says other colours (ISO/IEC 14496-12, 12.1.5; ITU-T H.273)."""
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, curve) + data[place + 4 :]


def _orientations() -> Iterator[OddFile]:
    places = [(orientation, "JPEG", "jpg") for orientation in range(1, 9)] + [(8, "WEBP", "webp")]
    for orientation, kind, suffix in places:
        name = f"turned_{orientation}.{suffix}"
        block = b"Exif\0\0" + exif(orientation=orientation, make=MAKE)
        how = {"lossless": True} if kind == "WEBP" else {"quality": 92, "subsampling": 0}
        data = saved(np.ascontiguousarray(stored(picture(name), orientation)), format=kind, exif=block, **how)
        # 6 and 8 undo each other, the others themselves.
        color = stored(plain(data), {6: 8, 8: 6}.get(orientation, orientation))
        yield OddFile(name, data, Truth(color, tolerance=1, exif=True))


def _webps() -> Iterator[OddFile]:
    color = picture("lossless.webp")
    yield OddFile("lossless.webp", saved(color, format="WEBP", lossless=True, method=0), Truth(color))
    data = saved(picture("lossy.webp"), format="WEBP", quality=90, method=0)
    yield OddFile("lossy.webp", data, Truth(plain(data), tolerance=1))
    color, alpha = picture("alpha.webp"), picture("alpha of alpha.webp")[..., :1]
    data = saved(np.concatenate([color, alpha], 2), format="WEBP", lossless=True, exact=True, method=0)
    yield OddFile("alpha.webp", data, Truth(color, alpha, "flattened_alpha"))
    values = picture("icc_p3.webp")
    data = saved(values, format="WEBP", lossless=True, method=0, icc_profile=icc.rgb_profile(P3, version=4))
    truth = Truth(rounded(to_srgb(values, P3)), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_p3.webp", data, truth)
    for kind, how in (("webp", {"format": "WEBP", "lossless": True, "method": 0}), ("png", {"format": "PNG"})):
        frames = [picture(f"animated.{kind} {number}") for number in range(4)]
        images = [Image.fromarray(frame) for frame in frames]
        data = saved(images[0], save_all=True, append_images=images[1:], duration=100, **how)
        yield OddFile(f"animated.{kind}", data, Truth(frames[0], further_pages=tuple(frames[1:])))


def _gifs() -> Iterator[OddFile]:
    image = Image.fromarray(picture("still.gif")).quantize(128)
    yield OddFile("still.gif", saved(image, format="GIF"), Truth(np.array(image.convert("RGB"))))
    image = Image.fromarray(picture("clear.gif")).quantize(128)
    index = np.array(image)[..., None]
    hidden = int(index[50, 60, 0])
    alpha = np.where(index == hidden, 0, 255).astype(np.uint8)
    data = saved(image, format="GIF", transparency=hidden)
    yield OddFile("clear.gif", data, Truth(np.array(image.convert("RGB")), alpha, "flattened_alpha"))
    frames = [Image.fromarray(picture(f"animated.gif {number}")).quantize(128) for number in range(4)]
    data = saved(frames[0], format="GIF", save_all=True, append_images=frames[1:], duration=100)
    pages = [plain(data, frame=number) for number in range(4)]
    yield OddFile("animated.gif", data, Truth(pages[0], further_pages=tuple(pages[1:])))


def _bmps() -> Iterator[OddFile]:
    color = picture("rgb.bmp")
    yield OddFile("rgb.bmp", saved(color, format="BMP"), Truth(color))
    grey = picture("grey.bmp")[..., :1]
    yield OddFile("grey.bmp", saved(grey, format="BMP"), Truth(grey, reasons="grey_to_rgb"))
    image = Image.fromarray(picture("palette.bmp")).quantize(200)
    yield OddFile("palette.bmp", saved(image, format="BMP"), Truth(np.array(image.convert("RGB"))))
    color = picture("top_down.bmp")
    yield OddFile("top_down.bmp", _bmp(color), Truth(color))
    color, alpha = picture("alpha.bmp"), picture("alpha of alpha.bmp")[..., :1]
    yield OddFile("alpha.bmp", _bmp(np.concatenate([color, alpha], 2)), Truth(color, alpha, "flattened_alpha"))


def _bmp(samples: np.ndarray) -> bytes:
    """A BMP from top to bottom: 24 bits with the old header, 32 with masks in a V4 header."""
    height, width, channels = samples.shape
    size, compression = (40, 0) if channels == 3 else (108, 3)
    head = struct.pack(
        "<IiiHHIIiiII", size, width, -height, 1, 8 * channels, compression, samples.size, 2835, 2835, 0, 0
    )
    if channels == 4:
        head += struct.pack("<4I4s36x12x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    order = [2, 1, 0, 3][:channels]
    body = samples[..., order].tobytes()  # rows of 128 pixels need no padding
    return b"BM" + struct.pack("<IHHI", 14 + size + len(body), 0, 0, 14 + size) + head + body


def _avifs() -> Iterator[OddFile]:
    data = saved(picture("plain.avif"), format="AVIF", quality=90, speed=10)
    yield OddFile("plain.avif", data, Truth(plain(data), tolerance=1))
    values = np.concatenate([picture("alpha.avif"), picture("alpha of alpha.avif")[..., :1]], 2)
    data = saved(values, format="AVIF", quality=90, speed=10)
    samples = plain(data, "RGBA")
    yield OddFile("alpha.avif", data, Truth(samples[..., :3], samples[..., 3:], "flattened_alpha", tolerance=1))
    profile = icc.rgb_profile(P3, version=4)
    data = saved(picture("icc_p3.avif"), format="AVIF", quality=90, speed=10, icc_profile=profile)
    truth = Truth(rounded(to_srgb(plain(data), P3)), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_p3.avif", data, truth)
    data = saved(picture("nclx_p3.avif"), format="AVIF", quality=90, speed=10)
    truth = Truth(rounded(to_srgb(plain(data), P3)), reasons="converted_profile", tolerance=1)
    yield OddFile("nclx_p3.avif", _with_code_points(data, 12, 13), truth)
    data = saved(picture("nclx_pq.avif"), format="AVIF", quality=90, speed=10)
    yield OddFile(
        "nclx_pq.avif", _with_code_points(data, 9, 16), Truth(plain(data), reasons="unknown_profile", tolerance=1)
    )
    data = saved(picture("nclx_unsaid.avif"), format="AVIF", quality=90, speed=10)
    yield OddFile("nclx_unsaid.avif", _with_code_points(data, 2, 2), Truth(plain(data), tolerance=1))
    block = exif(orientation=6, make=MAKE)
    data = saved(
        np.ascontiguousarray(stored(picture("turned_6.avif"), 6)), format="AVIF", quality=90, speed=10, exif=block
    )
    yield OddFile("turned_6.avif", data, Truth(stored(plain(data), 8), tolerance=1, exif=True))


def _heics() -> Iterator[OddFile]:
    import pillow_heif

    def decoded(data: bytes) -> np.ndarray:
        """Upright: HEIC says itself how it is turned."""
        return np.array(pillow_heif.read_heif(data).to_pillow())

    data = heic(picture("plain.heic"))
    yield OddFile("plain.heic", data, Truth(decoded(data), tolerance=1))
    data = heic(np.concatenate([picture("alpha.heic"), picture("alpha of alpha.heic")[..., :1]], 2))
    samples = decoded(data)
    yield OddFile("alpha.heic", data, Truth(samples[..., :3], samples[..., 3:], "flattened_alpha", tolerance=1))
    data = heic(picture("icc_p3.heic"), icc_profile=icc.rgb_profile(P3, version=4))
    truth = Truth(rounded(to_srgb(decoded(data), P3)), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_p3.heic", data, truth)
    data = heic(picture("nclx_p3.heic"))
    truth = Truth(rounded(to_srgb(decoded(data), P3)), reasons="converted_profile", tolerance=1)
    yield OddFile("nclx_p3.heic", _with_code_points(data, 12, 13), truth)
    data = heic(stored(picture("turned_6.heic"), 6), exif=exif(orientation=6, make=MAKE))
    yield OddFile("turned_6.heic", data, Truth(decoded(data), tolerance=1, exif=True))

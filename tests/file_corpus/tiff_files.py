"""TIFF files: modes, depths, byte orders, layouts, compressions, stacks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.file_corpus import icc
from tests.file_corpus.colour_math import ADOBE, grey_to_srgb, to_srgb
from tests.file_corpus.pillow_files import by_littlecms, plain, saved
from tests.file_corpus.tiff import MINISBLACK, MINISWHITE, SEPARATED, YCBCR, Page, tiff
from tests.file_corpus.truth import MAKE, OddFile, Truth, deep_picture, picture, rounded, stored

__all__ = ["tiff_files"]

_PROFILE, _ORIENTATION, _CAMERA, _SUBSAMPLING = 34675, 274, 271, 530
_UNSPECIFIED, _PREMULTIPLIED, _UNASSOCIATED = (0,), (1,), (2,)


def tiff_files() -> Iterator[OddFile]:
    """All of them."""
    yield from _modes()
    yield from _without_a_range()
    yield from _alpha()
    yield from _depths()
    yield from _layouts()
    yield from _ink()
    yield from _profiles()
    yield from _stacks()


def _modes() -> Iterator[OddFile]:
    bits = picture("mode_1.tif")[..., :1] >> 7
    yield OddFile("mode_1.tif", tiff(Page(bits, MINISBLACK, bits=1)), Truth(bits * 255, reasons="grey_to_rgb"))
    bits = picture("group4.tif")[..., 0] >> 7
    data = saved(Image.fromarray(bits.astype(bool)), format="TIFF", compression="group4")
    yield OddFile("group4.tif", data, Truth(bits[..., None] * 255, reasons="grey_to_rgb"))
    grey = picture("mode_l.tif")[..., :1]
    yield OddFile("mode_l.tif", tiff(Page(grey, MINISBLACK)), Truth(grey, reasons="grey_to_rgb"))
    grey = picture("mode_l_inverted.tif")[..., :1]
    yield OddFile("mode_l_inverted.tif", tiff(Page(255 - grey, MINISWHITE)), Truth(grey, reasons="grey_to_rgb"))
    color = picture("mode_rgb.tiff")
    yield OddFile("mode_rgb.tiff", tiff(Page(color)), Truth(color))
    for name, mode in (("mode_p.tif", "P"), ("mode_pa.tif", "PA")):
        image = Image.fromarray(picture(name)).quantize(64)
        color = np.array(image.convert("RGB"))
        if mode == "P":
            yield OddFile(name, saved(image, format="TIFF"), Truth(color))
            continue
        alpha = picture("alpha of " + name)[..., :1]
        both = image.convert("PA")
        both.putalpha(Image.fromarray(alpha[..., 0]))
        yield OddFile(name, saved(both, format="TIFF"), Truth(color, alpha, "flattened_alpha"))
    color = picture("mode_rgbx.tif")
    unused = picture("unused")[..., :1]
    data = tiff(Page(np.concatenate([color, unused], 2), extra=_UNSPECIFIED))
    yield OddFile("mode_rgbx.tif", data, Truth(color, reasons="further_channels"))
    luma, blue, red = np.moveaxis(picture("mode_ycbcr.tif").astype(float), 2, 0)
    values = [
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    ]
    color = np.clip(np.round(np.stack(values, 2)), 0, 255).astype(np.uint8)
    data = tiff(Page(picture("mode_ycbcr.tif"), YCBCR, tags={_SUBSAMPLING: (1, 1)}))
    yield OddFile("mode_ycbcr.tif", data, Truth(color, tolerance=1) if _pillow_reads(data) else "unreadable")


def _pillow_reads(data: bytes) -> bool:
    """Pillow 11.0 does not read YCbCr that is not compressed."""
    try:
        return plain(data).size > 0
    except OSError:
        return False


def _without_a_range() -> Iterator[OddFile]:
    """Samples that no rule turns into grey levels."""
    deep = deep_picture("no range")[..., :1]
    yield OddFile("mode_i.tif", tiff(Page(deep.astype(np.int32) * 1000, MINISBLACK)), "unsupported")
    yield OddFile("mode_i_unsigned.tif", tiff(Page(deep.astype(np.uint32) * 1000, MINISBLACK)), "unsupported")
    yield OddFile("mode_f.tif", tiff(Page(deep.astype(np.float32) / 65535, MINISBLACK)), "unsupported")
    yield OddFile("mode_rgb_float.tif", tiff(Page(deep_picture("no range").astype(np.float32) / 65535)), "unsupported")
    signed = {339: 2}
    grey = picture("mode_l_signed.tif")[..., :1]
    yield OddFile("mode_l_signed.tif", tiff(Page(grey, MINISBLACK, tags=signed)), "unsupported")
    grey = picture("bits_6.tif")[..., :1] >> 2
    yield OddFile("bits_6.tif", tiff(Page(grey, MINISBLACK, bits=6)), "unsupported")
    inks = np.concatenate([picture("cmyk_alpha.tif"), picture("black and alpha")[..., :2]], 2)
    for name, samples in (("cmyk_alpha.tif", inks), ("cmyk_alpha_16.tif", inks.astype(np.uint16) * 257)):
        yield OddFile(name, tiff(Page(samples, SEPARATED, extra=_UNASSOCIATED)), "unsupported")
    yield OddFile("cmyk_big.tif", tiff(Page(inks[..., :4], SEPARATED), order=">", big=True), "unsupported")
    lab = Image.fromarray(picture("mode_lab.tif"), mode="LAB")
    yield OddFile("mode_lab.tif", saved(lab, format="TIFF"), "unsupported")


def _alpha() -> Iterator[OddFile]:
    color, alpha = picture("mode_la.tif")[..., :1], picture("alpha of mode_la.tif")[..., :1]
    data = tiff(Page(np.concatenate([color, alpha], 2), MINISBLACK, extra=_UNASSOCIATED))
    yield OddFile("mode_la.tif", data, Truth(color, alpha, "grey_to_rgb flattened_alpha"))
    deep, alpha16 = deep_picture("la_16.tif")[..., :1], deep_picture("alpha of la_16.tif")[..., :1]
    data = tiff(Page(np.concatenate([deep, alpha16], 2), MINISBLACK, extra=_UNASSOCIATED))
    yield OddFile("la_16.tif", data, Truth(deep, alpha16, "grey_to_rgb flattened_alpha reduced_depth"))
    deep = deep_picture("rgbx_16.tif")
    data = tiff(Page(np.concatenate([deep, deep[..., :1]], 2), extra=_UNSPECIFIED))
    yield OddFile("rgbx_16.tif", data, Truth(deep, reasons="reduced_depth further_channels"))
    for name, make in (("stains.tif", picture), ("stains_16.tif", deep_picture)):
        stains = np.concatenate([make(name), make("fourth stain")[..., :1]], 2)
        reasons = "grey_to_rgb further_channels" + (" reduced_depth" if make is deep_picture else "")
        data = tiff(Page(stains, MINISBLACK, extra=_UNSPECIFIED * 3, planar=True))
        yield OddFile(name, data, Truth(stains[..., :1], reasons=reasons))
    for depth in (8, 16):
        make = picture if depth == 8 else deep_picture
        reasons = "flattened_alpha" + (" reduced_depth" if depth == 16 else "")
        name = f"rgba_{depth}.tif"
        color, alpha = make(name), make("alpha of " + name)[..., :1]
        data = tiff(Page(np.concatenate([color, alpha], 2), extra=_UNASSOCIATED))
        yield OddFile(name, data, Truth(color, alpha, reasons))
        name = f"rgba_premultiplied_{depth}.tif"
        # Colours that division gives back exactly: alpha is all or a third.
        color = make(name)
        color -= color % 3
        alpha = np.where(make("alpha of " + name)[..., :1] > color.dtype.type(np.iinfo(color.dtype).max // 2), 3, 1)
        alpha = (alpha * (np.iinfo(color.dtype).max // 3)).astype(color.dtype)
        times = (color.astype(np.uint64) * alpha // np.iinfo(color.dtype).max).astype(color.dtype)
        data = tiff(Page(np.concatenate([times, alpha], 2), extra=_PREMULTIPLIED))
        yield OddFile(name, data, Truth(color, alpha, reasons))


def _depths() -> Iterator[OddFile]:
    for order, name in (("<", "mode_i16.tif"), (">", "mode_i16_big.tif")):
        deep = deep_picture(name)[..., :1]
        data = tiff(Page(deep, MINISBLACK), order=order)
        yield OddFile(name, data, Truth(deep, reasons="grey_to_rgb reduced_depth"))
        name = name.replace("mode_i16", "rgb_16")
        deep = deep_picture(name)
        yield OddFile(name, tiff(Page(deep), order=order), Truth(deep, reasons="reduced_depth"))
    deep = deep_picture("grey_12_packed.tif")[..., :1] >> 4
    truth = Truth(deep, reasons="grey_to_rgb reduced_depth", peak=4095)
    yield OddFile("grey_12_packed.tif", tiff(Page(deep, MINISBLACK, bits=12)), truth)
    deep = deep_picture("grey_12_in_16.tif")[..., :1] >> 4
    truth = Truth(deep, reasons="grey_to_rgb reduced_depth narrow_range")
    yield OddFile("grey_12_in_16.tif", tiff(Page(deep, MINISBLACK)), truth)
    for depth in (2, 4):
        name = f"grey_{depth}_bit.tif"
        levels = picture(name)[..., :1] >> (8 - depth)
        truth = Truth(levels * (255 // (2**depth - 1)), reasons="grey_to_rgb")
        yield OddFile(name, tiff(Page(levels, MINISBLACK, bits=depth)), truth)


def _layouts() -> Iterator[OddFile]:
    for name, how, order, big in (
        ("planar", {"planar": True}, "<", False),
        ("tiled", {"tile": (32, 48)}, "<", False),
        ("tiled_planar_lzw", {"tile": (64, 64), "planar": True, "compression": "lzw"}, ">", False),
        ("lzw", {"compression": "lzw"}, "<", False),
        ("packbits", {"compression": "packbits"}, ">", False),
        ("deflate_predictor", {"compression": "deflate", "predictor": True}, ">", False),
        ("bigtiff", {}, "<", True),
        ("bigtiff_big_endian_tiled", {"tile": (16, 64), "compression": "deflate"}, ">", True),
    ):
        color = picture(f"{name}_8.tif")
        yield OddFile(f"{name}_8.tif", tiff(Page(color, **how), order=order, big=big), Truth(color))
        deep = deep_picture(f"{name}_16.tif")
        data = tiff(Page(deep, **how), order=order, big=big)
        yield OddFile(f"{name}_16.tif", data, Truth(deep, reasons="reduced_depth"))
    image = Image.fromarray(picture("jpeg_in_tiff.tif"))
    data = saved(image, format="TIFF", compression="jpeg", quality=92)
    yield OddFile("jpeg_in_tiff.tif", data, Truth(plain(data), tolerance=1))
    for orientation in (5, 7):
        deep = deep_picture(f"turned_{orientation}_16.tif")
        data = tiff(Page(stored(deep, orientation), tags={_ORIENTATION: orientation, _CAMERA: MAKE}))
        yield OddFile(f"turned_{orientation}_16.tif", data, Truth(deep, reasons="reduced_depth", exif=True))
    grey = picture("turned_6_grey.tif")[..., :1]
    data = tiff(Page(stored(grey, 6), MINISBLACK, tags={_ORIENTATION: 6, _CAMERA: MAKE}))
    yield OddFile("turned_6_grey.tif", data, Truth(grey, reasons="grey_to_rgb", exif=True))


def _ink() -> Iterator[OddFile]:
    inks = np.concatenate([picture("cmyk.tif"), picture("black ink")[..., :1] // 3], 2)
    color = np.round((255 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    truth = Truth(color, reasons="unknown_profile", tolerance=1)
    yield OddFile("cmyk.tif", tiff(Page(inks, SEPARATED)), truth)
    deep = np.concatenate([deep_picture("cmyk_16.tif"), deep_picture("black ink")[..., :1] // 3], 2)
    color = np.round((65535.0 - deep[..., :3]) * (65535.0 - deep[..., 3:]) / 65535).astype(np.uint16)
    truth = Truth(color, reasons="unknown_profile reduced_depth")
    yield OddFile("cmyk_16.tif", tiff(Page(deep, SEPARATED)), truth)
    profile = icc.cmyk_profile()
    inks = np.concatenate([picture("icc_cmyk.tif"), picture("black ink")[..., 1:2] // 3], 2)
    truth = Truth(by_littlecms(inks, "CMYK", profile), reasons="converted_profile", tolerance=1)
    yield OddFile("icc_cmyk.tif", tiff(Page(inks, SEPARATED, tags={_PROFILE: profile})), truth)
    # 257 times 8 bits: LittleCMS's conversion of these is the truth, whatever the depth.
    shallow = np.concatenate([picture("icc_cmyk_16.tif"), picture("black ink")[..., 1:2] // 3], 2)
    color = by_littlecms(shallow, "CMYK", profile, exact=True).astype(np.uint16) * 257
    truth = Truth(color, reasons="converted_profile reduced_depth", tolerance=1)
    data = tiff(Page(shallow.astype(np.uint16) * 257, SEPARATED, tags={_PROFILE: profile}), order=">")
    yield OddFile("icc_cmyk_16.tif", data, truth)


def _profiles() -> Iterator[OddFile]:
    deep = deep_picture("icc_adobe_16.tif")
    data = tiff(Page(deep, tags={_PROFILE: icc.rgb_profile(ADOBE)}), order=">")
    color = rounded(to_srgb(deep, ADOBE, 65535), np.uint16)
    truth = Truth(color, reasons="converted_profile reduced_depth", tolerance=1)
    yield OddFile("icc_adobe_16.tif", data, truth)
    deep = deep_picture("icc_grey_gamma_18_16.tif")[..., :1]
    data = tiff(Page(deep, MINISBLACK, tags={_PROFILE: icc.grey_profile(1.8)}))
    color = rounded(grey_to_srgb(deep, 1.8, 65535), np.uint16)
    truth = Truth(color, reasons="converted_profile grey_to_rgb reduced_depth", tolerance=1)
    yield OddFile("icc_grey_gamma_18_16.tif", data, truth)
    color = picture("icc_broken.tif")
    data = tiff(Page(color, tags={_PROFILE: b"no profile at all"}))
    yield OddFile("icc_broken.tif", data, Truth(color, reasons="unknown_profile"))


def _stacks() -> Iterator[OddFile]:
    pages = [picture(f"stack.tif {number}")[..., :1] for number in range(5)]
    data = tiff(*(Page(page, MINISBLACK) for page in pages))
    yield OddFile("stack.tif", data, Truth(pages[0], reasons="grey_to_rgb", further_pages=tuple(pages[1:])))
    deep = [deep_picture(f"stack_16.tif {number}")[..., :1] for number in range(3)]
    data = tiff(*(Page(page, MINISBLACK, compression="deflate") for page in deep), order=">")
    truth = Truth(deep[0], reasons="grey_to_rgb reduced_depth", further_pages=tuple(deep[1:]))
    yield OddFile("stack_16.tif", data, truth)
    # 16-bit grey with alpha is what Pillow does not open: orientation, profile and pages must be read all the same.
    deep = [deep_picture(f"la_16_stack.tif {number}")[..., :1] for number in range(3)]
    alphas = [deep_picture(f"alpha of la_16_stack.tif {number}")[..., :1] for number in range(3)]
    tags = {_PROFILE: icc.grey_profile(1.8), _ORIENTATION: 6, _CAMERA: MAKE}
    pages = [
        Page(stored(np.concatenate(both, 2), 6), MINISBLACK, extra=_UNASSOCIATED, tags=tags)
        for both in zip(deep, alphas, strict=True)
    ]
    colors = [rounded(grey_to_srgb(page, 1.8, 65535), np.uint16) for page in deep]
    reasons = "converted_profile grey_to_rgb flattened_alpha reduced_depth"
    further = tuple(colors[1:])
    truth = Truth(colors[0], alphas[0], reasons, tolerance=1, further_pages=further, exif=True)
    yield OddFile("la_16_stack.tif", tiff(*pages, big=True, order=">"), truth)
    # A page of another size and another kind.
    first, second = picture("stack_mixed.tif"), picture("stack_mixed.tif 1", 90, 100)[..., :1]
    data = tiff(Page(first), Page(second, MINISBLACK))
    yield OddFile("stack_mixed.tif", data, Truth(first, further_pages=(second,)))

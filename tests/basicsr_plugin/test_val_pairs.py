"""Validation pairs: what BasicSR would not pair, or reads as another picture, is said at the start."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from synthpipe.cli import main
from tests.basicsr_runs import options, require_basicsr, run_entry, smooth_image

require_basicsr()

from synthpipe.basicsr_plugin.checks import val_pairs  # noqa: E402
from synthpipe.basicsr_plugin.checks.val_pairs import Findings, check_val_pairs  # noqa: E402

SCALE = 4


def block_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "v",
        "type": "PairedImageDataset",
        "dataroot_gt": str(folder / "gt"),
        "dataroot_lq": str(folder / "lq"),
        "io_backend": {"type": "disk"},
        **more,
    }


def check(folder: Path, **more: Any) -> Findings:
    return check_val_pairs({"scale": SCALE, "datasets": {"val": block_of(folder, **more)}})


def picture(side: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(smooth_image(seed, side))


def save(path: Path, image: Image.Image, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **more)


def pair(folder: Path, gt: str = "a.png", lq: str = "a.png", side: int = 64, low: int = 16) -> None:
    save(folder / "gt" / gt, picture(side))
    save(folder / "lq" / lq, picture(low))


def adobe_rgb() -> bytes:
    """A matrix profile with Adobe RGB's green, made without our code: sRGB's, its green column moved."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for number in range(count):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * number : 144 + 12 * number])
        if tag == b"gXYZ":
            data[offset + 8 : offset + 20] = struct.pack(">3i", *(round(v * 65536) for v in (0.205, 0.626, 0.061)))
    return bytes(data)


def png_16_bit(array: np.ndarray) -> bytes:
    """Big-endian samples in a PNG of our own making, RGB."""
    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_good_pairs_have_no_finding(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.bmp"):
        pair(tmp_path, name, name)
    save(tmp_path / "gt/d.jpg", picture(64), quality=95)
    save(tmp_path / "lq/d.jpg", picture(16), quality=95)
    # a grey one, and one that BasicSR crops: 64 + 3
    save(tmp_path / "gt/grey.png", picture(64).convert("L"))
    save(tmp_path / "lq/grey.png", picture(16).convert("L"))
    pair(tmp_path, "over.png", "over.png", side=67)
    assert check(tmp_path) == ([], [])


def nested(folder: Path) -> None:
    pair(folder, "sub/a.png", "sub/a.png")


def half_nested(folder: Path) -> None:
    pair(folder, "a.png", "sub/a.png")


def empty(folder: Path) -> None:
    for name in ("gt", "lq"):
        (folder / name).mkdir(parents=True)


def other_suffix(folder: Path) -> None:
    pair(folder, "a.jpg", "a.png")


def other_name(folder: Path) -> None:
    pair(folder, "a.png", "a_x4.png")


def one_more(folder: Path) -> None:
    pair(folder)
    save(folder / "lq/b.png", picture(16))


def not_an_image(folder: Path) -> None:
    pair(folder)
    for name in ("gt", "lq"):
        (folder / name / "Thumbs.db").write_bytes(b"x" * 100)


def cut_off(folder: Path) -> None:
    pair(folder)
    path = folder / "gt/a.png"
    path.write_bytes(path.read_bytes()[:20])


def cut_in_its_pixels(folder: Path) -> None:
    """Its header is whole; OpenCV would read grey where it ends."""
    pair(folder, "a.jpg", "a.jpg")
    path = folder / "gt/a.jpg"
    path.write_bytes(path.read_bytes()[:-300])


def wrong_size(folder: Path) -> None:
    pair(folder, side=64, low=32)


def gt_too_small(folder: Path) -> None:
    pair(folder, side=63, low=16)


@pytest.mark.parametrize(
    ("make", "messages"),
    [
        (nested, ["dataroot_gt: 0 images at the top of", "1 in folders below, where BasicSR does not look"]),
        (half_nested, ["dataroot_lq: 0 images at the top of", "synthpipe degrade WEIGHTS IN OUT --pairs"]),
        (empty, ["is empty, so validation would have 0 pairs"]),
        (
            other_suffix,
            ["BasicSR wants the same suffix in both folders, not so in 1 pair, such as 'a.jpg' and 'a.png'"],
        ),
        (other_name, ["1 image of gt without a partner in lq: 'a.png'", "1 image of lq without a partner"]),
        (one_more, ["1 image of lq without a partner in gt: 'b.png'"]),
        (not_an_image, ["Thumbs.db", "BasicSR takes every file of the folder"]),
        (cut_off, ["gt/a.png", "BasicSR takes every file of the folder"]),
        (cut_in_its_pixels, ["gt/a.jpg': the file ends too early"]),
        (wrong_size, ["is 64x64 and", "32x32: at scale 4 expected 128x128"]),
        (gt_too_small, ["is 63x63 and", "16x16: at scale 4 expected 64x64"]),
    ],
)
def test_pairs_that_basicsr_does_not_find_or_refuses(
    make: Callable[[Path], None], messages: list[str], tmp_path: Path
) -> None:
    make(tmp_path)
    said = "\n".join(check(tmp_path).problems)
    for message in messages:
        assert message in said
    assert all(line.startswith("datasets.val") for line in said.splitlines())


def test_filename_tmpl_is_basicsrs(tmp_path: Path) -> None:
    other_name(tmp_path)
    assert check(tmp_path, filename_tmpl="{}_x4") == ([], [])
    [first, second] = check(tmp_path, filename_tmpl="{}x4").problems
    assert "(filename_tmpl is '{}x4'): 'a.png'" in first
    assert "'a_x4.png'" in second


@pytest.mark.parametrize("template", ["x", "{a}", "{", 3])
def test_a_template_without_a_name_in_it(template: Any, tmp_path: Path) -> None:
    pair(tmp_path)
    [said] = check(tmp_path, filename_tmpl=template).problems
    assert said.startswith("datasets.val.filename_tmpl: expected a text with {} where the name of gt goes")


def test_of_folders_below_not_all_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint may not walk through a whole disk."""
    for number in range(6):
        pair(tmp_path, f"sub{number}/a.png", f"sub{number}/a.png")
    monkeypatch.setattr(val_pairs, "_MOST_BELOW", 2)
    assert "and 3 in folders below" in check(tmp_path).problems[0]


def test_of_pairs_below_others_a_note_is_made(tmp_path: Path) -> None:
    pair(tmp_path)
    assert check(tmp_path) == ([], [])
    for number in range(2):
        pair(tmp_path, f"sub/{number}.png", f"sub/{number}.png")
    problems, notes = check(tmp_path)
    assert problems == []
    assert [note.split(": ")[0] for note in notes] == ["datasets.val.dataroot_gt", "datasets.val.dataroot_lq"]
    assert all(": 2 files in folders below " in note for note in notes)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    pair(tmp_path)
    [said] = check(tmp_path, dataroot_lq="$HOME/lq").problems
    assert "dataroot_lq: no folder at '$HOME/lq'; BasicSR expands ~, and no variables" in said
    [said] = check(tmp_path, dataroot_lq=None).problems
    assert "dataroot_lq: PairedImageDataset needs it" in said
    [said] = check(tmp_path, io_backend={"type": "dsk"}).problems
    assert "io_backend.type: expected disk or lmdb, got 'dsk'" in said


def cutout(side: int, seen: int = 0) -> Image.Image:
    """Opaque in a disc, ``seen`` elsewhere."""
    y, x = np.mgrid[:side, :side] - side // 2
    alpha = np.where(x**2 + y**2 < (side / 3) ** 2, 255, seen).astype(np.uint8)
    return Image.fromarray(np.dstack([smooth_image(0, side), alpha]))


def test_transparency_in_gt_alone_is_refused(tmp_path: Path) -> None:
    """The case: degrade composites on white, BasicSR reads the colours behind."""
    pair(tmp_path, "opaque.png", "opaque.png")
    save(tmp_path / "gt/opaque.png", picture(64).convert("RGBA"))  # nothing is transparent in it
    pair(tmp_path, "cut.png", "cut.png")
    save(tmp_path / "gt/cut.png", cutout(64))
    [said] = check(tmp_path).problems
    assert "gt/cut.png': has transparent pixels, and BasicSR reads the colours behind them" in said
    assert "lq was read otherwise; `synthpipe degrade WEIGHTS IN OUT --pairs`" in said


def test_transparency_of_palettes_and_grey(tmp_path: Path) -> None:
    pair(tmp_path, "palette.png", "palette.png")
    save(tmp_path / "gt/palette.png", picture(64).quantize(16), transparency=3)
    pair(tmp_path, "grey.png", "grey.png")
    save(tmp_path / "gt/grey.png", cutout(64).convert("LA"))
    said = check(tmp_path).problems
    assert len([line for line in said if "has transparent pixels" in line]) == 2


def test_transparency_in_both_is_a_note(tmp_path: Path) -> None:
    save(tmp_path / "gt/cut.png", cutout(64))
    save(tmp_path / "lq/cut.png", cutout(16))
    problems, notes = check(tmp_path)
    assert problems == []
    assert len([note for note in notes if note.startswith("datasets.val: ") and "in gt and lq alike" in note]) == 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_profile_in_gt_alone_is_refused(suffix: str, tmp_path: Path) -> None:
    profile = adobe_rgb()
    pair(tmp_path, f"a.{suffix}", f"a.{suffix}")
    save(tmp_path / f"gt/a.{suffix}", picture(64), icc_profile=profile)
    [said] = check(tmp_path).problems
    assert "has a colour profile other than sRGB, which BasicSR passes over" in said
    save(tmp_path / f"lq/a.{suffix}", picture(16), icc_profile=profile)
    problems, notes = check(tmp_path)
    assert problems == []
    assert len(notes) == 2


def test_an_srgb_profile_is_fine(tmp_path: Path) -> None:
    pair(tmp_path)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save(tmp_path / "gt/a.png", picture(64), icc_profile=profile)
    assert check(tmp_path) == ([], [])


def test_cmyk_without_a_profile_is_read_alike(tmp_path: Path) -> None:
    pair(tmp_path, "a.jpg", "a.jpg")
    save(tmp_path / "gt/a.jpg", picture(64).convert("CMYK"), quality=95)
    assert check(tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("metric", "side", "message"),
    [
        # the numbers at which BasicSR 1.4.2 begins to give one, tried: psnr 9, ssim 19 at crop_border 4
        ({"type": "calculate_psnr", "crop_border": 4}, 8, "val.metrics.m with crop_border 4 takes at least 9 pixels"),
        ({"type": "calculate_ssim", "crop_border": 4}, 16, "val.metrics.m with crop_border 4 takes at least 19 pixels"),
        ({"type": "calculate_niqe", "crop_border": 0}, 92, "val.metrics.m with crop_border 0 takes at least 96 pixels"),
    ],
)
def test_images_too_small_for_a_metric(metric: dict[str, Any], side: int, message: str, tmp_path: Path) -> None:
    opt = {"scale": SCALE, "val": {"metrics": {"m": metric}}, "datasets": {"val": block_of(tmp_path)}}
    pair(tmp_path, side=side, low=side // 4)
    [said] = check_val_pairs(opt).problems
    assert message in said
    pair(tmp_path, side=side + 4, low=side // 4 + 1)
    assert check_val_pairs(opt).problems == []


def test_sides_that_the_network_cannot_take(tmp_path: Path) -> None:
    """RRDBNet at scale 2 works on every second pixel; BasicSR asserts so at the first validation."""
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "scale": 2}
    opt = {"scale": 2, "network_g": network, "datasets": {"val": block_of(tmp_path)}}
    pair(tmp_path, side=30, low=15)
    [said] = check_val_pairs(opt).problems
    assert "lq/a.png' is 15x15: network_g takes sides of a multiple of 2" in said
    pair(tmp_path, side=32, low=16)
    assert check_val_pairs(opt).problems == []


def test_sixteen_bits_are_a_note(tmp_path: Path) -> None:
    pair(tmp_path)
    deep = smooth_image(0, 64).astype(np.uint16) * 257 + 100
    (tmp_path / "gt/a.png").write_bytes(png_16_bit(deep))
    problems, notes = check(tmp_path)
    assert problems == []
    assert ["more than 8 bits a channel, of which BasicSR takes the upper 8" in note for note in notes] == [True]


def test_an_image_that_exif_turns(tmp_path: Path) -> None:
    """Pillow is the judge of the size: OpenCV turns a JPEG as well."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "gt/a.jpg", picture(64).crop((0, 0, 64, 32)), exif=exif, quality=95)
    save(tmp_path / "lq/a.jpg", picture(16).crop((0, 0, 8, 16)), quality=95)
    assert check(tmp_path) == ([], [])
    save(tmp_path / "lq/a.jpg", picture(16).crop((0, 0, 16, 8)), quality=95)
    [said] = check(tmp_path).problems
    assert "is 32x64 and" in said


def test_a_list_is_followed(tmp_path: Path) -> None:
    pair(tmp_path, "a.png", "a.png")
    pair(tmp_path, "b.png", "b.png", low=8)  # not in the list
    names = tmp_path / "list.txt"
    names.write_text("a.png (64,64,3)\n")
    assert check(tmp_path, meta_info_file=str(names)) == ([], [])
    names.write_text("a.png (64,64,3)\nc.png (64,64,3)\n")
    [said] = check(tmp_path, meta_info_file=str(names)).problems
    assert "its list names 2 files that cannot be found" in said
    [said] = check(tmp_path, meta_info_file=str(tmp_path / "nope.txt")).problems
    assert "cannot read" in said
    assert "nope.txt" in said
    names.write_text("a.png, a.png\n")
    assert check(tmp_path, type="RealESRGANPairedDataset", meta_info=str(names)) == ([], [])


def test_the_paired_dataset_that_crops_nothing(tmp_path: Path) -> None:
    pair(tmp_path, side=66)
    assert check(tmp_path) == ([], [])
    [said] = check(tmp_path, type="RealESRGANPairedDataset").problems
    assert "is 66x66" in said


def test_lmdb_names_and_sizes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # lmdb need not be installed here
    for name, keys in (("gt", "ab"), ("lq", "ac")):
        folder = tmp_path / f"{name}.lmdb"
        folder.mkdir()
        (folder / "meta_info.txt").write_text("".join(f"{key}.png (64,64,3) 1\n" for key in keys))
        (folder / "data.mdb").write_bytes(b"")
    roots = {f"dataroot_{name}": str(tmp_path / f"{name}.lmdb") for name in ("gt", "lq")}
    [said] = check(tmp_path, io_backend={"type": "lmdb"}, **roots).problems
    assert "Keys in lq_folder and gt_folder are different" in said
    (tmp_path / "lq.lmdb/meta_info.txt").write_text("a.png (16,16,3) 1\nb.png (16,16,3) 1\n")
    assert check(tmp_path, io_backend={"type": "lmdb"}, **roots) == ([], [])
    (tmp_path / "lq.lmdb/meta_info.txt").write_text("a.png (16,16,3) 1\nb.png (32,16,3) 1\n")
    [said] = check(tmp_path, io_backend={"type": "lmdb"}, **roots).problems
    assert "gt.lmdb: b' is 64x64 and" in said
    assert "lq.lmdb: b' 16x32: at scale 4 expected 64x128" in said
    (tmp_path / "gt.lmdb/data.mdb").unlink()
    assert "has no data.mdb" in check(tmp_path, io_backend={"type": "lmdb"}, **roots).problems[0]


def test_of_a_large_set_a_sample_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        pair(tmp_path, f"{number:02d}.png", f"{number:02d}.png", low=16)
    monkeypatch.setattr(val_pairs, "MOST_PAIRS", 5)
    opened: list[str] = []
    monkeypatch.setattr(
        val_pairs, "_check_pair", lambda gt, lq, *_: opened.append(Path(gt).name) or opened.append(Path(lq).name)
    )
    assert check(tmp_path).notes == ["datasets.val: of 12 pairs, 5 were looked into"]
    assert len(opened) == 10


def test_single_images_have_no_gt(tmp_path: Path) -> None:
    opt = {
        "scale": 4,
        "datasets": {"val": {"type": "SingleImageDataset", "dataroot_lq": "x", "io_backend": {"type": "disk"}}},
        "val": {"metrics": {"a": {"type": "calculate_ssim", "crop_border": 0}, "b": {"type": "calculate_niqe"}}},
    }
    [said] = check_val_pairs(opt).problems
    assert "SingleImageDataset gives no gt, and val.metrics has calculate_ssim, which compare with it" in said


def test_every_validation_set_is_looked_at(tmp_path: Path) -> None:
    pair(tmp_path)
    block = block_of(tmp_path, dataroot_lq=str(tmp_path / "gt"))
    said = check_val_pairs({"scale": 4, "datasets": {"val_1": block, "val_2": block}}).problems
    assert [line.split(":")[0] for line in said] == ["datasets.val_1", "datasets.val_2"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_the_entry_refuses_and_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    opt = options(tmp_path, iterations=4)
    buffer = io.BytesIO()
    cutout(48).save(buffer, "PNG")
    (tmp_path / "val/gt/v0.png").write_bytes(buffer.getvalue())
    assert run_entry(monkeypatch, tmp_path, opt) == 2
    assert "v0.png': has transparent pixels" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()
    save(tmp_path / "val/lq/v0.png", cutout(12))
    assert run_entry(monkeypatch, tmp_path, opt) == 0
    log = next((tmp_path / "experiments/run").glob("train_*.log")).read_text()
    assert "WARNING: synthpipe: datasets.val: " in log
    assert "in gt and lq alike" in log


def test_what_degrade_pairs_writes_has_no_finding(tmp_path: Path) -> None:
    """The cure that the messages name cures: each of the images above, and folders within folders."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = tmp_path / "photos"
    save(photos / "cut.png", cutout(67))
    save(photos / "sub/cut.png", picture(64).quantize(16), transparency=3)
    save(photos / "adobe.jpg", picture(64), icc_profile=adobe_rgb(), quality=95)
    save(photos / "turned.jpg", picture(64).crop((0, 0, 64, 32)), exif=exif, quality=95)
    save(photos / "sub/grey.png", cutout(64).convert("LA"))
    (photos / "deep.png").write_bytes(png_16_bit(smooth_image(0, 64).astype(np.uint16) * 257 + 100))
    assert main(["degrade", "deflow_small", str(photos), str(tmp_path), "--pairs", "--scale", str(SCALE)]) == 0
    assert len(list((tmp_path / "gt").iterdir())) == 6
    assert check(tmp_path) == ([], [])
    assert check(tmp_path, type="RealESRGANPairedDataset") == ([], [])

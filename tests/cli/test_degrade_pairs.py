"""``synthpipe degrade --pairs``: what BasicSR's own dataset makes of the two folders."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from synthpipe.cli import main
from tests.basicsr_runs import require_basicsr
from tests.files.icc_bytes import ADOBE_RGB, SRGB, rgb_profile
from tests.files.image_bytes import png
from tests.files.test_color_profile import encoded

Pairs = Callable[..., list[tuple[str, np.ndarray, np.ndarray]]]


@pytest.fixture
def pairs_of() -> Pairs:
    """By BasicSR: name, and gt and lq ``(H, W, 3)`` RGB levels, of every pair."""
    require_basicsr()
    import synthpipe.basicsr_plugin

    synthpipe.basicsr_plugin.register()
    from basicsr.data.paired_image_dataset import PairedImageDataset

    def pairs_of(folder: Path, scale: int = 4) -> list[tuple[str, np.ndarray, np.ndarray]]:
        options: dict[str, Any] = {"dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
        options |= {"io_backend": {"type": "disk"}, "phase": "val", "scale": scale}
        dataset = PairedImageDataset(options)
        found = []
        for number in range(len(dataset)):
            pair = dataset[number]
            gt, lq = ((pair[name] * 255).round().permute(1, 2, 0).numpy().astype(int) for name in ("gt", "lq"))
            assert Path(pair["gt_path"]).name == Path(pair["lq_path"]).name
            found.append((Path(pair["gt_path"]).name, gt, lq))
        return sorted(found, key=lambda pair: pair[0])

    return pairs_of


def waves(height: int, width: int, seed: int = 0) -> np.ndarray:
    """``(H, W, 3)`` uint8, so smooth that a reduced picture is nearly every fourth pixel of it."""
    y, x = np.mgrid[0:height, 0:width] / 60
    planes = [np.sin(x + y * turn + seed) for turn in (1, 2, 3)]
    return np.round(127 + 100 * np.stack(planes, 2)).astype(np.uint8)


def saved(array: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **how)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def degrade(flow: str, source: Path, target: Path, *options: str) -> int:
    return main(["degrade", flow, str(source), str(target), "--pairs", "--strength", "0", *options])


def test_formats_and_folders(flow: str, pairs_of: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(
        tmp_path / "in",
        {
            "a.jpg": saved(waves(66, 83), format="JPEG", quality=95),
            "a.png": saved(waves(64, 64, 1), format="PNG"),
            "city/night/a.webp": saved(waves(49, 51, 2), format="WEBP", lossless=True),
            "city_night_a.tif": saved(waves(40, 40, 3), format="TIFF"),
            "broken.png": b"no image",
        },
    )
    assert degrade(flow, source, tmp_path / "val", "--scale", "4") == 0
    found = pairs_of(tmp_path / "val")
    assert [name for name, _, _ in found] == ["a.jpg.png", "a.png.png", "city_night_a.tif.png", "city_night_a.webp.png"]
    sizes = [(64, 80), (64, 64), (40, 40), (48, 48)]
    for (_, gt, lq), size in zip(found, sizes, strict=True):
        assert gt.shape[:2] == size
        assert lq.shape[:2] == (size[0] // 4, size[1] // 4)
        assert abs(lq - gt.reshape(size[0] // 4, 4, size[1] // 4, 4, 3).mean((1, 3)))[1:-1, 1:-1].max() <= 3
    np.testing.assert_array_equal(found[1][1], waves(64, 64, 1))
    said = capsys.readouterr().out
    assert "4 of 5 images degraded; skipped: 1 unreadable" in said
    assert "lq: 4 pairs for scale 4" in said


def test_what_both_of_a_pair_show_is_the_same(
    flow: str, pairs_of: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transparency, a profile, 16 bits, a 12-bit range, grey and orientation are gone from both in the same way."""
    y, x = np.mgrid[0:64, 0:64][..., None]
    clear = np.where((x - 32) ** 2 + (y - 32) ** 2 < 25**2, 255, 0).astype(np.uint8)
    hidden = np.broadcast_to(np.array([0, 150, 0], np.uint8), (64, 64, 3))
    wide = waves(64, 64, 4)
    deep = np.round(waves(64, 64, 5)[..., :1] / 255 * 4095).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 3
    chunk = b"x\0\0" + zlib.compress(rgb_profile(ADOBE_RGB, 563 / 256))
    source = write(
        tmp_path / "in",
        {
            "a.png": saved(np.concatenate([hidden, clear], 2), format="PNG"),
            "b.png": png(wide, 2, chunks=((b"iCCP", chunk),)),
            "c.png": png(deep, 0),
            "d.png": png(waves(64, 64, 6).astype(np.uint16) * 257, 2),
            "e.png": saved(waves(64, 64, 7), format="PNG", exif=exif),
        },
    )
    assert degrade(flow, source, tmp_path / "val", "--scale", "4") == 0
    found = {name[0]: (gt, lq) for name, gt, lq in pairs_of(tmp_path / "val")}
    light = (wide / 255) ** (563 / 256) @ np.array(ADOBE_RGB) @ np.linalg.inv(np.array(SRGB))
    expected = {
        "a": np.where(clear > 0, hidden, 255),
        "b": encoded(light),
        "c": np.repeat(np.round(deep / 4095 * 255), 3, 2),
        "d": waves(64, 64, 6),
        "e": waves(64, 64, 7)[::-1, ::-1],
    }
    for name, wanted in expected.items():
        gt, lq = found[name]
        assert abs(gt - wanted).max() <= 1
        means = gt.reshape(16, 4, 16, 4, 3).mean((1, 3))
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            assert abs(means[corner] - lq[corner]).max() <= 2
        assert abs(gt.mean((0, 1)) - lq.mean((0, 1))).max() <= 1.5
    said = capsys.readouterr().err
    assert "given up: " in said
    for reason in ("flattened_alpha", "converted_profile", "narrow_range", "grey_to_rgb", "reduced_depth"):
        assert f"1 {reason}" in said


def test_samples_and_pages_each_have_their_gt(flow: str, pairs_of: Pairs, tmp_path: Path) -> None:
    stack = np.stack([waves(32, 32, seed) for seed in range(3)])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stack, photometric="rgb")
    source = write(tmp_path / "in", {"s.tif": buffer.getvalue(), "s_p1.png": saved(waves(32, 32, 9), format="PNG")})
    call = ["degrade", flow, str(source), str(tmp_path / "val"), "--pairs", "--scale", "2", "--samples", "2"]
    assert main(call) == 0
    found = pairs_of(tmp_path / "val", 2)
    assert len(found) == 2 * 4
    by_name = {name: (gt, lq) for name, gt, lq in found}
    for page in range(3):
        (gt, lq), (gt2, lq2) = (by_name[f"s.tif_p{page + 1}_{number}.png"] for number in (1, 2))
        np.testing.assert_array_equal(gt, stack[page])
        np.testing.assert_array_equal(gt2, stack[page])
        assert (lq != lq2).mean() > 0.3
    np.testing.assert_array_equal(by_name["s_p1_2.png"][0], waves(32, 32, 9))


def test_a_scale_of_1_is_said(flow: str, pairs_of: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", {"a.png": saved(waves(33, 35), format="PNG")})
    assert degrade(flow, source, tmp_path / "val") == 0
    assert "1 pair for scale 1\ngt and lq have the same size; for super-resolution give --scale" in (
        capsys.readouterr().out
    )
    ((_, gt, lq),) = pairs_of(tmp_path / "val", 1)
    assert gt.shape == lq.shape == (33, 35, 3)


def test_long_paths_become_names_that_fit(flow: str, pairs_of: Pairs, tmp_path: Path) -> None:
    deep = "/".join(["\u00e9" * 60] * 4)
    files = {f"{deep}/{number}{'x' * 200}.png": saved(waves(32, 32, number), format="PNG") for number in range(3)}
    assert degrade(flow, write(tmp_path / "in", files), tmp_path / "val", "--scale", "2", "--samples", "2") == 0
    found = pairs_of(tmp_path / "val", 2)
    assert len(found) == 6
    assert all(len(name.encode()) <= 255 for name, _, _ in found)
    means = sorted(gt.mean() for _, gt, _ in found)
    np.testing.assert_allclose(means, sorted(waves(32, 32, number).mean() for number in range(3) for _ in range(2)))


def test_files_without_a_partner_are_told(flow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", {"a.png": saved(waves(32, 32), format="PNG")})
    write(tmp_path / "val", {"gt/old.jpg": b"x"})
    assert degrade(flow, source, tmp_path / "val", "--scale", "2") == 0
    assert "to be removed there: 1 file without a partner, such as 'old.jpg'" in capsys.readouterr().out


@pytest.mark.parametrize(("below", "target"), [("val/gt", "val"), ("val", "val"), ("val", "val/pairs")])
def test_pairs_never_replace_what_is_read(
    below: str, target: str, flow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / below, {"a.png": saved(waves(32, 32), format="PNG")})
    assert degrade(flow, source, tmp_path / target, "--scale", "2") == 2
    said = capsys.readouterr().err
    assert "which is read" in said
    assert "--in-place" not in said
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.png"]


def test_pairs_cannot_be_in_place(flow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", {"a.png": saved(waves(32, 32), format="PNG")})
    assert degrade(flow, source, source, "--scale", "2", "--in-place") == 2
    assert "--in-place: pairs cannot replace images; name another OUT" in capsys.readouterr().err
    single = source / "a.png"
    write(tmp_path / "val", {"gt/b.png": single.read_bytes()})
    assert degrade(flow, tmp_path / "val" / "gt" / "b.png", tmp_path / "val", "--scale", "2") == 2
    assert "the result would replace" in capsys.readouterr().err


def test_what_is_smaller_than_the_scale_is_skipped(
    flow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = struct.pack(">II", 3, 40)
    data = png(np.zeros((40, 3, 3), np.uint8), 2)
    assert data[16:24] == header
    source = write(tmp_path / "in", {"a.png": data, "b.png": saved(waves(8, 8), format="PNG")})
    assert degrade(flow, source, tmp_path / "val", "--scale", "4") == 0
    said = capsys.readouterr()
    assert "1 of 2 images degraded; skipped: 1 too_small" in said.out
    assert "a.png: 40x3 is smaller than the scale 4" in said.err


def test_pairs_of_another_scale_are_not_counted(flow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"{name}.png")
    assert degrade(flow, tmp_path / "a.png", tmp_path / "val", "--pairs", "--scale", "4") == 0
    capsys.readouterr()
    assert degrade(flow, tmp_path / "b.png", tmp_path / "val", "--pairs", "--scale", "2") == 0
    said = capsys.readouterr().out
    assert "lq: 1 pair for scale 2\nto be removed there: 1 pair of another scale, such as 'a.png'" in said

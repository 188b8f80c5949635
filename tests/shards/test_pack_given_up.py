"""What readers of new shards will not see of the images, and names with a wrong suffix: counted, named, kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from synthpipe.cli import main
from synthpipe.config.shard import ShardOptions
from synthpipe.errors import ShardError
from synthpipe.pipeline import build_stream
from synthpipe.shards.pack import ShardReport, write_shards
from tests.lossy_images import Lossy, lossy_images, sum_of, write_images
from tests.stream_corpus import noise_image, png, write_tar

IMAGES = lossy_images()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", IMAGES)


def pack(folder: Path, out: Path, **options: Any) -> ShardReport:
    return write_shards(ShardOptions(inputs=(str(folder),), output=str(out), **{"max_samples": 3, **options}))


def report_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


def test_the_report_counts_what_a_stream_of_the_shards_counts(folder: Path, tmp_path: Path) -> None:
    report = pack(folder, tmp_path / "out")
    assert report.given_up == report_of(tmp_path / "out")["given_up"] == sum_of(IMAGES.values())
    assert report.wrong_suffix == 0
    options = {"shards": str(tmp_path / "out"), "gt_size": 32, "scale": 1, "batch_size": 1, "epochs": 1}
    with build_stream(options) as stream:
        list(stream)
        assert stream.given_up() == report.given_up


def test_files_are_named_and_the_bytes_of_the_report_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    grey = {f"{number:02d}.jpg": IMAGES["grey.jpg"] for number in range(20)}
    folder = write_images(tmp_path / "images", {**grey, "z.tif": IMAGES["stack.tif"]})
    reports = [pack(folder, tmp_path / str(n), workers=n, seed=None) for n in (1, 3)]
    assert reports[0].examples == {
        "further_pages": ["z.tif"],
        "grey_to_rgb": ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "04.jpg"],
    }
    assert (tmp_path / "1" / "report.json").read_bytes() == (tmp_path / "3" / "report.json").read_bytes()


def test_plain_images_leave_the_results_as_they_were(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", {"plain.png": IMAGES["plain.png"]})
    report = pack(folder, tmp_path / "out")
    assert (report.given_up, report.examples) == ({}, {})
    result = json.loads((tmp_path / "out" / "_state" / "shard-000000.tar.json").read_text())
    assert result.keys() == {"name", "samples", "bytes", "sha256", "counts", "broken"}
    assert "max_pixels" not in (tmp_path / "out" / "_state" / "plan.json").read_text()


def test_an_image_that_is_left_out_gives_nothing_up(tmp_path: Path) -> None:
    images = {"grey.jpg": lossy_images(20, 20)["grey.jpg"], "plain.png": IMAGES["plain.png"]}
    report = pack(write_images(tmp_path / "images", images), tmp_path / "out", min_size=32)
    assert (report.left_out, report.given_up) == ({"too_small": 1}, {})


def test_a_resumed_run_says_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["shard", str(folder), str(tmp_path / "out"), "--workers", "1", "--max-samples", "3"]
    assert main(argv) == 0
    first, report = capsys.readouterr(), report_of(tmp_path / "out")
    counts = ", ".join(f"{count} {reason}" for reason, count in sum_of(IMAGES.values()).items())
    assert f"given up: {counts}\n" in first.err
    assert "  unknown_profile: " in first.err
    assert "torn_profile.png" in first.err
    (tmp_path / "out" / "shard-000001.tar").unlink()
    assert main(argv) == 0
    again = capsys.readouterr()
    assert (again.out, again.err, report_of(tmp_path / "out")) == (first.out, first.err, report)


def test_results_of_an_earlier_version_are_read(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out")
    for path in (tmp_path / "out" / "_state").glob("*.tar.json"):
        about = json.loads(path.read_text())
        path.write_text(json.dumps({name: about[name] for name in about if name not in ("given_up", "examples")}))
    report = pack(folder, tmp_path / "out")
    assert report.index.samples == len(IMAGES)
    assert report.given_up == {}


def test_wrong_suffixes_are_counted_named_and_right_in_the_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {
        "really_png.jpg": IMAGES["plain.png"],
        "really_jpeg.PNG": IMAGES["grey.jpg"],
        "really_tiff.webp": IMAGES["stack.tif"],
        "right.JPEG": IMAGES["grey.jpg"],
        "right.tiff": IMAGES["camera.tif"],
    }
    assert main(["shard", str(write_images(tmp_path / "images", images)), str(tmp_path / "out"), "--sorted"]) == 0
    report = report_of(tmp_path / "out")
    assert report["wrong_suffix"] == 3
    assert report["examples"]["wrong_suffix"] == ["really_jpeg.PNG", "really_png.jpg", "really_tiff.webp"]
    assert "wrong_suffix" not in report["given_up"]
    said = capsys.readouterr().err
    assert "wrong suffix: 3, stored with that of their format: really_jpeg.PNG, really_png.jpg" in said


def test_a_wrong_suffix_in_a_tar_counts_too(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("0.jpg", IMAGES["plain.png"].data), ("1.png", IMAGES["plain.png"].data)])
    report = write_shards(ShardOptions(inputs=(str(tar),), output=str(tmp_path / "out")))
    assert (report.wrong_suffix, [name.rpartition("/")[2] for name in report.examples["wrong_suffix"]]) == (
        1,
        ["0.jpg"],
    )


def test_max_pixels(tmp_path: Path) -> None:
    images = {"a.png": Lossy(png(noise_image(0, 60, 72)), {}), "b.png": Lossy(png(noise_image(1, 61, 72)), {})}
    folder = write_images(tmp_path / "images", images)
    assert main(["shard", str(folder), str(tmp_path / "out"), "--max-pixels", str(60 * 72)]) == 0
    assert report_of(tmp_path / "out")["left_out"] == {"bomb": 1}
    shutil.rmtree(tmp_path / "out")
    assert pack(folder, tmp_path / "out").left_out == {}


def test_pixels_of_a_version_that_ignored_profiles_are_not_mixed_with_others(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "out", reencode="png")
    plan = tmp_path / "out" / "_state" / "plan.json"
    text = json.loads(plan.read_text())
    # What commit 433fa2b wrote.
    options = {name: text["options"][name] for name in text["options"] if name != "colors"}
    plan.write_text(json.dumps(text | {"options": options}))
    with pytest.raises(ShardError, match="begun with other options: colors was None, is 'srgb'"):
        pack(folder, tmp_path / "out", reencode="png")

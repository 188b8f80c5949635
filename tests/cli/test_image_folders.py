"""Every command that reads a folder of images sees the same ones: through links, and with counts of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.density import DDE
from synthpipe.files.decode import encode_png
from tests.scored_corpus import photo, rows_of, shard_photos, write_weights

PASSED_OVER = "passed over: 1 (hidden), 1 .psd, 1 .xcf"
COMMANDS = {
    "degrade": ["degrade", "deflow_small"],
    "denoise": ["denoise", "blind_spot_small", "--sigma", "0.1"],
    "restore": ["restore", "map_small", "--task", "denoise", "--sigma", "0.1"],
}


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """``set/a/1.png``, two more through ``set/linked``, and files that are not read."""
    for number, name in enumerate(("set/a/1.png", "store/b/2.png", "store/b/3.png")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(photo(number, 48, 48)))
    for name in ("old.xcf", "new.psd", "._1.png"):
        (tmp_path / "set" / "a" / name).write_bytes(b"x")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "store" / "b")
    return tmp_path / "set"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_write_images(
    command: str, linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = COMMANDS[command]
    out = tmp_path / "out"
    assert main([name, options[0], str(linked), str(out), *options[1:]]) == 0
    said = capsys.readouterr()
    assert "3 of 3 images" in said.out
    assert said.err.splitlines() == [PASSED_OVER]
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert written == ["a/1.png", "linked/2.png", "linked/3.png"]


def test_what_is_given_up_is_named_with_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("left", "right"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        Image.fromarray(photo(0, 48, 48)[..., 0].astype(np.uint16)).save(tmp_path / "set" / folder / "cell.png")
    for source, named in (
        (tmp_path / "set", "left/cell.png, right/cell.png"),
        (tmp_path / "set/left/cell.png", "cell.png"),
    ):
        assert main(["degrade", "deflow_small", str(source), str(tmp_path / "out")]) == 0
        assert f"; {named}\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_images_says_what_it_holds(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.psd").write_bytes(b"x")
    name, *options = COMMANDS[command]
    assert main([name, options[0], str(tmp_path / "in"), str(tmp_path / "out"), *options[1:]]) == 1
    expected = "expected files ending in .png, .jpg, .jpeg, .webp, .tif, .tiff, .jpe, .jfif, .bmp, .gif, .avif, .heic, "
    expected += ".heif, found 1 .psd"
    assert capsys.readouterr().err == f"synthpipe {name}: no images in {tmp_path / 'in'}: {expected}\n"


def test_shard(linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", str(linked), str(tmp_path / "out"), "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "3 of 3 images" in said.out
    assert PASSED_OVER in said.err.splitlines()


def test_score_and_filter(linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, table = write_weights(tmp_path / "w.safetensors"), tmp_path / "t.parquet"
    assert main(["score", weights, str(linked), str(table), "--workers", "1"]) == 0
    assert [row["path"] for row in rows_of(table)] == ["a/1.png", "linked/2.png", "linked/3.png"]
    assert capsys.readouterr().err.splitlines() == [PASSED_OVER]
    command = ["filter", str(linked), str(table), str(tmp_path / "kept"), "--reject", "0.34", "--workers", "1"]
    assert main(command) == 0
    hint, *passed_over = capsys.readouterr().err.splitlines()
    assert "one number decided" in hint
    assert passed_over == [PASSED_OVER]
    command[3] = str(tmp_path / "by_column")
    assert main([*command, "--by", "degraded_logit"]) == 0
    assert "one number decided" not in capsys.readouterr().err


def test_score_of_a_folder_without_images(linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (linked / "a" / "1.png").unlink()
    weights = write_weights(tmp_path / "w.safetensors")
    assert main(["score", weights, str(linked / "a"), str(tmp_path / "t.parquet")]) == 1
    assert "no images and no shards in" in (said := capsys.readouterr().err)
    assert "found 1 (hidden), 1 .psd, 1 .xcf" in said


def test_calibrate(linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = DDE(width=2, depth=2, outputs=2, domains=("clean", "noise"))
    dde = str(checkpoints.save(tmp_path / "dde.safetensors", model, {}))
    few = ["--tile", "16", "--levels", "0.05", "--families", "noise", "--holdout", "0.34", "--tiles-per-image", "8"]
    assert main(["calibrate", dde, str(linked), str(tmp_path / "s.safetensors"), *few]) == 0
    said = capsys.readouterr()
    assert "fitted on 2 images, measured on 1 other" in said.out
    assert f"calibrate: {linked}: {PASSED_OVER}" in said.err.splitlines()


def test_preview(linked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.03, 0.03]}}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(encode_png(photo(0, 80, 80)))
    shards = shard_photos(tmp_path / "photos", tmp_path / "hr")
    options = {"shards": shards, "gt_size": 24, "scale": 2, "degrade": noise}
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(options))
    command = ["preview", str(tmp_path / "stream.yml"), str(tmp_path / "out"), "--rows", "1", "--crop", "12"]
    (linked / "a" / "1.png").unlink()
    assert main([*command, "--real", str(linked)]) == 0  # its images lie behind the link alone
    assert capsys.readouterr().err.splitlines() == [PASSED_OVER]
    assert main([*command, "--real", str(linked / "a")]) == 1
    assert "no real image for the preview: expected files ending in" in capsys.readouterr().err


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = (Path(os.fsdecode(bytes(tmp_path) + name)) for name in (b"/in\xff", b"/out\xff"))
    source.mkdir()
    (source / os.fsdecode(b"\xe9.png")).write_bytes(encode_png(photo(0, 32, 32)))
    for command in COMMANDS.values():
        assert main([command[0], command[1], str(source), str(target), *command[2:]]) == 0
        assert r"out\udcff: 1 of 1 image " in capsys.readouterr().out
        assert [os.fsencode(path.name) for path in target.iterdir()] == [b"\xe9.png"]
        with Image.open(target / os.fsdecode(b"\xe9.png")) as picture:
            assert picture.size == (32, 32)

"""``synthpipe explain`` from an option file to text, JSON and images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from synthpipe.cli import explain as command
from synthpipe.errors import OptionError
from tests.stream_corpus import noise_image, small_options, write_corpus

CHAIN = [
    {"type": "quantise", "levels": [3, 40], "probability": 0.5},
    {"type": "choice", "of": [{"name": "a", "chain": []}, {"name": "b", "chain": [{"type": "jpeg", "quality": 50}]}]},
    {"type": "resize", "to": "lr"},
]


def main(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return int(command.run(parser.parse_args(["explain", *map(str, argv), "--device", "cpu"])))


@pytest.fixture
def option_file(tmp_path: Path) -> Path:
    options = small_options(write_corpus(tmp_path, [6]), degrade=CHAIN)
    (tmp_path / "stream.yml").write_text(yaml.safe_dump(options))
    return tmp_path / "stream.yml"


def as_json(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, Any]:
    assert main(*argv, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_text_and_json_say_the_same(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = set()
    for number in range(6):
        found = as_json(capsys, option_file, f"0_{number:03d}.png", "--epoch", 2)
        assert main(option_file, f"0_{number:03d}.png", "--epoch", 2) == 0
        lines = capsys.readouterr().out.splitlines()
        [tile] = found["tiles"]
        assert f"seed     {tile['seed']}" in lines
        assert lines[0] == f"key      0_{number:03d}"
        assert lines[1] == f"gt_path  {option_file.parent}/s-0.tar/0_{number:03d}.png"
        assert lines[2].endswith(f"{found['seen']} seen before")
        assert any(f"at row {tile['top']}, column {tile['left']} of 60x72" in line for line in lines)
        rounding, choice, *_, reduction = tile["degrade"]
        if rounding["applied"]:
            levels = rounding["settings"]["levels"]
            assert any(line.split() == ["quantise", "levels", f"{levels},", "->", "48x48"] for line in lines)
        else:
            assert any(line.split() == ["quantise", "not", "applied"] for line in lines)
        assert any(line.split() == ["choice", "way", choice["settings"]["way"]] for line in lines)
        assert reduction["size"] == [24, 24]
        told.add((rounding["applied"], choice["settings"]["way"]))
    assert len(told) > 1


def test_the_pair_and_every_stage_are_written(
    option_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        out = tmp_path / str(number)
        found = as_json(capsys, option_file, f"0_{number:03d}", "--epoch", 0, "--out", out)
        [tile] = found["tiles"]
        stages = [note["place"] for note in tile["degrade"] if note["size"] is not None]
        names = [f"{place:02d}_{name.replace('/', '_')}" for place, name in enumerate(stages, 1)]
        assert sorted(path.stem for path in out.iterdir()) == sorted(["gt", "lq", *names])
        assert tile["files"] == {name: str(out / f"{name}.png") for name in ["gt", "lq", *names]}
        cut = noise_image(number)[tile["top"] :, tile["left"] :][:48, :48]
        cut = np.rot90(cut[:, ::-1] if tile["mirrored"] else cut, tile["turned"] // 90)
        np.testing.assert_array_equal(pixels(out / "gt.png"), cut)
        np.testing.assert_array_equal(pixels(out / f"{names[-1]}.png"), pixels(out / "lq.png"))
        if tile["degrade"][0]["applied"]:
            assert len(np.unique(pixels(out / "01_quantise.png"))) <= tile["degrade"][0]["settings"]["levels"]


def test_tiles_of_one_image_have_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = small_options(write_corpus(tmp_path / "s", [2]), degrade=CHAIN, crops_per_image=2)
    (tmp_path / "two.yml").write_text(yaml.safe_dump(options))
    found = as_json(capsys, tmp_path / "two.yml", "0_001", "--epoch", 1, "--out", tmp_path / "both")
    assert [tile["key"] for tile in found["tiles"]] == ["0_001#0", "0_001#1"]
    as_json(capsys, tmp_path / "two.yml", "0_001#1", "--epoch", 1, "--out", tmp_path / "one")
    np.testing.assert_array_equal(pixels(tmp_path / "both" / "1" / "lq.png"), pixels(tmp_path / "one" / "lq.png"))
    assert not np.array_equal(pixels(tmp_path / "both" / "0" / "lq.png"), pixels(tmp_path / "one" / "lq.png"))


def test_images_of_an_earlier_call_are_named_and_left(
    option_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("09_jpeg.png", "lq_2.png", "mine.png", "gt.png"):
        (out / name).write_bytes(b"old")
    assert main(option_file, "0_000", "--epoch", 0, "--out", out) == 0
    said = capsys.readouterr().err
    assert [line.split()[2] for line in said.splitlines()] == [str(out / "09_jpeg.png"), str(out / "lq_2.png")]
    assert all("is not of this pair" in line for line in said.splitlines())
    assert [(out / name).read_bytes() == b"old" for name in ("09_jpeg.png", "mine.png", "gt.png")] == [
        True,
        True,
        False,
    ]


def test_bad_arguments(option_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--epoch: expected at least 0, got -1"):
        main(option_file, "0_000", "--epoch", -1)
    for name, high in (("epoch", 1 << 24), ("seen", 1 << 53), ("world-size", 1 << 16)):
        with pytest.raises(OptionError, match=f"--{name}: expected at most {high}, got {10**20}"):
            main(option_file, "0_000", "--epoch", 0, f"--{name}", 10**20)
    with pytest.raises(OptionError, match="--world-size: expected at least 1, got 0"):
        main(option_file, "0_000", "--epoch", 0, "--world-size", 0)
    with pytest.raises(OptionError, match="no sample is called '0_009' among 6 of 1 shard; the nearest is '0_00"):
        main(option_file, "0_009", "--epoch", 0)
    plain = tmp_path / "plain.yml"
    plain.write_text(yaml.safe_dump(small_options([str(tmp_path / "s-0.tar")])))
    with pytest.raises(OptionError, match=r"plain\.yml: nothing to explain without `degrade`"):
        main(plain, "0_000", "--epoch", 0)

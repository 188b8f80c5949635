"""``synthpipe check`` on two small folders: what it says, what it writes, and how it ends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from synthpipe.cli import main


def pile(folder: Path, sigma: float, seed: int, step: int = 40) -> Path:
    """Steps of grey under noise of ``sigma`` of 255."""
    folder.mkdir()
    draws = np.random.default_rng(seed)
    for number in range(6):
        steps = draws.uniform(40, 215, (4, 4, 3)).repeat(step, 0).repeat(step, 1)
        pixels = (steps + sigma * draws.normal(size=steps.shape)).round().clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_the_verdict_is_said_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, noisy = pile(tmp_path / "clean", 0, 0), pile(tmp_path / "noisy", 6, 1)
    assert main(["check", str(clean), str(noisy), "--json", str(tmp_path / "deep" / "check.json")]) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "deep" / "check.json").read_text())
    assert "data.augment=" in text
    assert all(f"{finding['subject']}: " in text for finding in found["findings"])
    assert found["noisy"]["level"] == pytest.approx(6, rel=0.1)
    assert found["clean"]["images"] == 6


def test_a_verdict_is_no_failure_and_a_missing_folder_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, noisy = pile(tmp_path / "clean", 0, 0), pile(tmp_path / "noisy", 6, 1)
    assert main(["check", str(noisy), str(clean)]) == 0
    assert "do not fit together" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "nowhere"), str(noisy)]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["check", str(clean), str(noisy), "--scale", "0"]) == 2


def test_the_options_are_words_of_a_shell_that_training_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copied from the output: a list holds a blank, and a shell takes plain quotes off."""
    clean, noisy = pile(tmp_path / "clean", 0, 0, 16), pile(tmp_path / "noisy", 6, 1, 16)
    for image in noisy.iterdir():
        Image.open(image).resize((24, 24), Image.Resampling.BOX).resize((64, 64), Image.Resampling.BICUBIC).save(image)
    assert main(["check", str(clean), str(noisy), "--json", str(tmp_path / "check.json")]) == 0
    text = capsys.readouterr().out
    options = json.loads((tmp_path / "check.json").read_text())["options"]
    said = shlex.split(" ".join(line for line in text.splitlines() if line[:2].isspace() and line[2:3].strip()))
    assert {key: yaml.safe_load(value) for key, value in (each.split("=", 1) for each in said)} == options
    assert isinstance(options["data.clean.resize_range"], list)


def test_one_folder_is_no_two_piles_and_broken_files_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, noisy = pile(tmp_path / "clean", 0, 0, 16), pile(tmp_path / "noisy", 6, 1, 16)
    for one, other in ((clean, clean), (tmp_path, noisy)):
        assert main(["check", str(one), str(other)]) == 2
        assert "one is the other, or lies in it" in capsys.readouterr().err
    whole = (noisy / "0.png").read_bytes()
    (noisy / "0.png").write_bytes(whole[: len(whole) // 2])
    assert main(["check", str(clean), str(noisy)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 of the files that were tried cannot be read" in out
    for image in noisy.iterdir():
        image.write_bytes(image.read_bytes()[:2000])
    assert main(["check", str(clean), str(noisy)]) == 1
    said = capsys.readouterr().err
    assert "can be read" in said
    assert str(noisy) in said


def test_too_small_images_are_answered_by_options_of_this_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, noisy = pile(tmp_path / "clean", 0, 0, 16), pile(tmp_path / "noisy", 6, 1, 16)
    assert main(["check", str(clean), str(noisy), "--scale", "2"]) == 1
    said = capsys.readouterr().err
    assert "give larger images or a smaller --scale" in said
    assert "data.crop" not in said
    small = pile(tmp_path / "small", 6, 1, 8)
    assert main(["check", str(clean), str(small)]) == 1
    said = capsys.readouterr().err
    assert said.rstrip().endswith("give larger images")


def test_what_lies_in_a_folder_and_is_not_read_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clean, noisy = pile(tmp_path / "clean", 0, 0, 16), pile(tmp_path / "noisy", 6, 1, 16)
    (noisy / "0.png").rename(noisy / "0")
    (noisy / "raw.cr2").write_bytes(b"raw")
    Image.new("RGB", (200, 200)).save(noisy / "large.png")
    arguments = ["check", str(clean), str(noisy), "--max-pixels", "20000", "--json", str(tmp_path / "check.json")]
    assert main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 have too many pixels and are left out (raise --max-pixels if you trust" in out
    assert "passed over: 1 (no suffix), 1 .cr2" in out
    assert out.count("passed over") == 1
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["noisy"]["images"] == 5
    assert (found["noisy"]["too_large"], found["noisy"]["unreadable"]) == (1, 0)
    assert found["noisy"]["passed_over"] == {"(no suffix)": 1, ".cr2": 1}
    assert found["clean"]["passed_over"] == {}
    assert found["options"]["data.max_pixels"] == 20000

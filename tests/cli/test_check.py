"""``synthpipe check`` on two small folders: what it says, what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthpipe.cli import main


def pile(folder: Path, sigma: float, seed: int) -> Path:
    """Steps of grey under noise of ``sigma`` of 255."""
    folder.mkdir()
    draws = np.random.default_rng(seed)
    for number in range(6):
        steps = draws.uniform(40, 215, (4, 4, 3)).repeat(40, 0).repeat(40, 1)
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

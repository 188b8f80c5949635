"""Each reason for which images are skipped leads to its own advice, in the function and in what commands say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from synthpipe.files.skip_advice import raise_limit, skip_advice
from tests.tiny_scorer import tiny_scorer

#: What each reason's advice holds and no other's.
SIGNS = {"bomb": "if you trust files of so many pixels", "truncated": "end too early", "unreadable": "hold no image"}


def test_the_most_frequent_reason_comes_first_and_a_single_one_is_not_named() -> None:
    assert skip_advice({"bomb": 2}) == raise_limit("max_pixels")
    assert skip_advice({"bomb": 2}, {"bomb": "shrink them"}, start="; ") == "; shrink them"
    both = skip_advice({"bomb": 1, "too_small": 3}, {"too_small": "give larger ones"})
    assert both == f"too_small: give larger ones; bomb: {raise_limit('max_pixels')}"


def test_nothing_is_made_up() -> None:
    assert skip_advice({}) == skip_advice({"bomb": 0}) == ""
    assert skip_advice({"of no kind": 1}, start="; ") == ""
    assert skip_advice({"of no kind": 1, "bomb": 1}) == f"bomb: {raise_limit('max_pixels')}"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``good/``, and a folder of two images for each reason; ``scorer.safetensors``."""
    monkeypatch.chdir(tmp_path)
    for seed in range(6):
        _write(Path(f"good/{seed}.png"), 96, seed)
    for seed in range(2):
        _write(Path(f"bomb/{seed}.png"), 160, seed)
        whole = Path("good/0.png").read_bytes()
        for reason, data in {"truncated": whole[:20], "unreadable": b"no image at all"}.items():
            Path(reason).mkdir(exist_ok=True)
            Path(f"{reason}/{seed}.png").write_bytes(data)
    checkpoints.save("scorer.safetensors", tiny_scorer())
    Path("deflow.yml").write_text(
        "{kind: deflow, run_dir: run, data: {clean: {folder: good}, noisy: {folder: X}, crop: 16, max_pixels: 20000}}"
    )
    Path("kernels.yml").write_text(
        "{kind: kernels, run_dir: run, data: {clean: {folder: good}, noisy: {folder: X}, crop: 64, max_pixels: 20000}}"
    )
    Path("stream.yml").write_text(
        "{shards: hr, gt_size: 32, scale: 1, degrade: {type: classical, jpeg_quality: [50, 60]}, max_pixels: 20000}"
    )


def _write(path: Path, side: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype("u1")).save(path)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("reason", SIGNS)
@pytest.mark.parametrize(
    "words",
    [
        "check good X --max-pixels 20000",
        "train deflow.yml data.noisy.folder=X",
        "train kernels.yml data.noisy.folder=X",
        "calibrate scorer.safetensors X out.safetensors --holdout 0.5 --max-pixels 20000",
        "shard X out --max-pixels 20000 --workers 1",
        "score scorer.safetensors X t.parquet --max-pixels 20000 --workers 1",
        "denoise blind_spot_small X out --max-pixels 20000",
        "preview stream.yml look --real X",
        "preview stream.yml look --report --pairs X Y",
    ],
    ids=lambda words: " ".join(word for word in words.split() if word not in ("X", "20000")),
)
def test_a_command_that_can_use_no_image_says_what_helps(
    words: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words.startswith("preview"):
        assert main(["shard", "good", "hr", "--workers", "1"]) == 0
        shutil.copytree(reason, "Y")
    capsys.readouterr()
    assert main(words.replace("X", reason).split()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    for other, sign in SIGNS.items():
        assert bool(re.search(sign, said)) == (other == reason), (other, said)
    assert "data.crop" not in said
    assert "larger images" not in said


@pytest.mark.usefixtures("folders")
def test_a_filter_of_a_table_without_scores_says_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "scorer.safetensors", "bomb", "t.parquet", "--max-pixels", "20000", "--workers", "1"]) == 1
    capsys.readouterr()
    assert main(["filter", "bomb", "t.parquet", "kept", "--reject", "0.2", "--workers", "1"]) == 1
    assert f"score again; {raise_limit('--max-pixels')}" in capsys.readouterr().err


@pytest.mark.usefixtures("folders")
def test_shards_whose_images_cannot_be_used_say_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", "bomb", "hr", "--workers", "1"]) == 0
    Path("stream.yml").write_text(
        "{shards: hr, gt_size: 32, scale: 1, max_bad_fraction: 1, max_pixels: 20000, "
        "degrade: {type: classical, jpeg_quality: [50, 60]}}"
    )
    capsys.readouterr()
    assert main(["preview", "stream.yml", "look"]) == 1
    assert f"bomb 2; what helps: {raise_limit('max_pixels')}" in capsys.readouterr().err
    assert main(["denoise", "blind_spot_small", "hr", "out", "--max-pixels", "20000", "--workers", "1"]) == 1
    assert raise_limit("max_pixels") in capsys.readouterr().err


@pytest.mark.usefixtures("folders")
def test_a_mixed_folder_has_advice_for_each_reason(capsys: pytest.CaptureFixture[str]) -> None:
    for reason in SIGNS:
        shutil.copytree(reason, f"mixed/{reason}")
    _write(Path("mixed/small.png"), 12, 0)
    assert main(["check", "good", "mixed", "--max-pixels", "20000"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "(2 bomb, 2 truncated, 2 unreadable, 1 too_small)" in said
    assert all(f"{reason}: " in said for reason in (*SIGNS, "too_small"))
    assert "too_small: a crop needs 64 pixels on the shorter side after downscale 1, the largest has 12" in said

"""Commands that end without a result say why and what to change, and with exit code 1."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main
from tests.scored_corpus import rows_of
from tests.tiny_scorer import tiny_scorer


def _write(path: Path, side: int = 72, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype("u1")).save(path)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``in/``: four; ``small/``: of 12 pixels; ``empty/``: a text; ``tars/``: a tar; ``broken/``: a cut image."""
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        _write(Path(f"in/{seed}.png"), 72, seed)
        _write(Path(f"small/{seed}.png"), 12, seed)
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
    Path("empty/notes.txt").write_text("none")
    Path("tars").mkdir()
    Path("tars/a.tar").write_bytes(b"")
    Path("broken/a.png").write_bytes(Path("in/0.png").read_bytes()[:500])
    checkpoints.save("scorer.safetensors", tiny_scorer())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shard", "empty", "o"], "no images in empty: expected files ending in .*found 1 .txt"),
        (["shard", "tars", "o"], r"found 1 \.tar; tars are packed by `synthpipe shard 'FOLDER/\*\.tar' OUT_DIR`"),
        (["shard", "broken", "o"], r"none of 1 image could be used \(1 truncated\); see o/report.json"),
        (
            ["shard", "small", "o", "--min-size", "13"],
            r"none of 4 images .* \(4 too_small\); see o/report.json; lower min_size",
        ),
        (["score", "scorer.safetensors", "empty", "t.parquet"], "no images and no shards in empty"),
        (["score", "scorer.safetensors", "broken", "t.parquet"], "no image could be scored; the table says why"),
        (["degrade", "deflow_small", "empty", "o"], "no images in empty: expected files ending in"),
        (["degrade", "deflow_small", "broken", "o"], "no image below broken could be used"),
        (["denoise", "blind_spot_small", "empty", "o"], "no images"),
        (["denoise", "blind_spot_small", "broken", "o"], "no image below broken could be used"),
        (["restore", "map_small", "broken", "o", "--task=denoise"], "no image below broken could be used"),
        (
            ["calibrate", "scorer_small", "empty", "o.safetensors"],
            "image folder 'empty': no images; expected files ending in",
        ),
        (
            ["calibrate", "scorer_small", "small", "o.safetensors"],
            "expected images of at least 64 .*change tile or holdout",
        ),
    ],
    ids=lambda words: " ".join(words[::2]) if isinstance(words, list) else "",
)
def test_nothing_usable_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--workers", "1"] if words[0] in ("shard", "score") else []
    assert main([*words, *more]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"synthpipe {words[0]}: ")
    assert re.search(said, last), last
    assert not Path("o.safetensors").exists()


def test_a_score_that_is_no_number_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    scorer = tiny_scorer()
    with torch.no_grad():  # finite weights, as files must have, whose products are not
        for parameter in scorer.parameters():
            parameter.mul_(1e30)
    checkpoints.save("nan.safetensors", scorer)
    for cache in ([], ["--cache", "cache"], ["--cache", "cache"]):
        assert main(["score", "nan.safetensors", "in", "t.parquet", "--workers", "1", *cache]) == 1
        said = capsys.readouterr()
        assert "0 of 4 images scored" in said.out
        assert "without a score: 4 not_finite" in said.out
        assert "no image could be scored; the table says why for each; use other weights" in said.err
    assert {row["error"] for row in rows_of("t.parquet")} == {"not_finite"}
    assert main(["filter", "in", "t.parquet", "kept", "--reject", "0.2", "--workers", "1"]) == 1
    assert (
        "none of 4 images has a score (4 not_finite); nothing to decide; use other weights" in capsys.readouterr().err
    )


def test_a_filter_that_keeps_nothing_names_the_values_and_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "scorer.safetensors", "in", "t.parquet", "--workers", "1"]) == 0
    logits = [row["degraded_logit"] for row in rows_of("t.parquet")]
    capsys.readouterr()
    assert main(["filter", "in", "t.parquet", "kept", "--max-logit", "-1000", "--workers", "1"]) == 1
    assert (
        f"nothing was kept: degraded_logit lies in {min(logits):.4g}..{max(logits):.4g}; raise --max-logit"
        in capsys.readouterr().err
    )


_STREAM = "{shards: hr, gt_size: 32, scale: 2, degrade: {type: classical, jpeg_quality: [50, 60]}, max_bad_fraction: 1}"


@pytest.mark.parametrize("words", [["--real", "empty"], ["--real", "broken"], []], ids=" ".join)
def test_a_preview_of_nothing_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = "in" if words else "small"
    assert main(["shard", folder, "hr", "--workers", "1"]) == 0
    Path("stream.yml").write_text(_STREAM)
    capsys.readouterr()
    assert main(["preview", "stream.yml", "look", *words]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    expected = "no (usable )?real image" if words else "gave no batch: 0 images used, skipped: too_small 4"
    assert re.search(expected, said), said
    assert not Path("look").exists()


def test_a_training_from_shards_of_small_images_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", "small", "hr", "--workers", "1"]) == 0
    Path("train.yml").write_text(
        "{kind: plain_denoiser, max_steps: 1, model: {width: 8, depth: 2}, data: {images: {shards: hr}, crop: 32, "
        "batch_size: 1, workers: 0, noise: {type: gaussian, sigma: [0.1, 0.1]}}}"
    )
    capsys.readouterr()
    assert main(["train", "train.yml", "run_dir=run"]) == 1
    assert "too_small" in capsys.readouterr().err.splitlines()[-1]

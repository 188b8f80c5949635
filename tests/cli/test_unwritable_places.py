"""A place that cannot be written ends a command before its work, not after it; odd names of files work or are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.cli import main

_TRAIN = """\
kind: plain_denoiser
max_steps: 2
sample_every: 1
checkpoint_every: 1
model: {width: 8, depth: 2}
data: {images: {folder: in}, crop: 16, batch_size: 1, noise: {type: gaussian, sigma: [0.1, 0.1]}}
"""
_STREAM = "{shards: hr, gt_size: 32, scale: 2, degrade: {type: classical, jpeg_quality: [50, 60]}}"


def _write(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (72, 72, 3)).astype("u1")
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``in/`` with two images, ``train.yml``, ``stream.yml``, a file ``file`` and a link ``dangling``."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        _write(Path(f"in/{seed}.png"), seed)
    Path("train.yml").write_text(_TRAIN)
    Path("stream.yml").write_text(_STREAM)
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    torch.save({"a": torch.zeros(1)}, "a.pth")


def _forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def work(*_: object, **__: object) -> None:
        pytest.fail(f"{name} was called")

    monkeypatch.setattr(name, work)


@pytest.mark.parametrize("place", ["file", "dangling"])
@pytest.mark.parametrize(
    ("words", "work"),
    [
        (["calibrate", "scorer_small", "in", "OUT/o.safetensors"], "synthpipe.training.calibration.calibrate"),
        (["import-deflow", "a.pth", "OUT/o.safetensors", "--config=aim"], "synthpipe.cli.import_deflow._read"),
        (["import-realesrgan", "train.yml", "--out=OUT/o.yml"], "synthpipe.config.import_realesrgan.translate"),
        (["preview", "stream.yml", "OUT"], "synthpipe.preview.make_preview"),
        (["degrade", "deflow_small", "in", "OUT"], "synthpipe.cli.folders.image_folder._convert_file"),
        (["denoise", "blind_spot_small", "in", "OUT"], "synthpipe.cli.folders.image_folder._convert_file"),
        (["restore", "map_small", "in", "OUT", "--task=denoise"], "synthpipe.cli.folders.image_folder._convert_file"),
        (["train", "train.yml", "run_dir=OUT"], "synthpipe.training.loop.Trainer._train"),
        (["shard", "in", "OUT"], "synthpipe.shards.pack._write_all"),
        (["score", "scorer_small", "in", "OUT/t.parquet"], "synthpipe.corpus.score.run_jobs"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_place_that_cannot_be_written_ends_a_command_before_its_work(
    words: list[str], work: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(os.listdir())
    _forbid(monkeypatch, work)
    assert main([word.replace("OUT", place) for word in words]) == 1
    assert place in capsys.readouterr().err.splitlines()[-1]
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    "name", ["checkpoints", "samples", "tb", "log.txt/", "options.yml/", "final.safetensors/"], ids=lambda name: name
)
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["new", "resumed"])
def test_a_training_finds_what_is_in_its_way_before_the_first_step(
    name: str, resume: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    if name.endswith("/"):
        Path("run", name).mkdir()
    else:
        Path("run", name).touch()
    _forbid(monkeypatch, "synthpipe.training.loop.Trainer._one_step")
    assert main(["train", "train.yml", "run_dir=run", *resume]) == 1
    assert f"'run/{name.rstrip('/')}'" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_in_the_place_of_a_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.parquet").mkdir()
    assert main(["score", "scorer_small", "in", "t.parquet", "--workers", "1"]) == 1
    assert "cannot write 't.parquet': there is a folder of that name" in capsys.readouterr().err


_LATIN1 = os.fsdecode(b"caf\xe9")
_NAMES = [_LATIN1, "cafe\u0301", "caf\u00e9", "x" * 250, "back\\slash", "C:\\x", "a'b\"c $HOME `x`", "line\nbreak"]


def test_images_with_odd_names_keep_them(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(_NAMES):
        _write(Path("odd", f"{name}.png"), seed)
    for command in (["degrade", "deflow_small"], ["denoise", "blind_spot_small"]):
        assert main([*command, "odd", f"{_LATIN1}_{command[0]}"]) == 0
        assert sorted(os.listdir(f"{_LATIN1}_{command[0]}")) == sorted(os.listdir("odd"))
    assert main(["shard", "odd", f"{_LATIN1}_hr", "--workers", "1"]) == 0
    assert "8 of 8 images" in capsys.readouterr().out
    assert main(["score", "scorer_small", f"{_LATIN1}_hr", f"{_LATIN1}.parquet", "--workers", "1", "--tiles", "1"]) == 0
    assert "8 of 8 images scored" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "code"), [("é" * 118 + ".tar", 0), ("é" * 119 + ".tar", 1)])
def test_shards_with_long_names_work_or_are_named_before_the_work(
    name: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shard", "in", "hr", "--workers", "1"]) == 0
    Path("other").mkdir()
    Path("hr/shard-000000.tar").rename(Path("other", name))
    assert main(["score", "scorer_small", "other", "t.parquet", "--workers", "1", "--tiles", "1"]) == 0
    for words in (
        ["denoise", "blind_spot_small", "other", "new"],
        ["filter", "other", "t.parquet", "kept", "--reject=0.1"],
    ):
        assert main([*words, "--workers", "1"]) == code
        assert ("a name of 242 bytes, expected at most 240; rename it" in capsys.readouterr().err) == bool(code)


def test_weights_may_have_a_name_of_255_bytes() -> None:
    name = "w" * 243 + ".safetensors"
    assert len(name) == 255
    checkpoints.save(name, checkpoints.load("map_small"))
    assert main(["denoise", name, "in", "out"]) == 0
    assert not [entry for entry in os.listdir() if entry.endswith(".tmp")]


def test_a_long_prefix_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", "in", "hr", "--prefix", "p" * 201]) == 2
    assert "option 'prefix'" in capsys.readouterr().err


def test_a_list_that_cannot_be_written_ends_a_filter_before_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(Path("in/line\nbreak.png"), 3)
    assert main(["score", "scorer_small", "in", "t.parquet", "--workers", "1", "--tiles", "1"]) == 0
    _forbid(monkeypatch, "synthpipe.corpus.filter.run_jobs")
    assert main(["filter", "in", "t.parquet", "kept", "--reject", "0.1", "--files", "copy", "--workers", "1"]) == 1
    assert "a name with a line break cannot stand in a list; rename it" in capsys.readouterr().err


def test_training_data_may_have_any_name_and_a_run_one_in_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").rename(_LATIN1)
    _write(Path(_LATIN1, f"{_LATIN1}.png"), 5)
    words = ["train", "train.yml", f"data.images.folder={_LATIN1}"]
    assert main([*words, "run_dir=caf\u00e9", "max_steps=1"]) == 0
    assert Path("caf\u00e9/final.safetensors").is_file()
    capsys.readouterr()
    assert main([*words, f"run_dir={_LATIN1}_run"]) == 2
    assert "expected a name in UTF-8, which TensorBoard needs" in capsys.readouterr().err
    assert not Path(f"{_LATIN1}_run").exists()

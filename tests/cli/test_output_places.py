"""Commands that write images or shards never read what they wrote, and never replace what they read unasked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthpipe.cli import main


def _write(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (72, 72, 3)).astype("u1")).save(path)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``in/{a.png,b.png,sub/c.png}`` below the working folder, and ``link`` to ``in``."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "sub/c")):
        _write(tmp_path / "in" / f"{name}.png", seed)
    (tmp_path / "link").symlink_to("in")
    return tmp_path / "in"


def _state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


_CONVERTERS = (
    ["degrade", "deflow_small"],
    ["denoise", "blind_spot_small"],
    ["restore", "map_small", "--task=denoise", "--sigma=0.02"],
)


@pytest.mark.parametrize("output", ["in", "in/out", "link", "link/out", "in/sub"])
@pytest.mark.parametrize("command", [*_CONVERTERS, ["shard"]], ids=lambda words: words[0])
def test_an_output_in_the_input_is_refused_and_nothing_is_written(
    command: list[str], output: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _state(photos)
    assert main([*command, "in", output]) == 2
    said = capsys.readouterr().err
    assert "which is read" in said
    assert ("--in-place" in said) == (command[0] != "shard")
    assert _state(photos) == before
    assert not (photos / "out").exists()


@pytest.mark.parametrize("command", _CONVERTERS, ids=lambda words: words[0])
def test_in_place_replaces_each_image_and_adds_none(command: list[str], photos: Path) -> None:
    before = _state(photos)
    assert main([*command, "in", "link", "--in-place"]) == 0
    after = _state(photos)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize("command", _CONVERTERS, ids=lambda words: words[0])
def test_in_place_a_second_run_does_not_read_the_first_ones_results(command: list[str], photos: Path) -> None:
    assert main([*command, "in", "in/out", "--in-place"]) == 0
    first = _state(photos)
    assert [name for name in first if name.startswith("out/")] == ["out/a.png", "out/b.png", "out/sub/c.png"]
    assert main([*command, "in", "in/out", "--in-place"]) == 0
    assert _state(photos) == first


@pytest.mark.parametrize("name", ["d.jpg", "d.PNG", "sub/d.webp"])
def test_in_place_is_for_png_alone(name: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(photos / name)
    before = _state(photos)
    assert main(["degrade", "deflow_small", "in", "in", "--in-place"]) == 2
    assert f"no .png: 1 image, such as 'in/{name}'" in capsys.readouterr().err
    assert main(["degrade", "deflow_small", "in", "in", "--in-place", "--samples", "2"]) == 2
    assert "leave out --samples" in capsys.readouterr().err
    assert _state(photos) == before


def test_results_behind_a_link_to_the_input_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos.parent / "out").mkdir()
    (photos.parent / "out" / "sub").symlink_to(photos / "sub")
    before = _state(photos)
    assert main(["denoise", "blind_spot_small", "in", "out"]) == 2
    assert "results would be written to 'out/sub', which is read" in capsys.readouterr().err
    assert _state(photos) == before


def test_one_image_is_not_replaced_unasked(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _state(photos)
    assert main(["denoise", "blind_spot_small", "in/a.png", "link"]) == 2
    assert "the result would replace 'in/a.png'" in capsys.readouterr().err
    assert _state(photos) == before
    assert main(["denoise", "blind_spot_small", "in/a.png", "in", "--in-place"]) == 0
    assert _state(photos)["a.png"] != before["a.png"]


def test_masks_are_not_replaced(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["restore", "map_small", "--task=inpaint", "--mask=link", "in"]
    before = _state(photos)
    assert main([*words, "in/out"]) == 2
    assert "which is read" in capsys.readouterr().err
    assert _state(photos) == before


@pytest.fixture
def shards(photos: Path) -> Path:
    assert main(["shard", "in", "hr", "--workers", "1"]) == 0
    return photos.parent / "hr"


@pytest.mark.parametrize("source", ["hr", "hr/shard-{000000..000000}.tar"])
def test_shards_are_not_replaced(source: str, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _state(shards)
    words = ["denoise", "blind_spot_small", source]
    assert main([*words, "hr", "--workers", "1"]) == 2
    assert "'hr', which is read" in capsys.readouterr().err
    assert main([*words, "elsewhere", "--in-place"]) == 2
    assert "--in-place: is for a folder of images" in capsys.readouterr().err
    assert main(["score", "scorer_small", source, "t.parquet", "--workers", "1", "--tiles", "1"]) == 0
    assert main(["filter", source, "t.parquet", "hr", "--reject", "0.3", "--workers", "1"]) == 2
    assert "'hr', which is read" in capsys.readouterr().err
    assert _state(shards) == before


def test_scores_and_kept_files_lie_beside_the_images(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _state(photos)
    assert main(["score", "scorer_small", "in", "link/t.parquet", "--workers", "1"]) == 2
    assert "which is read" in capsys.readouterr().err
    assert main(["score", "scorer_small", "in", "t.parquet", "--workers", "1", "--tiles", "1"]) == 0
    for files in ("copy", "link"):
        assert (
            main(["filter", "in", "t.parquet", "in/kept", "--reject", "0.3", "--files", files, "--workers", "1"]) == 2
        )
        assert "'in/kept' lies inside 'in', which is read" in capsys.readouterr().err
    assert _state(photos) == before


def test_a_preview_is_no_real_image(photos: Path, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = photos.parent / "stream.yml"
    options.write_text("{shards: hr, gt_size: 32, scale: 2, degrade: {type: classical, jpeg_quality: [50, 60]}}")
    before = _state(photos)
    assert main(["preview", "stream.yml", "link/look", "--real", "in"]) == 2
    assert "OUT_DIR 'link/look' lies inside 'in', which is read" in capsys.readouterr().err
    assert _state(photos) == before


_TRAIN = """\
kind: plain_denoiser
max_steps: 1
model: {width: 8, depth: 2}
data: {images: {folder: in}, crop: 16, batch_size: 1, noise: {type: gaussian, sigma: [0.1, 0.1]}}
"""


@pytest.mark.parametrize("run_dir", ["in", "in/run", "link/run"])
def test_sample_pictures_are_no_training_data(run_dir: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = photos.parent / "train.yml"
    options.write_text(_TRAIN)
    before = _state(photos)
    assert main(["train", "train.yml", f"run_dir={run_dir}"]) == 2
    assert "samples' lies inside 'in', which is read" in capsys.readouterr().err
    assert _state(photos) == before


def test_long_names_are_skipped_and_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = "x" * 251
    (photos / "a.png").rename(photos / f"{longest}.png")
    assert main(["degrade", "deflow_small", "in", "out"]) == 0
    assert (photos.parent / "out" / f"{longest}.png").is_file()
    capsys.readouterr()
    assert main(["degrade", "deflow_small", "in", "two", "--samples", "2"]) == 0
    said = capsys.readouterr()
    assert "skipped: 1 long_name" in said.out
    assert "is too long; rename the image" in said.err


@pytest.mark.parametrize("link", ["sub2", "b2.png"])
def test_in_place_changes_no_file_twice(link: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / link).symlink_to("sub" if link == "sub2" else "b.png")
    before = _state(photos)
    assert main(["degrade", "deflow_small", "in", "in", "--in-place"]) == 2
    assert "are one file, by a link: it would be changed twice" in capsys.readouterr().err
    assert _state(photos) == before

"""Options that are ``auto``: chosen by the piles, the same for every process and after a resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe.config.deflow import TrainDeFlowOptions, UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, TrainingError
from synthpipe.training.data.unpaired import UnpairedData

AUTO: dict[str, Any] = {"augment": "auto", "align": "auto", "crop": 32, "batch_size": 8, "workers": 0}


def save_jpegs(folder: Path, sigma: float, seed: int) -> None:
    """Smooth photographs of 192x160 pixels with noise that neighbours in a row share, quality 80, 4:2:0."""
    draws = np.random.default_rng(seed)
    folder.mkdir()
    for number in range(4):
        rows, columns = np.mgrid[:160, :192]
        image = 110 + 40 * np.sin(rows / 40 + number)[..., None] + 20 * np.cos(columns / 30)[..., None] * [1, 0.5, -1]
        noise = draws.normal(0, sigma, (160, 193, 3))
        image = image + (noise[:, 1:] + 0.9 * noise[:, :-1]) / 1.35
        Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.jpg", quality=80, subsampling=2
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("piles")
    save_jpegs(root / "clean", 0.5, 1)
    save_jpegs(root / "noisy", 8, 2)
    return {"clean": {"folder": str(root / "clean")}, "noisy": {"folder": str(root / "noisy")}}


def options(folders: dict[str, Any], **changes: Any) -> UnpairedOptions:
    return parse_options({**folders, **AUTO, **changes}, UnpairedOptions)


def test_choices_are_made_logged_and_described(folders: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    auto = {**folders, "clean": {**folders["clean"], "resize_range": "auto"}}
    with caplog.at_level(logging.INFO, "synthpipe.training"):
        data = UnpairedData(options(auto), seed=1)
    assert "JPEG grid of 16 pixels" in caplog.text
    assert "chosen: augment flips, align 16" in caplog.text
    described = data.describe()
    assert described["chosen"]["augment"] == "flips"
    assert described["chosen"]["align"] == 16
    assert described["chosen"]["resize_range"] is None or len(described["chosen"]["resize_range"]) == 2
    assert described["piles"]["grid"] == 16
    data.close()


def test_without_auto_nothing_is_measured(folders: dict[str, Any]) -> None:
    data = UnpairedData(options(folders, augment="flips", align=8), seed=1)
    assert data.piles is None
    assert "piles" not in data.describe()
    assert "chosen" not in data.state_dict()
    data.close()


def test_processes_and_resumed_runs_choose_the_same(folders: dict[str, Any]) -> None:
    whole = UnpairedData(options(folders), seed=3)
    parts = [UnpairedData(options(folders), seed=3, rank=rank, world_size=2) for rank in range(2)]
    assert [part.describe()["chosen"] for part in parts] == 2 * [whole.describe()["chosen"]]
    whole.next_batch()
    state = whole.state_dict()
    following = whole.next_batch()
    again = UnpairedData(options(folders), seed=3)
    again.load_state_dict(state)
    assert torch.equal(again.next_batch()["x"], following["x"])


def test_a_resumed_run_keeps_what_it_chose_at_its_start(
    folders: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As after a new version measures otherwise."""
    earlier = UnpairedData(options(folders, augment="none", align=8), seed=3)
    earlier.next_batch()
    state = {**earlier.state_dict(), "chosen": {"augment": "none", "align": 8, "resize_range": None}}
    following = earlier.next_batch()
    resumed = UnpairedData(options(folders), seed=3)
    resumed.load_state_dict(state)
    assert "goes on with what it chose" in caplog.text
    assert resumed.describe()["chosen"]["align"] == 8
    assert torch.equal(resumed.next_batch()["x"], following["x"])
    with pytest.raises(OptionError):
        resumed.load_state_dict({**state, "chosen": {"augment": "sideways", "align": 8, "resize_range": None}})


@pytest.mark.parametrize("align", [1, 8, 16])
def test_crops_begin_at_multiples(tmp_path: Path, align: int) -> None:
    """Pixels say where they are."""
    rows, columns = np.mgrid[:100, :120]
    for name in ("clean", "noisy"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)).save(tmp_path / name / "a.png")
    folders = {name: {"folder": str(tmp_path / name)} for name in ("clean", "noisy")}
    data = UnpairedData(options(folders, augment="none", align=align, crop=16), seed=0)
    corners = torch.cat([data.next_batch()["x"][:, :2, 0, 0] for _ in range(60)]).long()
    assert (corners % align == 0).all()
    assert corners[:, 0].unique().tolist() == list(range(0, 85, align)) or align == 1
    assert int(corners[:, 0].max()) == 84 // align * align
    assert int(corners[:, 1].max()) == 104 // align * align
    assert int(corners.min()) == 0


def test_crops_that_are_no_multiple_of_the_grid_are_not_aligned_to_all_of_it(folders: dict[str, Any]) -> None:
    assert UnpairedData(options(folders, crop=24), seed=1).describe()["chosen"]["align"] == 8
    assert UnpairedData(options(folders, crop=20), seed=1).describe()["chosen"]["align"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"align": 12}, "multiple of 'align' 12"),
        ({"align": 0}, "align"),
        ({"augment": "any"}, "augment"),
        ({"noisy": {"shards": "a.tar"}}, "need folders"),
        ({"noisy": {"folder": "/x", "resize_range": "auto"}}, "resize_range"),
        ({"clean": {"folder": "/x", "resize_range": [2, 1]}}, "low <= high"),
        ({"clean": {"folder": "/x", "resize_range": "auto", "blur": {"weights": "kernels_city100"}}}, "give one"),
    ],
)
def test_options_that_do_not_fit_are_refused(folders: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options(folders, **changes)


def test_images_too_small_to_measure_are_named(folders: dict[str, Any], tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match="64 pixels"):
        UnpairedData(options({**folders, "noisy": {"folder": str(tmp_path)}}), seed=1)


def test_the_option_file_keeps_auto(folders: dict[str, Any]) -> None:
    train = parse_options(
        {"kind": "deflow", "run_dir": "/tmp/none", "data": {**folders, "augment": "auto", "align": "auto"}},
        TrainDeFlowOptions,
    )
    assert train.model_dump(mode="json")["data"]["augment"] == "auto"
    assert train.data.measured

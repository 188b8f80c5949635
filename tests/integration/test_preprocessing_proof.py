"""The recipe that denoises the clean side: its noise, its arms, and the whole in miniature."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from tests.basicsr_runs import require_basicsr

RECIPE = Path(__file__).parents[2] / "recipes" / "preprocessing_proof"

Recipe = Callable[[str], ModuleType]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    """Import a module of the recipe, whose folder is on the path as it is for its own script."""
    monkeypatch.syspath_prepend(str(RECIPE))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in {"corpus", "networks", "run"}:
            del sys.modules[name]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in (("clean_train", 4), ("clean_test", 2)):
        (root / folder).mkdir()
        for n in range(count):
            coarse = rng.integers(70, 186, (9, 10, 3)).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((150, 141), Image.Resampling.BICUBIC)
            picture.save(root / folder / f"{n}.png")
    return root


def test_the_noise_is_correlated_as_its_filter_says(recipe: Recipe) -> None:
    """(1 2 1) against itself: 6, 4, 1, 0 at lags 0 to 3."""
    noise = recipe("corpus").binomial_noise((3, 600, 600), torch.Generator().manual_seed(0)).double()
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    for lag, expected in ((1, 4 / 6), (2, 1 / 6), (3, 0.0)):
        assert float((noise[:, lag:] * noise[:, :-lag]).mean()) == pytest.approx(expected, abs=0.01)
        assert float((noise[..., lag:] * noise[..., :-lag]).mean()) == pytest.approx(expected, abs=0.01)
    assert float((noise[0] * noise[1]).mean()) == pytest.approx(0, abs=0.01)


def test_the_cameras_noise_grows_with_brightness(recipe: Recipe) -> None:
    corpus = recipe("corpus")
    for level in (0.2, 0.8):
        shot = corpus.camera(torch.full((1, 3, 300, 300), level), "a", 0)
        variance = corpus.CAMERA_A * level + corpus.CAMERA_B + 1 / (12 * 255**2)
        assert float(shot.double().var()) == pytest.approx(variance, rel=0.03)


def test_no_scene_is_in_both_domains(recipe: Recipe, data_root: Path, tmp_path: Path) -> None:
    corpus = recipe("corpus")
    corpus.make_folders(data_root / "clean_train", tmp_path, 0, 198)
    names = {
        folder: {path.name for path in (tmp_path / folder).iterdir()} for folder in ("clean", "corrupted", "camera")
    }
    assert names == {"clean": {"0.png", "2.png"}, "corrupted": {"0.png", "2.png"}, "camera": {"1.png", "3.png"}}
    clean, corrupted = corpus.load(tmp_path / "clean"), corpus.load(tmp_path / "corrupted")
    residual = torch.cat([(corrupted[name] - clean[name]).flatten() for name in clean])
    assert clean["0"].shape == (1, 3, 136, 144)
    assert 255 * float(residual.std()) == pytest.approx(5, abs=0.15)
    assert corpus.load(tmp_path / "camera")["1"].shape == (1, 3, 68, 72)


def test_arms_are_shown_the_same_crops(recipe: Recipe) -> None:
    networks = recipe("networks")
    size = networks.Size(sr_steps=3, batch=4, patch=8)
    torch.manual_seed(0)
    plain = {str(n): (torch.rand(1, 3, 20, 24) / 2, torch.rand(1, 3, 40, 48) / 2) for n in range(3)}
    brighter = {name: (lq + 0.4, gt + 0.4) for name, (lq, gt) in plain.items()}
    runs = [list(networks._batches(pairs, 7, size)) for pairs in (plain, brighter)]
    for (lq, gt), (other_lq, other_gt) in zip(*runs, strict=True):
        assert lq.shape == (4, 3, 8, 8)
        assert gt.shape == (4, 3, 16, 16)
        torch.testing.assert_close(other_lq - lq, torch.full_like(lq, 0.4), atol=1 / 255, rtol=0)
        torch.testing.assert_close(other_gt - gt, torch.full_like(gt, 0.4), atol=1 / 255, rtol=0)


def test_low_and_high_resolution_are_cut_at_the_same_place(recipe: Recipe) -> None:
    networks = recipe("networks")
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(48), indexing="ij")
    gt = torch.stack([rows, columns, rows + columns])[None] / 255
    lq = torch.stack([rows // 2, columns // 2, rows // 2])[None, :, ::2, ::2] / 255
    for low, high in networks._batches({"a": (lq, gt)}, 0, networks.Size(sr_steps=5, batch=3, patch=8)):
        halves = (high[:, :2] * 255).round().long() // 2
        np.testing.assert_array_equal(halves[..., ::2, ::2], (low[:, :2] * 255).round().long())


def test_the_share_that_comes_back(recipe: Recipe) -> None:
    values = {"clean": (30.0, 31.0), "corrupted": (29.0, 29.0), "denoised": (29.5, 30.75)}
    rows = [
        {"arm": arm, "pairs": kind, "seed": seed, "psnr": psnr}
        for arm, both in values.items()
        for kind in ("bicubic", "deflow")
        for seed, psnr in enumerate(both)
    ]
    found = recipe("run").recovered(rows)["bicubic"]
    assert found == {"lost_db": [1.0, 2.0], "back_db": [0.5, 1.75], "share": 0.75}


def test_the_whole_in_miniature(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About 6 s: three trainings of three steps and six networks of four."""
    require_basicsr()
    monkeypatch.syspath_prepend(str(RECIPE))
    argv = ["run.py", "--data", str(data_root), "--out", str(tmp_path), "--quick"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(RECIPE / "run.py"), run_name="__main__")
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["gt"]["clean"]["sigma"] == 0
    assert report["gt"]["corrupted"]["lag1"] == pytest.approx(2 / 3, abs=0.05)
    assert len(report["psnr"]) == 6
    first = (tmp_path / "results.md").read_text()
    assert "| denoised | " in first
    for name in ("corpus", "networks"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("synthpipe.training.train", lambda options: pytest.fail("trained again"))
    runpy.run_path(str(RECIPE / "run.py"), run_name="__main__")
    assert (tmp_path / "results.md").read_text() == first

"""The table of denoisers: its option files, its pictures and measures, and the whole on made-up pictures."""

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
from scipy.ndimage import gaussian_filter

from synthpipe.config.training import read_train_options

RECIPE = Path(__file__).parents[2] / "recipes" / "denoiser_table"
STEMS = sorted(path.stem for path in (RECIPE / "rows").glob("*.yml"))


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the recipe, whose folder is on the path as it is for its own script."""
    monkeypatch.syspath_prepend(str(RECIPE))
    yield importlib.import_module
    for name in ("methods", "pictures"):
        sys.modules.pop(name, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All sets, of small random pictures; the real pairs differ by 10 grey levels at each value."""
    rng = np.random.default_rng(0)
    for prefix in ("kodim", "cbsd68_", "set14_"):
        for index in range(9):
            write(tmp_path / "clean_test" / f"{prefix}{index:02d}.png", rng.integers(0, 256, (162, 170, 3)))
    for folder, count, side in (("real_noise_sidd", 6, 40), ("real_noise", 24, 300)):
        for index in range(count):
            clean = rng.integers(20, 230, (side, side, 3))
            write(tmp_path / folder / "clean" / f"{index:02d}.png", clean)
            write(tmp_path / folder / "noisy" / f"{index:02d}.png", clean + rng.choice([-10, 10], clean.shape))
    return tmp_path


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, compress_level=1)


@pytest.mark.parametrize("stem", STEMS)
def test_each_option_file_trains_at_25_grey_levels_or_on_what_is_noisy(stem: str) -> None:
    options = read_train_options(RECIPE / "rows" / f"{stem}.yml")
    assert options.run_dir == f"runs/denoiser_table/{stem}"
    given = options.model_dump()
    noise = given["data"].get("noise")
    if noise is not None:
        assert noise["sigma"] == pytest.approx((25 / 255, 25 / 255), rel=1e-5)
    own = stem.endswith("_sidd")
    assert given["data"]["images"]["folder"] == f"../shared/data/{'real_noise_sidd/noisy' if own else 'clean_train'}"
    assert not (own and noise)


def test_every_option_file_has_its_row(recipe: Callable[[str], ModuleType]) -> None:
    rows = recipe("methods").ROWS
    assert set(STEMS) <= {row.options for row in rows} | {row.own for row in rows}
    assert len({row.name for row in rows}) == len(rows)


def test_blur_is_scipys(recipe: Callable[[str], ModuleType]) -> None:
    x = torch.rand(1, 3, 21, 17)
    for std in (0.3, 1.1, 2.0):
        ours = recipe("methods")._blur(None, x, None, std)[0].numpy()
        expected = [gaussian_filter(plane.numpy(), std, mode="nearest", radius=int(4 * std + 1)) for plane in x[0]]
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_pictures_are_the_same_for_every_row_and_psnr_is_their_noise(
    recipe: Callable[[str], ModuleType], data: Path
) -> None:
    pictures = recipe("pictures")
    test, again, told_25 = (pictures.build_test(name, data) for name in ("sigma_50", "sigma_50", "sigma_50_told_25"))
    assert [len([p for p in test if p.name.startswith(start)]) for start in ("kodim", "cbsd68", "set14")] == [8] * 3
    for one, other, third in zip(test, again, told_25, strict=True):
        assert torch.equal(one.noisy, other.noisy)
        assert torch.equal(one.noisy, third.noisy)
        assert one.clean.shape == (1, 3, 160, 160)
        assert one.told.tolist() == pytest.approx([50 / 255])
        assert third.told.tolist() == pytest.approx([25 / 255])
        assert float((one.noisy - one.clean).std()) == pytest.approx(50 / 255, rel=0.02)
    assert test[0].noisy.max() > 1.1  # not clipped
    assert not torch.equal(test[0].noisy - test[0].clean, test[1].noisy - test[1].clean)
    for name, count, side in (("sidd", 6, 40), ("polyu", 12, 256)):
        real = pictures.build_test(name, data)
        assert [p.clean.shape for p in real] == [(1, 3, side, side)] * count
        assert all(p.told is None for p in real)
        found = pictures.psnr(lambda x, told: x, real)
        assert found == pytest.approx([20 * np.log10(255 / 10)] * count, abs=1e-3)


def test_rows_are_measured_once_and_tabled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "recipe" / "run.py"
    script.parent.mkdir()
    for name in ("run.py", "methods.py", "pictures.py"):
        (script.parent / name).write_text((RECIPE / name).read_text())
    places = ["--data", str(data), "--runs", str(tmp_path / "runs"), "--rows", "noisy", "noise2void"]

    def call(command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", command, *places])
        monkeypatch.syspath_prepend(str(script.parent))
        runpy.run_path(str(script), run_name="__main__")
        for name in ("methods", "pictures"):
            sys.modules.pop(name, None)
        return capsys.readouterr().out

    assert "noisy-untrained-0 {'sigma_15'" in call("run")  # the other row has no option file here, and is passed over
    assert call("run") == ""
    table = call("table")
    noise_25 = json.loads((script.parent / "results.json").read_text())["rows"]["noisy"]["synthetic"]["psnr"]
    # Clipping to [0, 1] takes a little of the noise away where pictures are as bright and dark as these.
    assert noise_25["sigma_25"] == pytest.approx([20 * np.log10(255 / 25)], abs=0.6)
    assert f"| noisy input | {noise_25['sigma_15'][0]:.2f} |" in table
    assert f"| noisy input | {20 * np.log10(25.5):.2f} | {20 * np.log10(25.5):.2f} |  |" in table

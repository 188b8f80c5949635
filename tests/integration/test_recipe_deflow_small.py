"""The recipe's scripts on a data root of the same layout, made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.recipe_script import run_script

RECIPE = Path(__file__).parents[2] / "recipes" / "deflow_small"
SIGMA = 6.0


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Frames with white noise on a smooth reference, high-quality JPEG."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder in ("clean_train", "real_noise_full/noisy", "real_noise_full/clean"):
        (root / folder).mkdir(parents=True)
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(root / "clean_train" / "a.jpg")
    y, x = np.mgrid[:540, :800] / 200
    phase = np.arange(3.0)[:, None, None]
    smooth = (120 + 60 * np.sin(y + phase) * np.cos(x)).transpose(1, 2, 0)
    for scene in ("bag", "bicyc", "circu", "desk", "recie"):
        noisy = (smooth + SIGMA * rng.standard_normal(smooth.shape)).round().clip(0, 255).astype(np.uint8)
        options = {"quality": 100, "subsampling": 0}
        Image.fromarray(noisy).save(root / "real_noise_full" / "noisy" / f"Canon5D2_{scene}.jpg", **options)
        Image.fromarray(smooth.astype(np.uint8)).save(
            root / "real_noise_full" / "clean" / f"Canon5D2_{scene}.jpg", **options
        )
    return root


def test_prepare_then_evaluate(data_root, tmp_path, capsys):
    out = tmp_path / "recipe"
    run_script(RECIPE / "prepare.py", "--data", data_root, "--out", out, "--crops", 2)
    noisy = sorted(path.name for path in (out / "train" / "noisy").iterdir())
    assert noisy == [f"Canon5D2_{scene}.jpg" for scene in ("bag", "bicyc", "circu")]
    crops = sorted(path.name for path in (out / "held_back" / "clean").iterdir())
    assert crops == [f"Canon5D2_{scene}_{k:02d}.png" for scene in ("desk", "recie") for k in range(2)]
    corners = json.loads((out / "held_back" / "notes.json").read_text())["Canon5D2_desk"]["corners_yx"]
    assert len({tuple(c) for c in corners}) == 2
    with Image.open(data_root / "real_noise_full" / "clean" / "Canon5D2_desk.jpg") as frame:
        y, x = corners[1]
        expected = np.array(frame)[y : y + 256, x : x + 256]
    np.testing.assert_array_equal(np.array(Image.open(out / "held_back" / "clean" / "Canon5D2_desk_01.png")), expected)

    run_script(RECIPE / "evaluate.py", "--pairs", out / "held_back", "--out", out)
    rows = json.loads((out / "evaluation.json").read_text())["views"]["local mean removed"]
    assert [255 * s for s in rows["real noise"]["sigma"]] == pytest.approx([SIGMA] * 3, rel=0.05)
    assert rows["real noise"]["kld"] == 0
    assert rows["real noise"]["akld"] == 0
    # White Gaussian noise *is* this camera's noise: every fitted model has to come out close to it.
    assert len(rows) == 6
    for label in rows.keys() - {"real noise"}:
        assert rows[label]["sigma"] == pytest.approx(rows["real noise"]["sigma"], rel=0.06), label
        assert rows[label]["kld"] < 2e-3, label
        assert abs(rows[label]["lag1_h"]) < 0.02, label
        # Two independent draws: 0.5 (E r - 1 - E ln r) of a ratio of local variances with about 25 free values.
        assert 0.02 < rows[label]["akld"] < 0.12, label
    assert "| Gaussian, fitted | 6." in capsys.readouterr().out

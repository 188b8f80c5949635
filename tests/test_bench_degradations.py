"""The benchmark of learned degradations: its rows from finished runs, its errors from known kernels and known noise."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synthpipe.images import to_uint8

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "recipes" / "real_world"


@pytest.fixture
def bench(monkeypatch):
    """The module, with its neighbours and the recipe's on the path."""
    for folder in (RECIPE, ROOT / "tools" / "bench"):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    yield importlib.import_module("degradations")
    for name in {"degradations", *(path.stem for path in RECIPE.glob("*.py"))} & set(sys.modules):
        del sys.modules[name]


def row(test, arm, psnr, share=()):
    summary = {column: {"mean": value, "each": [value, value]} for column, value in psnr.items()}
    return {
        "test": test,
        "arm": arm,
        "seeds": [0, 1],
        "psnr": summary,
        "share": {column: {"mean": value, "each": [value]} for column, value in dict(share).items()},
    }


@pytest.fixture
def runs(tmp_path):
    """Finished runs, in which the arm that is ahead where settings are chosen is behind where they are judged."""
    columns = ("choose", "judge", "judge_canon", "clean", "jpeg")
    rows = [
        row("real_x4_realsr", "bicubic", dict.fromkeys(columns, 25.0)),
        row("real_x4_realsr", "prototype", dict.fromkeys(columns, 25.6)),
        row("real_x4_realsr", "blur-noise", dict.fromkeys(columns, 25.7) | {"judge": 25.9}, {"judge": 0.9}),
        row("real_x4_realsr", "blur-deflow", dict.fromkeys(columns, 25.8), {"judge": 0.8, "judge_canon": 0.7}),
        row("real_x4_realsr", "real", dict.fromkeys(columns, 26.0)),
        row("real_x2_city100", "bicubic", {"judge": 28.0, "clean": 30.0, "jpeg": 27.0}),
        row("real_x2_city100", "bsrgan", {"judge": 27.0, "clean": 29.0, "jpeg": 27.5}),
        row("real_x2_city100", "blur-deflow", {"judge": 28.5, "clean": 30.0, "jpeg": 27.0}),
    ]
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    return tmp_path


def test_our_arm_is_chosen_where_settings_are_chosen(bench, runs):
    made = bench.makers(runs, None)
    found = made["real_x4_realsr"]()
    assert found["details"]["arms"] == {"ours": "blur-deflow", "peer": "prototype"}
    assert (found["ours"], found["peer"], found["share"], found["unit"]) == (25.8, 25.6, 0.8, "dB")
    assert made["real_x4_canon"]()["share"] == 0.7
    assert found["details"]["psnr"]["real"]["judge"] == 26.0


def test_without_a_ceiling_there_is_no_share(bench, runs):
    found = bench.makers(runs, None)["real_x2_city100"]()
    assert (found["ours"], found["peer"], found["share"]) == (28.5, 28.0, None)
    assert found["details"]["arms"]["peer"] == "bicubic"


def test_where_nothing_is_chosen_the_arm_is_that_of_the_test_that_chooses(bench, runs):
    rows = json.loads((runs / "results.json").read_text())["rows"]
    for test, ahead in (("x1_5d2", {"choose": 36.0, "judge": 36.0}), ("x1_d800", {"judge": 30.0})):
        columns = {"clean": 40.0, "jpeg": 32.0}
        rows.append(row(test, "gaussian", dict.fromkeys(ahead, 33.0) | columns))
        rows.append(row(test, "deflow-spread", ahead | columns))
        rows.append(row(test, "mixture", dict.fromkeys(ahead, 35.0) | columns))
    (runs / "results.json").write_text(json.dumps({"rows": rows}))
    found = bench.makers(runs, None)["x1_d800"]()
    assert (found["ours"], found["details"]["arms"]["ours"]) == (30.0, "deflow-spread")


def test_rows_that_cannot_be_made_are_told(bench, runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["degradations.py", "--runs", str(runs), "--only", "x1_5d2", "real_x4_realsr"])
    bench.main()
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    result = json.loads(line)
    assert result["name"] == "real_x4_realsr"
    assert {"ours", "peer", "share", "versions", "machine", "date", "commit", "command"} <= set(result)
    assert "x1_5d2: left out: x1_5d2: no finished run" in printed.err


def test_the_gaussian_peer_has_the_covariance(bench):
    covariance = torch.tensor([[4.0, 2, 1], [2, 3, 1], [1, 1, 5]]) / 255**2
    clean = torch.full((2, 3, 200, 200), 0.5)
    noise = (bench.with_gaussian(clean, covariance) - to_uint8(clean).float() / 255).movedim(1, 0).flatten(1)
    # Rounding to 8 bits adds 1/12 of a level squared.
    rounding = torch.eye(3) / 12
    torch.testing.assert_close(255**2 * noise.cov(), 255**2 * covariance + rounding, rtol=0.05, atol=0.05)


def test_kernel_errors_are_the_largest(bench):
    found = bench.kernel_errors(torch.tensor([1.0, 0.8]), torch.tensor([0.5, 0.9]), torch.tensor([0.9, 0.5]))
    assert found["ours"] == pytest.approx(0.3)
    assert found["peer"] == pytest.approx(0.4)
    assert found["ratio"] == pytest.approx(0.75)


def test_known_kernels_have_the_amplitude_of_the_formula(bench):
    for sigma in bench.KNOWN[1:]:  # sampled below half a pixel a Gaussian's spectrum overlaps itself
        found = bench.amplitudes(bench.gaussian(sigma)[None], (0.2, 0.3))[0]
        expected = np.exp(-2 * (np.pi * sigma * np.array([0.2, 0.3])) ** 2)
        np.testing.assert_allclose(found, expected, atol=0.03)

"""The arithmetic of ``tools/bench/restoration.py``: times to a common quality from curves, and a run of it all."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.denoisers import PlainDenoiser

BENCH = Path(__file__).parent.parent.parent / "tools" / "bench"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("bench_restoration", BENCH / "restoration.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
        sys.modules.pop("report", None)
    return module


def test_seconds_to_the_common_quality(bench):
    def row(curve, seconds):
        return {"psnr": curve, "seconds_per_iteration": seconds, "network": 2000}

    rows = {
        "annealed MAP": row([24.0, 27.0, 28.0], 0.5),
        "DMSP": row([20.0, 22.0, 24.0, 26.0, 26.5], 0.25),
        "DPIR schedule": row([25.0, 26.0, 26.2, 26.7], 0.5),
    }
    found = bench.compare(rows, 18.0)
    assert found["targets_db"] == {"common": 26.45, "schedules": 26.65}
    steps = {name: entry["iterations_to_common"] for name, entry in found["methods"].items()}
    assert steps == {"annealed MAP": 2, "DMSP": 5, "DPIR schedule": 4}
    assert found["methods"]["annealed MAP"]["seconds_to_common"] == pytest.approx(1.0)
    assert found["methods"]["DMSP"]["seconds_to_common"] == pytest.approx(1.25)
    assert found["methods"]["DMSP"]["kmac_per_pixel_to_common"] == 10
    assert found["methods"]["annealed MAP"]["iterations_to_schedules"] == 2
    assert found["methods"]["DMSP"]["iterations_to_schedules"] is None
    assert found["methods"]["DPIR schedule"]["best_db"] == 26.7


def test_multiply_adds_of_a_network(bench):
    # 3x3 convolutions: 2 -> 4, 4 -> 4, 4 -> 1
    assert bench.multiply_adds(PlainDenoiser(channels=1, width=4, depth=3)) == 9 * (2 * 4 + 4 * 4 + 4 * 1)


def test_a_run(bench, tmp_path):
    torch.manual_seed(0)
    weights = checkpoints.save(tmp_path / "tiny.safetensors", PlainDenoiser(channels=1, width=2, depth=2), {})
    levels = np.random.default_rng(0).integers(0, 256, (130, 140, 3), dtype=np.uint8)
    (tmp_path / "data").mkdir()
    Image.fromarray(levels).save(tmp_path / "data" / "a.png")
    argv = [
        "--map",
        weights,
        "--mmse",
        weights,
        "--data",
        tmp_path / "data",
        "--crops",
        1,
        "--steps",
        2,
        "--threads",
        0,
    ]
    found = bench.measure(bench.parse_arguments([*map(str, argv), "--kernels", "gaussian"]))
    methods = found["kernels"]["gaussian"]["methods"]
    assert set(methods) == set(bench.METHODS)
    assert methods["DMSP"]["iterations"] == 2
    assert methods["annealed MAP"]["curve_db"] == methods["annealed MMSE"]["curve_db"]  # one network in both roles
    assert all(entry["ms_per_iteration"] > 0 for entry in methods.values())

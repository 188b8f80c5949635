"""Small unpaired folders and options of a tiny DeFlow run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MODEL = {"levels": 2, "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": {"type": "small", "features": 4}}


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """``write_image(path, height, width, seed)`` writes a smooth colour picture."""

    def write(path: Path, height: int, width: int, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
        return path

    return write


@pytest.fixture
def photos(tmp_path: Path, write_image: Callable[..., Path]) -> dict[str, str]:
    """Folders of three clean images (one nested) and two noisy ones."""
    for index in range(3):
        write_image(tmp_path / "clean" / ("deep" if index else "") / f"{index}.png", 40 + 8 * index, 48, index)
    for index in range(2):
        write_image(tmp_path / "noisy" / f"{index}.png", 56, 44, 10 + index)
    return {"clean": str(tmp_path / "clean"), "noisy": str(tmp_path / "noisy")}


@pytest.fixture
def tiny_run(tmp_path: Path) -> dict[str, Any]:
    """What every kind of run has, for six steps."""
    return {
        "run_dir": str(tmp_path / "run"),
        "device": "cpu",
        "max_steps": 6,
        "log_every": 2,
        "sample_every": 3,
        "sample_images": 2,
        "checkpoint_every": 2,
    }


@pytest.fixture
def run_data(tiny_run: dict[str, Any], photos: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """``run_data(**changes)``: the options of a tiny run, as a mapping."""

    def make(**changes: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "kind": "deflow",
            **tiny_run,
            "optimizer": {"lr": 1e-3},
            "model": MODEL,
            "data": {
                "clean": {"folder": photos["clean"]},
                "noisy": {"folder": photos["noisy"]},
                "crop": 16,
                "batch_size": 4,
            },
        }
        return base | changes

    return make

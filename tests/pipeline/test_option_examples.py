"""Every example of a degradation in the option reference, copied as it stands, makes pairs in a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.pipeline import build_stream
from tests.stream_corpus import write_corpus

TEXTS = list(dict.fromkeys([*EXAMPLES["stages"], *EXAMPLES["degrade"]]))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("shards"), [4], 130, 140)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.splitlines()[0].strip("# "))
def test_an_example_makes_pairs(text: str, shards: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "kernels.npy", np.full((2, 3, 3), 1 / 9))
    monkeypatch.chdir(tmp_path)
    options = {
        "shards": shards,
        "gt_size": 64,
        "scale": 4,
        "tile": 32,
        "tiles_per_batch": 4,
        "batch_size": 4,
        "pool": 0,
        "seed": 1,
    }
    with build_stream({**options, **yaml.safe_load(text)}) as stream:
        batch = next(stream)
    lq = batch["lq"]
    assert lq.shape == (4, 3, 16, 16)
    assert batch["gt"].shape == (4, 3, 64, 64)
    assert torch.isfinite(lq).all()
    assert float(lq.std()) > 0.01

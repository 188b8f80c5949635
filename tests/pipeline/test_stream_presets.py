"""Presets in streams: pairs of the right size, the same at every run; presets as a way of a choice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from synthpipe.config.presets import PRESETS, preset_chain
from synthpipe.pipeline.build import build_stream
from tests.stream_corpus import same_batches, small_options, take, write_corpus


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("hr"), [3, 3])


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_stream_of_a_preset(name: str, shards: list[str]) -> None:
    options: dict[str, Any] = small_options(shards, degrade=name)
    with build_stream(options) as stream:
        batches = take(stream, 4)
    for batch in batches:
        assert batch["lq"].shape[-1] * options["scale"] == batch["gt"].shape[-1]
        assert torch.isfinite(batch["lq"]).all()
        assert 0 <= batch["lq"].min() < batch["lq"].max() <= 1
    with build_stream({**options, "degrade": preset_chain(name)}) as stream:
        same_batches(take(stream, 4), batches)


def test_a_preset_is_the_callers_own() -> None:
    first = preset_chain("real-esrgan")
    first[0]["amount"] = 3
    first[1]["size"].append(99)
    assert preset_chain("real-esrgan")[0]["amount"] == 0.5
    assert preset_chain("real-esrgan")[1]["size"] == [7, 21]

"""A ``filter:`` in a BasicSR option file reaches the stream behind the dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from synthpipe import checkpoints
from synthpipe.config.basicsr import parse_dataset_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError
from synthpipe.pipeline.build import build_stream
from synthpipe.transforms.density import DensityScore
from tests.basicsr_runs import dataset_block, require_basicsr, write_shards
from tests.tiny_scorer import tiny_scorer

require_basicsr()

from synthpipe.basicsr_plugin.dataset import SynthPipeDataset  # noqa: E402


def block(folder: Path, **rule: object) -> dict[str, object]:
    """As BasicSR would hand it over: read from YAML."""
    weights = str(checkpoints.save(folder / "tiny.safetensors", tiny_scorer()))
    given = dataset_block(write_shards(folder / "shards"), filter={"weights": weights, "tiles": 4, **rule})
    return yaml.safe_load(yaml.safe_dump(given))


def test_the_dataset_gives_only_what_the_filter_keeps(tmp_path: Path) -> None:
    options = parse_dataset_options(block(tmp_path, max_logit=0.0)).model_dump()
    plain = {key: value for key, value in options.items() if key in StreamOptions.model_fields and key != "filter"}
    judge = DensityScore(tiny_scorer(), 4)
    with build_stream(
        {**plain, "degrade": None, "tile": None, "gt_size": 64, "epochs": 1, "drop_last": False}
    ) as clean:
        logits = [logit for batch in clean for logit in judge(batch)["degraded_logit"].tolist()]
    limit = sorted(logits)[3]
    assert len(logits) == 8
    dataset = SynthPipeDataset({**block(tmp_path, max_logit=limit, min_keep=0), "hflip": False, "phase": "train"})
    with dataset.open_stream(batch_size=2, default_seed=0, default_device="cpu") as stream:  # type: ignore[attr-defined]
        for _ in range(24):
            assert {"gt", "lq"} <= next(stream).keys()
        counts = stream.counts()
    assert 0 < counts["filtered"] < counts["used"]
    assert dataset[0]["lq"].shape == (3, 8, 8)


def test_a_rule_that_is_none_is_named_with_its_place(tmp_path: Path) -> None:
    words = r"datasets\.train \(tiny\): option 'filter': .*exactly one of reject_kinds, max_logit"
    with pytest.raises(OptionError, match=words):
        parse_dataset_options(block(tmp_path))
    with pytest.raises(OptionError, match=r"unknown option 'filter\.tile'; did you mean 'tiles'"):
        parse_dataset_options(block(tmp_path, tile=4))

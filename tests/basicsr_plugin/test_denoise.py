"""A ``denoise:`` in a BasicSR option file reaches the stream behind the dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from synthpipe import checkpoints
from synthpipe.config.basicsr import parse_dataset_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError
from synthpipe.pipeline.build import build_stream
from tests.basicsr_runs import dataset_block, require_basicsr, write_shards
from tests.transforms.test_denoise import tiny_plain

require_basicsr()

from synthpipe.basicsr_plugin.dataset import SynthPipeDataset  # noqa: E402


def block(folder: Path, **rule: object) -> dict[str, object]:
    """As BasicSR would hand it over: read from YAML."""
    weights = str(checkpoints.save(folder / "tiny.safetensors", tiny_plain()))
    given = dataset_block(write_shards(folder / "shards"), denoise={"weights": weights, **rule})
    return {**yaml.safe_load(yaml.safe_dump(given)), "phase": "train"}


def test_the_dataset_gives_the_denoised_streams_samples(tmp_path: Path) -> None:
    given = block(tmp_path, sigma=0.1, border=0)
    dataset = SynthPipeDataset({**given, "seed": 5, "device": "cpu"})
    options = parse_dataset_options(given).model_dump(include=set(StreamOptions.model_fields)) | {"seed": 5}
    with build_stream(options) as stream:
        batch = next(stream)
        samples = dataset.__getitems__(range(len(batch["gt"])))
    for place, sample in enumerate(samples):
        assert torch.equal(sample["gt"], batch["gt"][place])
        assert torch.equal(sample["lq"], batch["lq"][place])
    with build_stream({**options, "denoise": None}) as plain:
        assert (next(plain)["gt"] - batch["gt"]).abs().mean() > 0.01


def test_an_option_that_is_none_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"datasets\.train \(tiny\): option 'denoise\.sigma': .*expected auto, or a"):
        parse_dataset_options(block(tmp_path, sigma=25))
    with pytest.raises(OptionError, match=r"unknown option 'denoise\.strengh'; did you mean 'strength'"):
        parse_dataset_options(block(tmp_path, strengh=1))

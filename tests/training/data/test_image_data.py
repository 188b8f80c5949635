"""Crops of one domain: from folders and shards, split over processes, continued from a state; and their noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe.config.denoiser_data import ImageDataOptions
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.config.reader import parse_options
from synthpipe.config.shard import ShardOptions
from synthpipe.errors import OptionError, TrainingError
from synthpipe.files.image_files import read_image
from synthpipe.shards.pack import write_shards
from synthpipe.training.base import step_generators
from synthpipe.training.data.image_data import ImageData, float_crops, noisy_crops

Opened = Callable[..., ImageData]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Makes sources and closes them."""
    made: list[ImageData] = []

    def make(data: dict[str, Any], seed: int = 0, rank: int = 0, world_size: int = 1) -> ImageData:
        made.append(ImageData(parse_options(data, ImageDataOptions), seed, rank, world_size))
        return made[-1]

    yield make
    for source in made:
        source.close()


@pytest.fixture
def data(photos: dict[str, str]) -> dict[str, Any]:
    """Six crops of 16 pixels a step, from a folder of three images."""
    return {"images": {"folder": photos["clean"]}, "crop": 16, "batch_size": 6}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return torch.equal(one["x"], other["x"]) and one["key"] == other["key"] and one["slot"] == other["slot"]


def test_a_batch_holds_windows_of_its_files(data: dict[str, Any], opened: Opened) -> None:
    batch = opened(data | {"augment": "none"}).next_batch()
    assert batch["x"].shape == (6, 3, 16, 16)
    assert batch["x"].dtype == torch.uint8
    assert batch["slot"] == list(range(6))
    for crop, key in zip(batch["x"], batch["key"], strict=True):
        image = torch.from_numpy(read_image(Path(key))).permute(2, 0, 1)
        windows = image.unfold(1, 16, 1).unfold(2, 16, 1)  # (3, rows, columns, 16, 16)
        assert bool((windows == crop[:, None, None]).all(-1).all(-1).all(0).any())


def test_crops_are_a_function_of_seed_step_and_slot(data: dict[str, Any], opened: Opened) -> None:
    first, again = opened(data), opened(data | {"workers": 0, "prefetch": 1})
    batches = [first.next_batch() for _ in range(3)]
    assert all(same(batch, again.next_batch()) for batch in batches)
    assert not torch.equal(batches[0]["x"], batches[1]["x"])
    assert not torch.equal(batches[0]["x"], opened(data, seed=1).next_batch()["x"])


def test_processes_share_a_batch(data: dict[str, Any], opened: Opened) -> None:
    parts = [opened(data, rank=rank, world_size=3) for rank in range(3)]
    whole = opened(data)
    for _ in range(2):
        batch, split = whole.next_batch(), [part.next_batch() for part in parts]
        assert torch.equal(batch["x"], torch.cat([part["x"] for part in split]))
        assert batch["slot"] == [slot for part in split for slot in part["slot"]]
    with pytest.raises(OptionError, match=r"data.batch_size: expected a multiple of 4 \(processes\), got 6"):
        opened(data, world_size=4)


def test_state_continues_after_the_last_batch(data: dict[str, Any], opened: Opened, photos: dict[str, str]) -> None:
    source, again = opened(data), opened(data)
    for _ in range(3):
        source.next_batch()
    again.load_state_dict(source.state_dict())
    assert all(same(source.next_batch(), again.next_batch()) for _ in range(3))
    other = opened(data | {"images": {"folder": photos["noisy"]}})
    with pytest.raises(TrainingError, match="are not those of the run"):
        other.load_state_dict(source.state_dict())


def test_examples_are_fixed_and_not_trained_on(data: dict[str, Any], opened: Opened) -> None:
    source = opened(data)
    before = source.example(2)
    trained = source.next_batch()
    after = source.example(2)
    assert before is not None
    assert after is not None
    assert same(before, after)
    assert before["slot"] == [0, 1]
    assert not torch.equal(before["x"], trained["x"][:2])
    assert source.describe() == {
        "images": {"folders": [data["images"]["folder"]], "images": 3, "skipped": {}, "given_up": {}}
    }


def test_shards_give_every_image_once_a_pass_and_continue(
    tmp_path: Path, photos: dict[str, str], opened: Opened
) -> None:
    write_shards(ShardOptions(inputs=(photos["clean"],), output=str(tmp_path / "shards")))
    data = {
        "images": {"shards": str(tmp_path / "shards" / "shard-000000.tar")},
        "crop": 16,
        "batch_size": 3,
        "workers": 0,
    }
    source, again = opened(data), opened(data)
    batches = [source.next_batch() for _ in range(4)]
    assert batches[0]["x"].shape == (3, 3, 16, 16)
    assert all(len(set(batch["key"])) == 3 for batch in batches)
    assert source.example(2) is None
    again.load_state_dict(source.state_dict())
    assert all(same(source.next_batch(), again.next_batch()) for _ in range(3))


def crops(*levels: int) -> dict[str, Any]:
    x = torch.stack([torch.full((3, 8, 8), level, dtype=torch.uint8) for level in levels])
    return {"x": x, "slot": list(range(len(levels)))}


def test_crops_become_floats_and_luma_where_a_model_is_grey() -> None:
    x = torch.tensor([51, 102, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(float_crops(x, 3).flatten(), torch.tensor([0.2, 0.4, 1.0]))
    torch.testing.assert_close(float_crops(x, 1).flatten(), torch.tensor([0.2 * 0.299 + 0.4 * 0.587 + 0.114]))


def test_noise_is_added_to_what_the_model_sees_and_known() -> None:
    batch = crops(51, 255)
    options = GaussianTrainingNoise(sigma=(0.1, 0.1))
    generators: Callable[[], list[torch.Generator]] = lambda: step_generators(0, 0, batch["slot"])  # noqa: E731
    noisy, clean, truth = noisy_crops(batch, 1, options, generators())
    assert noisy.shape == clean.shape == (2, 1, 8, 8)
    assert noisy.dtype == torch.float32
    torch.testing.assert_close(clean.flatten(1).mean(1), torch.tensor([0.2, 1.0]))
    assert float((noisy - clean).std()) == pytest.approx(0.1, abs=0.03)
    assert truth["sigma"].tolist() == pytest.approx([0.1, 0.1])
    assert torch.equal(noisy, noisy_crops(batch, 1, options, generators())[0])
    untouched, as_read, unknown = noisy_crops(batch, 3, None, generators())
    assert torch.equal(untouched, as_read)
    assert untouched.shape == (2, 3, 8, 8)
    assert unknown == {}


def test_noise_is_never_in_half_precision() -> None:
    batch = crops(51)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        noisy, clean, truth = noisy_crops(
            batch, 3, GaussianTrainingNoise(sigma=(0.1, 0.1), binomial=1), step_generators(0, 0, [0])
        )
    values: list[Tensor] = [noisy, clean, truth["sigma"]]
    assert all(value.dtype == torch.float32 for value in values)
    assert not torch.equal(noisy, noisy.bfloat16().float())

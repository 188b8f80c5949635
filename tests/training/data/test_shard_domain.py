"""Domains from shards: the same batches as images on disk, split over processes, continued from a state."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe.config.deflow import TrainDeFlowOptions, UnpairedOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import ShardError
from synthpipe.training import train
from synthpipe.training.data.unpaired import CLEAN, NOISY, UnpairedData


def write_shard(path: Path, levels: range, side: int = 16) -> str:
    """A shard of plain grey images, one for each level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for level in levels:
            data = io.BytesIO()
            Image.fromarray(np.full((side, side, 3), level, dtype=np.uint8)).save(data, "PNG")
            member = tarfile.TarInfo(f"image{level:03d}.png")
            member.size = data.tell()
            data.seek(0)
            tar.addfile(member, data)
    return str(path)


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Any]:
    """Options of 12 clean images (levels 0..11) in two shards and 8 noisy ones (100..107) in one."""
    write_shard(tmp_path / "clean-000.tar", range(6))
    write_shard(tmp_path / "clean-001.tar", range(6, 12))
    noisy = write_shard(tmp_path / "noisy.tar", range(100, 108))
    return {
        "clean": {"shards": str(tmp_path / "clean-{000..001}.tar")},
        "noisy": {"shards": noisy},
        "crop": 16,
        "batch_size": 8,
        "workers": 0,
    }


@pytest.fixture
def opened() -> Iterator[Callable[..., UnpairedData]]:
    """Makes sources and closes them."""
    made: list[UnpairedData] = []

    def make(data: dict[str, Any], seed: int = 0, rank: int = 0, world_size: int = 1) -> UnpairedData:
        made.append(UnpairedData(parse_options(data, UnpairedOptions), seed, rank, world_size))
        return made[-1]

    yield make
    for source in made:
        source.close()


def test_every_image_comes_once_per_pass(shards: dict[str, Any], opened: Callable[..., UnpairedData]) -> None:
    data = opened(shards)
    batches = [data.next_batch() for _ in range(6)]
    for batch in batches:
        assert batch["x"].shape == (8, 3, 16, 16)
        assert batch["x"].dtype == torch.uint8
        assert batch["domain"].tolist() == [CLEAN] * 4 + [NOISY] * 4
    levels = Counter(int(x[0, 0, 0]) for batch in batches for x in batch["x"])
    assert levels == {**dict.fromkeys(range(12), 2), **dict.fromkeys(range(100, 108), 3)}
    assert data.describe()["clean"]["counts"]["used"] == 24
    assert data.example(2) is None


def test_processes_share_the_images(shards: dict[str, Any], opened: Callable[..., UnpairedData]) -> None:
    parts = [opened(shards, rank=rank, world_size=2) for rank in range(2)]
    seen = [{int(x[0, 0, 0]) for _ in range(3) for x in part.next_batch()["x"][:2]} for part in parts]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(12))


def test_state_continues_after_the_last_batch(shards: dict[str, Any], opened: Callable[..., UnpairedData]) -> None:
    data, again = opened(shards | {"augment": "flips"}), opened(shards | {"augment": "flips"})
    for _ in range(4):
        data.next_batch()
    again.load_state_dict(data.state_dict())
    for _ in range(4):
        expected, got = data.next_batch(), again.next_batch()
        assert got["key"] == expected["key"]
        assert torch.equal(got["x"], expected["x"])


def test_flips_turn_upside_down_half_of_the_time(tmp_path: Path, opened: Callable[..., UnpairedData]) -> None:
    path = tmp_path / "one.tar"
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None], 16, 1).repeat(3, 2)
    with tarfile.open(path, "w") as tar:
        for index in range(40):
            data = io.BytesIO()
            Image.fromarray(ramp).save(data, "PNG")
            member = tarfile.TarInfo(f"{index:02d}.png")
            member.size = data.tell()
            data.seek(0)
            tar.addfile(member, data)
    domain = {"shards": str(path)}
    options = {"clean": domain, "noisy": domain, "crop": 16, "batch_size": 40, "workers": 0}
    for augment, bounds in (("hflip", (0, 0)), ("flips", (40, 160))):
        source = opened(options | {"augment": augment})
        down = sum(int(x[0, 0, 0]) == 15 for _ in range(5) for x in source.next_batch()["x"])
        assert bounds[0] <= down <= bounds[1]  # of 200: mean 100, standard deviation 7


def test_a_run_from_shards_resumes_exactly(
    shards: dict[str, Any], run_data: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def options(name: str, **changes: Any) -> TrainDeFlowOptions:
        base = run_data(run_dir=str(tmp_path / name), data=shards, max_steps=6, checkpoint_every=3)
        return parse_options(base | changes, TrainDeFlowOptions)

    asked = iter(range(100))
    whole = train(options("whole"))
    train(options("cut"), stop=lambda: next(asked) >= 4)
    cut = train(options("cut", resume="auto"))
    left, right = (
        torch.load(path.parent / "checkpoints" / "step_00000006.pt", weights_only=True) for path in (whole, cut)
    )
    assert all(torch.equal(value, right["averaged"][name]) for name, value in left["averaged"].items())
    assert left["processes"][0]["data"] == right["processes"][0]["data"]


def test_missing_shards_are_named(shards: dict[str, Any], opened: Callable[..., UnpairedData]) -> None:
    with pytest.raises(ShardError, match=r"nowhere"):
        opened(shards | {"noisy": {"shards": "/nowhere/a.tar"}})

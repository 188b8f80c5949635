"""A stream that would yield nothing says so: when it is built or at the end of the pass, with the options to change."""

from __future__ import annotations

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe.errors import OptionError, StreamError
from synthpipe.pipeline import Stream, build_stream
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from tests.stream_corpus import noise_image, png, write_corpus, write_tar


def _open(shards: Any, rank: int = 0, world_size: int = 1, **changes: Any) -> Stream:
    options = {"shards": shards, "gt_size": 16, "batch_size": 4, "epochs": 1, "pool": 0, "max_bad_fraction": 1.0}
    transforms = changes.pop("transforms", ())
    return build_stream({**options, **changes}, rank=rank, world_size=world_size, transforms=transforms)


def _mixed(folder: Path, large: int, small: int) -> str:
    """A shard of images that fit and of others of 10 pixels a side."""
    images = [noise_image(n) for n in range(large)] + [noise_image(n, 10, 10) for n in range(small)]
    return str(write_tar(folder / "mixed.tar", [(f"{n:03d}.png", png(image)) for n, image in enumerate(images)]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 6}, r"1 epoch holds 5 patches \(5 images, 1 patch of each\), fewer than batch_size 6"),
        ({"batch_size": 16, "epochs": 3}, r"3 epochs holds 15 patches"),
        ({"batch_size": 16, "crops_per_image": 3}, r"holds 15 patches \(5 images, 3 patches of each\)"),
        ({"batch_size": 16, "workers": 2}, r"holds 5 patches"),
        ({"rank": 1, "world_size": 2}, r"patches on each of 2 ranks"),
    ],
)
def test_a_pass_without_a_batch_is_refused_when_it_is_built(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(OptionError, match=f"{said}.*lower batch_size, set drop_last: false, or raise epochs or crops"):
        _open(write_corpus(tmp_path, [3, 2]), **changes)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("epochs", "crops", "batch_size"), [(1, 1, 4), (2, 1, 4), (1, 3, 5), (3, 2, 7)])
def test_the_length_is_the_number_of_batches(
    tmp_path: Path, drop_last: bool, epochs: int, crops: int, batch_size: int
) -> None:
    changes = {"epochs": epochs, "crops_per_image": crops, "batch_size": batch_size, "drop_last": drop_last}
    with _open(write_corpus(tmp_path, [3, 2]), **changes) as stream:
        batches = 5 * epochs * crops / batch_size
        assert len(stream) == (math.floor(batches) if drop_last else math.ceil(batches))
        assert len(list(stream)) == len(stream)
        assert len(list(stream)) == len(stream)  # of the next pass, too


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_length_of_each_rank_is_the_number_of_its_batches(tmp_path: Path, drop_last: bool) -> None:
    shards = write_corpus(tmp_path, [9, 8])
    for rank in range(3):
        with _open(shards, rank, 3, drop_last=drop_last) as stream:
            assert len(stream) == len(list(stream)) == (5 // 4 if drop_last else 2)


def test_an_endless_stream_has_no_length_and_is_true(tmp_path: Path) -> None:
    with _open(write_corpus(tmp_path, [2]), epochs=None, batch_size=16) as stream:
        assert stream
        with pytest.raises(TypeError, match="endless"):
            len(stream)
        assert [len(batch["gt"]) for batch in itertools.islice(stream, 2)] == [16, 16]


@pytest.mark.parametrize("changes", [{}, {"workers": 2}, {"prefetch": 2}, {"pool": 8}], ids=str)
def test_a_pass_of_bad_images_is_no_end(tmp_path: Path, changes: Any) -> None:
    with _open(_mixed(tmp_path, 0, 5), **changes) as stream:
        assert len(stream) == 1
        for _ in range(2):  # asked again, it is tried again
            with pytest.raises(
                StreamError,
                match=r"1 epoch gave no batch: 0 images used, skipped: too_small 5; what helps: gt_size, scale",
            ):
                list(stream)
            assert stream.counts() == {"used": 0, "too_small": 5}


@pytest.mark.parametrize(("changes", "batches"), [({}, None), ({"drop_last": False}, [2]), ({"batch_size": 2}, [2])])
def test_too_few_good_images_for_a_batch_are_counted(tmp_path: Path, changes: Any, batches: list[int] | None) -> None:
    with _open(_mixed(tmp_path, 2, 3), **changes) as stream:
        if batches is not None:
            assert [len(batch["gt"]) for batch in stream] == batches
            return
        with pytest.raises(
            StreamError,
            match=r"2 images used, skipped: too_small 3;.*2 patches left, too few for one: lower batch_size, or set ",
        ):
            list(stream)


class _Nothing(BatchTransform):
    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """None."""
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """NaN everywhere."""
        return {**batch, "gt": torch.full_like(batch["gt"], torch.nan)}


def test_tiles_that_all_come_to_nothing_are_no_end(tmp_path: Path) -> None:
    with (
        _open(write_corpus(tmp_path, [5]), transforms=(_Nothing(),)) as stream,
        pytest.raises(StreamError, match="gave no batch: 5 images used, skipped: not_finite 5"),
    ):
        list(stream)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_endless_stream_of_bad_images_stops(tmp_path: Path, workers: int) -> None:
    with (
        _open(_mixed(tmp_path, 0, 5), epochs=None, workers=workers) as stream,
        pytest.raises(StreamError, match=r"an epoch gave no patch: 0 images used, skipped: too_small \d+"),
    ):
        next(stream)


def test_an_endless_stream_with_one_good_image_goes_on(tmp_path: Path) -> None:
    with _open(_mixed(tmp_path, 1, 5), epochs=None) as stream:
        assert len(list(itertools.islice(stream, 4))) == 4


def test_a_state_from_the_end_of_a_pass_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = write_corpus(tmp_path, [5])
    with _open(shards) as stream:
        next(stream)
        after_the_last = stream.state_dict()
        assert list(stream) == []
        after_the_end = stream.state_dict()
        following = [batch["key"] for batch in stream]
    with _open(shards) as stream, caplog.at_level(logging.WARNING):
        stream.load_state_dict(after_the_end)
        assert [batch["key"] for batch in stream] == following
        assert not caplog.records
        stream.load_state_dict(after_the_last)
        assert list(stream) == []
        assert [record.message for record in caplog.records] == [
            "the state that was loaded was taken after the last batch of its pass: nothing is left of it; iterate "
            "again for the next"
        ]
        assert [batch["key"] for batch in stream] == following

"""Shards that are damaged, with an index and without: what a stream can know of its losses stands in its counts."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthpipe.errors import StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.stream_corpus import read_corpus
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo
from tests.stream_corpus import NoisyHalf, small_options, write_corpus

IMAGES = 8


def header_place(shard: str, number: int) -> int:
    """The first byte of a member's header."""
    with tarfile.open(shard) as tar:
        return tar.getmembers()[number].offset


def damage_header(shard: str) -> int:
    """One bit of the fifth of eight headers; gives its place."""
    place = header_place(shard, 4)
    data = bytearray(Path(shard).read_bytes())
    data[place] ^= 1
    Path(shard).write_bytes(data)
    return place


def lose_page(shard: str) -> int:
    """Zeros in place of the fifth header, as after a loss of power."""
    place = header_place(shard, 4)
    data = bytearray(Path(shard).read_bytes())
    data[place : place + 512] = bytes(512)
    Path(shard).write_bytes(data)
    return place


def cut_between(shard: str) -> int:
    """Nothing from the fifth header on."""
    place = header_place(shard, 4)
    Path(shard).write_bytes(Path(shard).read_bytes()[:place])
    return place


DAMAGES = [damage_header, lose_page, cut_between]


def write_index(shards: list[str]) -> None:
    infos = tuple(ShardInfo(Path(shard).name, IMAGES, Path(shard).stat().st_size) for shard in shards)
    (Path(shards[0]).parent / INDEX_NAME).write_text(ShardIndex(infos).to_json())


def passes(shards: list[str], number: int = 1, **changes: Any) -> tuple[list[set[str]], list[dict[str, int]]]:
    """Keys of the images of each epoch, and the counts at its end."""
    options = small_options(shards, epochs=1, drop_last=False, max_bad_fraction=1.0, **changes)
    keys, counts = [], []
    with build_stream(options, degrade=NoisyHalf()) as stream:
        for _ in range(number):
            keys.append({Path(path).stem for batch in stream for path in batch["gt_path"]})
            counts.append(stream.counts())
    return keys, counts


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_without_an_index_each_pass_counts_the_loss(
    damage: Callable[[str], int], workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (shard,) = write_corpus(tmp_path, [IMAGES])
    place = damage(shard)
    with caplog.at_level(logging.WARNING, "synthpipe"):
        keys, counts = passes([shard], 2, workers=workers)
    assert keys == [{f"0_{number:03d}" for number in range(4)}] * 2
    assert counts == [{"used": 4, "truncated_shard": 1}, {"used": 8, "truncated_shard": 2}]
    assert any(
        f"{shard}: damaged at byte {place}: " in line and "its first 4 samples are used" in line
        for line in caplog.messages
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_with_an_index_all_lost_samples_are_counted(
    damage: Callable[[str], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards = write_corpus(tmp_path, [IMAGES, IMAGES])
    write_index(shards)
    place = damage(shards[1])
    with caplog.at_level(logging.INFO, "synthpipe"):
        keys, counts = passes(shards)
    assert len(keys[0]) == 12
    assert counts == [{"used": 12, "truncated_shard": 4}]
    where = f"{shards[1]}: sample 7 is missing: damaged at byte {place}: "
    assert any(line.startswith(f"skipped (truncated_shard): {where}") for line in caplog.messages)
    assert sum(line.startswith(f"{shards[1]}: damaged at byte {place}: ") for line in caplog.messages) == 1


def test_an_archive_without_its_end_may_have_lost_some(tmp_path: Path) -> None:
    """It cannot be told from one that was cut between two members; with an index it can."""
    (shard,) = write_corpus(tmp_path, [IMAGES])
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    Path(shard).write_bytes(Path(shard).read_bytes()[: last.offset_data + (last.size + 511) // 512 * 512])
    keys, counts = passes([shard])
    assert (len(keys[0]), counts) == (IMAGES, [{"used": IMAGES, "truncated_shard": 1}])
    write_index([shard])
    assert passes([shard])[1] == [{"used": IMAGES}]


def test_two_archives_in_one_file(tmp_path: Path) -> None:
    """`cat a.tar b.tar`: readers of tar files stop at the end of the first."""
    first, second = write_corpus(tmp_path, [IMAGES, IMAGES])
    Path(first).write_bytes(Path(first).read_bytes() + Path(second).read_bytes())
    keys, counts = passes([first])
    assert keys == [{f"0_{number:03d}" for number in range(IMAGES)}]
    assert counts == [{"used": IMAGES, "truncated_shard": 1}]


def test_a_remote_shard_counts_as_a_local_one(tmp_path: Path) -> None:
    (shard,) = write_corpus(tmp_path, [IMAGES])
    damage_header(shard)
    _, counts = passes([f"pipe:cat {shard}"], allow_pipe=True)
    assert counts == [{"used": 4, "truncated_shard": 1}]


def test_a_shard_that_cannot_be_read_at_all_counts_as_the_others(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [4, 6, 3])
    Path(shards[2]).write_bytes(b"no tar" * 1000)
    assert read_corpus(shards).counts == (4, 6, 5)
    _, counts = passes(shards)
    assert counts == [{"used": 10, "unreadable_shard": 5}]


def test_an_empty_archive_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = write_corpus(tmp_path, [4, 0])
    assert read_corpus(shards).counts == (4, 0)
    assert f"{shards[1]}: an archive without samples" in caplog.messages


def test_losses_count_against_what_is_allowed(tmp_path: Path) -> None:
    (shard,) = write_corpus(tmp_path, [IMAGES])
    damage_header(shard)
    options = small_options([shard], epochs=1, drop_last=False, max_bad_fraction=0.0)
    with (
        build_stream(options, degrade=NoisyHalf()) as stream,
        pytest.raises(StreamError, match=r"truncated_shard 1.*repair the shards"),
    ):
        list(stream)


@pytest.mark.parametrize("at", [1, 5])
def test_a_resumed_stream_counts_what_is_left(tmp_path: Path, at: int) -> None:
    (shard,) = write_corpus(tmp_path, [IMAGES])
    damage_header(shard)
    options = small_options([shard], epochs=1, batch_size=1, max_bad_fraction=1.0)
    with build_stream(options, degrade=NoisyHalf()) as stream:
        for _ in range(at):
            next(stream)
        state = stream.state_dict()
    with build_stream(options, degrade=NoisyHalf()) as stream:
        stream.load_state_dict(state)
        list(stream)
        assert stream.counts() == {"used": 4, "truncated_shard": 1}

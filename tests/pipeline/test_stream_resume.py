"""Resuming a stream gives the bits that it would have given; a state that does not fit is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from synthpipe.errors import StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.stream import Stream
from tests.pipeline import killed_run
from tests.stream_corpus import NoisyHalf, noise_image, png, same_batches, small_options, take, write_corpus, write_tar


def open_stream(shards: list[str], **changes: Any) -> Stream:
    return build_stream(small_options(shards, **changes), degrade=NoisyHalf())


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint would store it, read without unpickling code."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    assert buffer.tell() < 100_000
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three uneven shards with a broken image in the second."""
    folder = tmp_path_factory.mktemp("corpus")
    urls = write_corpus(folder, [5, 1, 7])
    write_tar(folder / "s-1.tar", [("1_000.png", png(noise_image(0))), ("1_001.png", b""), ("1_002.png", b"x")])
    return urls


@pytest.mark.parametrize(
    ("workers", "cuts"), [(0, range(24)), (1, (0, 1, 5, 14)), (2, (0, 1, 2, 7, 8, 19)), (4, (12,))]
)
@pytest.mark.parametrize("pool", [0, 20])
def test_an_endless_stream_resumes_anywhere(shards: list[str], workers: int, cuts: Any, pool: int) -> None:
    changes = {"workers": workers, "pool": pool, "crops_per_image": 2, "max_bad_fraction": 1}
    states = []
    with open_stream(shards, **changes) as stream:
        batches, counts = [], []
        for _ in range(24):
            states.append(through_a_file(stream.state_dict()))
            batches.append(next(stream))
            counts.append(stream.counts())
    for cut in cuts:
        with open_stream(shards, **changes) as resumed:
            resumed.load_state_dict(states[cut])
            rest = []
            for place in range(cut, 24):
                rest.append(next(resumed))
                assert resumed.counts() == counts[place]
        assert same_batches(rest, batches[cut:])


@pytest.mark.parametrize(("workers", "world_size", "step"), [(0, 1, 1), (0, 2, 1), (2, 2, 9)])
def test_a_finite_stream_resumes_over_the_ends_of_passes(
    shards: list[str], workers: int, world_size: int, step: int
) -> None:
    options = small_options(shards, epochs=1, workers=workers, drop_last=False, max_bad_fraction=1)

    def open_rank() -> Stream:
        return build_stream(options, rank=world_size - 1, world_size=world_size, degrade=NoisyHalf())

    def walk(stream: Stream, passes: int) -> tuple[list[Any], list[Any]]:
        """Batches with None at each end of a pass, and the state before each."""
        events: list[Any] = []
        states: list[Any] = []
        while events.count(None) < passes:
            states.append(through_a_file(stream.state_dict()))
            events.append(next(stream, None))
        return events, states

    with open_rank() as stream:
        events, states = walk(stream, 3)
    for cut in range(0, len(states), step):
        with open_rank() as resumed:
            resumed.load_state_dict(states[cut])
            rest, _ = walk(resumed, events[cut:].count(None))
        assert [event is None for event in rest] == [event is None for event in events[cut:]]
        assert same_batches([e for e in rest if e], [e for e in events[cut:] if e])


def test_a_state_can_be_loaded_into_a_running_stream(shards: list[str]) -> None:
    with open_stream(shards, workers=1, max_bad_fraction=1) as stream:
        take(stream, 2)
        state = stream.state_dict()
        batches = take(stream, 5)
        stream.load_state_dict(state)
        assert same_batches(take(stream, 5), batches)


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (3, 2)])
def test_prefetched_batches_are_not_skipped(shards: list[str], before: int, after: int) -> None:
    # what lies ready and was not handed out must come again; the state knows nothing of prefetching
    with open_stream(shards, prefetch=before, max_bad_fraction=1) as stream:
        take(stream, 5)
        state = through_a_file(stream.state_dict())
        batches = take(stream, 6)
    with open_stream(shards, prefetch=after, max_bad_fraction=1) as resumed:
        resumed.load_state_dict(state)
        assert same_batches(take(resumed, 6), batches)


def test_the_state_of_a_closed_stream_can_still_be_taken(shards: list[str]) -> None:
    with open_stream(shards, workers=1, max_bad_fraction=1) as stream:
        take(stream, 3)
        state = stream.state_dict()
    assert stream.state_dict() == state


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"workers": 1}, "workers: state 0, here 1"),
        ({"seed": 9}, "seed: state 0, here 9"),
        ({"batch_size": 2}, "batch_size: state 4, here 2"),
        ({"pool": 4}, "pool: state 20, here 4"),
        ({"shuffle_buffer": 7}, "shuffle_buffer: state 5, here 7"),
        ({"tile": 20}, "tile: state 24, here 20"),
    ],
)
def test_a_state_of_other_options_is_refused(shards: list[str], changes: dict[str, Any], named: str) -> None:
    with open_stream(shards) as stream:
        state = stream.state_dict()
    with open_stream(shards, **changes) as other, pytest.raises(StreamError, match=f"another stream .*{named}"):
        other.load_state_dict(state)


def test_a_state_of_other_shards_ranks_or_degradation_is_refused(shards: list[str]) -> None:
    options = small_options(shards)
    state = build_stream(options, degrade=NoisyHalf()).state_dict()
    with pytest.raises(StreamError, match="samples: state 15, here 8"):
        open_stream(shards[:2]).load_state_dict(state)
    with pytest.raises(StreamError, match="world_size: state 1, here 2"):
        build_stream(options, world_size=2, degrade=NoisyHalf()).load_state_dict(state)
    with pytest.raises(StreamError, match=r"degrade: state 'NoisyHalf', here {'type': 'classical'"):
        build_stream({**options, "degrade": {"type": "classical"}}).load_state_dict(state)
    other = build_stream(options, rank=1, world_size=2, degrade=NoisyHalf())
    with pytest.raises(StreamError, match="rank: state 0, here 1"):
        other.load_state_dict(build_stream(options, world_size=2, degrade=NoisyHalf()).state_dict())


@pytest.mark.parametrize("state", [{"version": 2}, {"version": 1, "identity": None}])
def test_a_state_without_its_identity_is_refused(shards: list[str], state: dict[str, Any]) -> None:
    with pytest.raises(StreamError, match="not the state of a stream: no identity in it, only"):
        open_stream(shards).load_state_dict(state)


@pytest.mark.parametrize("state", [{}, {"version": 99}, {"iter": 3}])
def test_something_that_is_no_state_is_refused(shards: list[str], state: dict[str, Any]) -> None:
    with pytest.raises(StreamError, match="not the state of a stream: expected version 2 or 1, got"):
        open_stream(shards).load_state_dict(state)


def test_a_state_fits_the_same_shards_in_another_place(tmp_path: Path) -> None:
    first, second = write_corpus(tmp_path / "a", [4, 4]), write_corpus(tmp_path / "b", [4, 4])
    with open_stream(first) as stream:
        take(stream, 3)
        state = stream.state_dict()
        batches = take(stream, 3)
    with open_stream(second) as moved:
        moved.load_state_dict(state)
        assert all(torch.equal(a["lq"], b["lq"]) for a, b in zip(take(moved, 3), batches, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_killed_in_mid_epoch_equals_one_never_killed(tmp_path: Path, workers: int) -> None:
    # an epoch is 20 batches
    shards = write_corpus(tmp_path / "corpus", [19, 3, 18])
    given = small_options(shards, workers=workers, pool=12, shuffle_buffer=10)
    options = tmp_path / "options.json"
    options.write_text(json.dumps(given))
    (tmp_path / "whole").mkdir()
    killed_run.main(tmp_path / "whole", given, 150)
    killed_run.run_and_kill(tmp_path, options, 150, kill_at=8)
    before = (tmp_path / "log").read_text().splitlines()
    killed_run.main(tmp_path, given, 150)
    lines = (tmp_path / "log").read_text().splitlines()
    # batches between the last state and the kill come twice, and equal
    assert 8 <= len(before) < 150
    assert sorted(set(lines)) == sorted((tmp_path / "whole" / "log").read_text().splitlines())
    assert len(lines) < 150 + len(before)

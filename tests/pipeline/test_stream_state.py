"""A state that is damaged is refused by the key that is wrong; what JSON makes of a state is taken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthpipe.errors import StreamError
from synthpipe.pipeline import Stream, build_stream
from tests.stream_corpus import NoisyHalf, same_batches, small_options, take, write_corpus

#: Of the loader without reader processes.
LOADER = ("nodes", "source", "loader")
READER = (*LOADER, "fetcher_state", "dataset_iter_state")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), [5, 4, 6])


@pytest.fixture(scope="module")
def stream(shards: list[str]) -> Iterator[Stream]:
    """Two epochs of 15 images, one tile of each, two patches of each tile."""
    with build_stream(
        small_options(shards, workers=0, epochs=2, drop_last=False, pool=4), degrade=NoisyHalf()
    ) as stream:
        yield stream


@pytest.fixture(scope="module")
def state(stream: Stream) -> dict[str, Any]:
    """After three batches."""
    take(stream, 3)
    return stream.state_dict()


def put(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("pass"), "it lacks 'pass'"),
        (drop("nodes"), "it lacks 'nodes'"),
        (drop("tally"), "it lacks 'tally'"),
        (drop("counts"), "it lacks 'counts'"),
        (drop("nodes", "source", "epoch"), "it lacks 'nodes.source.epoch'"),
        (drop(*READER, "position"), "it lacks 'nodes.source.loader.fetcher_state.dataset_iter_state.position'"),
        (drop("nodes", "tally", "readers"), "it lacks 'nodes.tally.readers'"),
        (put(("more",), 1), "state: expected known keys"),
        (put(("version",), True), "expected version 2 or 1, got True"),
        (put(("version",), 2.0), "expected version 2 or 1, got 2.0"),
        (put(("version",), "2"), "expected version 2 or 1, got '2'"),
        (put(("version",), 10**400), "expected version 2 or 1, got a number of 1329 bits"),
        (put(("identity",), [1]), "no identity in it, only ['version'"),
        (put(("identity", "seed"), torch.zeros(3)), "seed: state tensor([0., 0., 0.]), here 0"),
        (put(("identity", "seed"), np.zeros(3)), "seed: state array"),
        (put(("identity", "x" * 10_000), "y" * 10_000), "belongs to another stream (xxx"),
        (put(("pass",), -1), "pass: expected a whole number from 0, got -1"),
        (put(("pass",), 1), "nodes.source.epoch: expected a whole number from 2 to 2, got 0"),
        (put(("pass",), None), "pass: expected a whole number from 0, got None"),
        (put(("epoch",), 1.0), "epoch: expected a whole number from 0, got 1.0"),
        (put(("epoch",), float("nan")), "epoch: expected a whole number from 0, got nan"),
        (put(("epoch",), 2**60), "epoch: expected a whole number from 0, got 1152921504606846976"),
        (put(("counts",), None), "counts: expected keys with values, got None"),
        (put(("counts",), {}), "counts: expected a number of 'used' images, got {}"),
        (put(("counts", "used"), "3"), "counts.'used': expected a whole number from 0, got '3'"),
        (put(("counts", 3), 3), "counts: expected reasons as keys, got 3"),
        (put(("counts",), {str(n): 1 for n in range(2000)}), "counts: expected at most 1000 reasons"),
        (put(("given_up",), {"alpha": -1}), "given_up.'alpha': expected a whole number from 0, got -1"),
        (put(("nodes",), []), "nodes: expected keys with values, got []"),
        (put(("nodes", "block"), -1), "nodes.block: expected a whole number from 0, got -1"),
        (put(("nodes", "batches"), "2"), "nodes.batches: expected a whole number from 0, got '2'"),
        (put(("nodes", "tally"), 3), "nodes.tally: expected keys with values, got 3"),
        (put(("nodes", "tally", "readers"), {"a": {}}), "nodes.tally.readers: expected numbers of readers as keys"),
        (put(("nodes", "tally", "readers"), {0: {}, "0": {}}), "nodes.tally.readers: expected numbers of readers"),
        (
            put(("nodes", "tally", "epochs"), {0: None}),
            "nodes.tally.epochs.0: expected a whole number from 0, got None",
        ),
        (put(("nodes", "tally", "kept"), -1), "nodes.tally.kept: expected a whole number from 0, got -1"),
        (put(("nodes", "tally", "given_up"), 3), "nodes.tally.given_up: expected keys with values, got 3"),
        (put(("nodes", "source"), "x"), "nodes.source: expected keys with values, got 'x'"),
        (put(("nodes", "source", "epoch"), 1), "nodes.source.epoch: expected a whole number from 0 to 0, got 1"),
        (put(("nodes", "source", "ended"), 0), "nodes.source.ended: expected true or false, got 0"),
        (put(LOADER, [1]), "nodes.source.loader: expected keys with values, got [1]"),
        (put((*LOADER, "_iterator_finished"), True), "_iterator_finished: expected False"),
        (put((*LOADER, "_num_yielded"), 10**9), "_num_yielded: expected a whole number from 0 to 100000000"),
        (put((*LOADER, "_sampler_iter_yielded"), 77), "_sampler_iter_yielded: expected a whole number from"),
        (put((*LOADER, "_sampler_iter_state"), {"a": 1}), "_sampler_iter_state: expected none, got {'a': 1}"),
        (put((*LOADER, "_snapshot"), {}), "expected that of a stream without reader processes"),
        (put((*LOADER, "fetcher_state"), None), "fetcher_state: expected keys with values, got None"),
        (put(READER, None), "dataset_iter_state: expected keys with values, got None"),
        (put((*READER, "epoch"), 2), "dataset_iter_state.epoch: expected a whole number from 0 to 1, got 2"),
        (put((*READER, "position"), 16), "dataset_iter_state.position: expected a whole number from 0 to 15, got 16"),
        (put((*READER, "position"), 10**18), "position: expected a whole number from 0 to 15, got 1000000000000000000"),
        (put((*READER, "crop"), 5), "dataset_iter_state.crop: expected a whole number from 0 to 1, got 5"),
        (put((*READER, "counts"), [1]), "dataset_iter_state.counts: expected keys with values, got [1]"),
        (put((*READER, "reported"), None), "dataset_iter_state.reported: expected a whole number from 0, got None"),
    ],
)
def test_values_that_no_state_has(
    stream: Stream, state: dict[str, Any], change: Callable[[dict[str, Any]], None], words: str
) -> None:
    damaged = copy.deepcopy(state)
    change(damaged)
    with pytest.raises(StreamError) as error:
        stream.load_state_dict(damaged)
    assert words in str(error.value)
    assert len(str(error.value)) < 1500
    # Nothing of it has been taken over.
    assert stream.state_dict() == state


@pytest.mark.parametrize("given", [None, 3, [], "x", b"", {}, {"version": 2}, {1: 2, "a": 3, None: 4}])
def test_what_is_no_state_at_all(stream: Stream, given: Any) -> None:
    with pytest.raises(StreamError, match="not the state of a stream"):
        stream.load_state_dict(given)


def test_more_emitted_than_a_block_has(shards: list[str], state: dict[str, Any]) -> None:
    damaged = copy.deepcopy(state)
    damaged["nodes"]["taken"] = 1000
    with build_stream(
        small_options(shards, workers=0, epochs=2, drop_last=False, pool=4), degrade=NoisyHalf()
    ) as other:
        other.load_state_dict(damaged)
        with pytest.raises(StreamError, match="1000 patches of a block were emitted, the block has"):
            next(other)


def test_json_keeps_a_state(shards: list[str], stream: Stream, state: dict[str, Any]) -> None:
    stream.load_state_dict(state)
    expected = take(stream, 3)
    with build_stream(
        small_options(shards, workers=0, epochs=2, drop_last=False, pool=4), degrade=NoisyHalf()
    ) as other:
        other.load_state_dict(json.loads(json.dumps(state)))
        assert same_batches(take(other, 3), expected)
    stream.load_state_dict(state)


def test_a_state_is_not_changed_by_the_stream_that_it_was_loaded_into(stream: Stream, state: dict[str, Any]) -> None:
    before = copy.deepcopy(state)
    stream.load_state_dict(state)
    take(stream, 3)
    assert state == before
    stream.load_state_dict(state)


WORKERS = (*LOADER, "_snapshot")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop(*WORKERS), "it lacks 'nodes.source.loader._snapshot'"),
        (put((*WORKERS, "_worker_snapshots"), {}), "_worker_snapshots: expected those of 2 readers, got []"),
        (put((*WORKERS, "_worker_snapshots", "worker_2"), {}), "_worker_snapshots: expected those of 2 readers"),
        (put((*WORKERS, "_last_yielded_worker_id"), 2), "_last_yielded_worker_id: expected a whole number from 0 to 1"),
        (
            put((*LOADER, "_steps_since_snapshot"), 5),
            "_steps_since_snapshot: expected a whole number from 0 to 0, got 5",
        ),
        (
            put((*WORKERS, "_main_snapshot", "_num_workers"), 3),
            "_num_workers: expected a whole number from 2 to 2, got 3",
        ),
        (put((*WORKERS, "_main_snapshot", "_sampler_iter_yielded"), 10**12), "_sampler_iter_yielded: expected a whole"),
        (put((*WORKERS, "_worker_snapshots", "worker_1", "worker_id"), 0), "worker_id: expected a whole number from 1"),
        (put((*WORKERS, "_worker_snapshots", "worker_1", "dataset_state"), 3), "dataset_state: expected none, got 3"),
    ],
)
def test_states_of_readers_in_processes(
    shards: list[str], change: Callable[[dict[str, Any]], None], words: str
) -> None:
    with build_stream(small_options(shards, workers=2, pool=4), degrade=NoisyHalf()) as stream:
        take(stream, 4)
        damaged = copy.deepcopy(stream.state_dict())
        change(damaged)
        with pytest.raises(StreamError) as error:
            stream.load_state_dict(damaged)
    assert words in str(error.value)


def test_a_reader_at_a_place_that_its_part_does_not_have(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 4, 6])
    with build_stream(small_options(shards, workers=2, pool=4), degrade=NoisyHalf()) as stream:
        take(stream, 4)
        damaged = copy.deepcopy(stream.state_dict())
        snapshots = damaged["nodes"]["source"]["loader"]["_snapshot"]["_worker_snapshots"]
        snapshots["worker_0"]["fetcher_state"]["dataset_iter_state"]["position"] = 8  # of 15 images the first has 7
        with pytest.raises(StreamError, match=r"worker_0.*position: expected a whole number from 0 to 7, got 8"):
            stream.load_state_dict(damaged)

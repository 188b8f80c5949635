"""The plan: every sample once per epoch, equal parts, new orders, good mixing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.pipeline.plan import Address, Consumer, Segment, consumer_segments, epoch_order


def order_of(
    counts: list[int],
    epoch: int = 0,
    index: int = 0,
    total: int = 1,
    seed: int = 0,
    open_shards: int = 4,
    shuffle_buffer: int = 10,
) -> list[Address]:
    consumer = Consumer(index, total)
    segments = consumer_segments(counts, seed, epoch, consumer)
    return list(epoch_order(segments, seed, epoch, consumer, open_shards, shuffle_buffer))


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    total=st.integers(1, 7),
    epoch=st.integers(0, 3),
    open_shards=st.integers(1, 5),
    shuffle_buffer=st.integers(0, 20),
)
def test_consumers_share_every_sample_once(
    counts: list[int], total: int, epoch: int, open_shards: int, shuffle_buffer: int
) -> None:
    parts = [
        order_of(counts, epoch, index, total, open_shards=open_shards, shuffle_buffer=shuffle_buffer)
        for index in range(total)
    ]
    every = Counter(address for part in parts for address in part)
    assert every == Counter({(shard, member): 1 for shard, count in enumerate(counts) for member in range(count)})
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_more_consumers_than_shards_all_get_samples() -> None:
    # webdataset splits by whole shards, and a worker without one raises or starves
    assert [len(order_of([40, 40], index=index, total=12)) for index in range(12)] == [6, 7, 7] * 4


def test_every_epoch_has_a_new_order_of_shards_and_samples() -> None:
    counts = [5] * 12
    shard_orders = []
    for epoch in range(6):
        segments = consumer_segments(counts, 7, epoch, Consumer(0, 1))
        shard_orders.append(tuple(segment.shard for segment in segments))
    assert len(set(shard_orders)) == 6
    assert len({tuple(order_of(counts, epoch)) for epoch in range(6)}) == 6


def test_a_worker_sees_other_shards_in_other_epochs() -> None:
    # splitting before shuffling would show a worker the same shards for ever
    seen = [
        frozenset(segment.shard for segment in consumer_segments([4] * 16, 0, epoch, Consumer(1, 4)))
        for epoch in range(8)
    ]
    assert len(set(seen)) >= 7
    assert len(frozenset.union(*seen)) >= 14


def test_the_order_follows_the_seed_and_repeats() -> None:
    counts = [9, 4, 7]
    assert order_of(counts, seed=3) == order_of(counts, seed=3)
    assert order_of(counts, seed=3) != order_of(counts, seed=4)


def test_the_order_is_the_same_on_every_machine() -> None:
    # Written down once; a change would silently break the resume of runs under way.
    assert order_of([3, 2], seed=1, shuffle_buffer=3) == [(0, 0), (1, 0), (0, 2), (1, 1), (0, 1)]


def test_open_shards_are_read_in_turn() -> None:
    segments = [Segment(0, 0, 3), Segment(1, 5, 6), Segment(2, 0, 2)]
    order = list(epoch_order(segments, 0, 0, Consumer(0, 1), open_shards=2, shuffle_buffer=0))
    assert order == [(0, 0), (1, 5), (0, 1), (0, 2), (2, 0), (2, 1)]


def test_a_shard_is_announced_before_its_first_address() -> None:
    announced: list[int] = []
    for shard, _ in epoch_order(
        [Segment(shard, 0, 3) for shard in range(6)], 0, 0, Consumer(0, 1), 2, 4, on_open=announced.append
    ):
        assert shard in announced
    assert announced == list(range(6))


@pytest.mark.parametrize(("open_shards", "shuffle_buffer", "published"), [(1, 1000, 0.37), (8, 1000, 0.11)])
def test_mixing_is_as_good_as_measured_elsewhere(open_shards: int, shuffle_buffer: int, published: float) -> None:
    """P(two samples of a batch of 32 from one shard), 64 shards of 1000, as simulated independently in
    shared/reference/ecosystem.md, section 3.2; chance alone gives 0.016."""
    assert same_shard_probability(open_shards, shuffle_buffer) == pytest.approx(published, rel=0.2)


def test_turns_alone_put_two_of_each_of_16_shards_into_a_batch_of_32() -> None:
    assert same_shard_probability(open_shards=16, shuffle_buffer=0) == pytest.approx(1 / 31)


def same_shard_probability(open_shards: int, shuffle_buffer: int) -> float:
    order = order_of([1000] * 64, open_shards=open_shards, shuffle_buffer=shuffle_buffer)
    shards = np.array([shard for shard, _ in order]).reshape(-1, 32)
    equal = (shards[:, :, None] == shards[:, None, :]).sum((1, 2)) - 32
    return float(equal.mean() / (32 * 31))

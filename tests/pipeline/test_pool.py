"""The pool: blocks are permuted, nothing is lost, the state is exact, work is spread."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torchdata.nodes import BaseNode

from synthpipe.errors import StreamError
from synthpipe.pipeline.patches import Patches
from synthpipe.pipeline.pool import PatchPool
from synthpipe.pipeline.source import USED, Record
from synthpipe.pipeline.tally import FILTERED, Tally, describe


class Numbers(BaseNode[Record]):
    """Records of ``width`` tiles numbered upwards; every fifth record is empty."""

    def __init__(self, records: int | None = None, width: int = 3) -> None:
        super().__init__()
        self._records, self._width = records, width
        self.pulled = 0

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        super().reset(initial_state)
        self._at = 0 if initial_state is None else initial_state["at"]

    def get_state(self) -> dict[str, Any]:
        return {"at": self._at}

    def next(self) -> Record:
        if self._at == self._records:
            raise StopIteration
        at, self._at = self._at, self._at + 1
        self.pulled += 1
        values = [] if at % 5 == 4 else list(range(at * self._width, (at + 1) * self._width))
        return record(0, **{USED: (at + 1) * self._width}) | {"seed": torch.tensor(values)}


def two_patches_each(record: Record, tally: Tally) -> Patches:
    values = record["seed"]
    return Patches({"gt": values.repeat_interleave(2).float()}, {"gt_path": [f"p{value}" for value in values]}, 2)


def make_pool(source: Numbers, pool: int, drop_last: bool = False, limit: int | None = None) -> PatchPool:
    return PatchPool(
        source, two_patches_each, lambda state: Tally(100, 0.01, state),
        batch_size=4, pool=pool, seed=3, drop_last=drop_last, limit=limit,
    )  # fmt: skip


def values_of(items: list[dict[str, Any]]) -> list[int]:
    return [int(value) for item in items for value in item["batch"]["gt"]]


EXPECTED = Counter({value: 2 for at in range(23) if at % 5 != 4 for value in range(3 * at, 3 * at + 3)})


@pytest.mark.parametrize("pool", [0, 1, 6, 20, 1000])
def test_every_patch_comes_out_once_beside_its_path(pool: int) -> None:
    items = list(make_pool(Numbers(23), pool))
    assert Counter(values_of(items)) == EXPECTED
    assert [len(item["batch"]["gt"]) for item in items[:-1]] == [4] * (len(items) - 1)
    for item in items:
        assert item["batch"]["gt_path"] == [f"p{int(value)}" for value in item["batch"]["gt"]]


def test_a_pool_mixes_within_blocks_and_without_one_order_is_kept() -> None:
    plain = values_of(list(make_pool(Numbers(23), 0)))
    assert plain == sorted(plain)
    mixed = values_of(list(make_pool(Numbers(23), 24)))
    assert mixed != plain
    # the first block: four records of six patches
    assert Counter(mixed[:24]) == Counter(plain[:24])
    assert mixed[:24] != plain[:24]
    # neighbours in the pool seldom are twins from one tile: 1 of 23 by chance, all of them without
    twins = sum(a == b for a, b in itertools.pairwise(mixed))
    assert twins < 20
    assert sum(a == b for a, b in itertools.pairwise(plain)) == len(plain) // 2


def test_blocks_are_mixed_differently() -> None:
    items = values_of(list(make_pool(Numbers(None), 24, limit=24)))
    first, second = items[:24], items[24:48]
    assert [sorted(first).index(v) for v in first] != [sorted(second).index(v) for v in second]


def test_a_short_last_batch_by_option() -> None:
    sizes = [len(item["batch"]["gt"]) for item in make_pool(Numbers(3), 0)]
    assert sizes == [4, 4, 4, 4, 2]
    assert [len(item["batch"]["gt"]) for item in make_pool(Numbers(3), 0, drop_last=True)] == [4, 4, 4, 4]


@pytest.mark.parametrize("pool", [0, 10, 24])
def test_state_is_exact_after_every_batch(pool: int) -> None:
    node = make_pool(Numbers(23), pool)
    states, items = [node.state_dict()], []
    for item in node:
        items.append(item)
        states.append(node.state_dict())
    for place, state in enumerate(states[:-1]):
        resumed = make_pool(Numbers(23), pool)
        resumed.reset(state)
        rest = list(resumed)
        assert values_of(rest) == values_of(items[place:])
        assert [item["counts"] for item in rest] == [item["counts"] for item in items[place:]]


def test_the_limit_holds_over_a_resume() -> None:
    node = make_pool(Numbers(None), 10, limit=7)
    for _ in range(3):
        next(node)
    resumed = make_pool(Numbers(None), 10, limit=7)
    resumed.reset(node.state_dict())
    assert len(list(resumed)) == 4


def test_work_on_the_next_block_is_spread_over_batches() -> None:
    source = Numbers()
    node = make_pool(source, 120)
    next(node)
    pulls = []
    for _ in range(90):
        before = source.pulled
        next(node)
        pulls.append(source.pulled - before)
    # a record gives six patches and a batch takes four; every fifth record is empty
    assert max(pulls) <= 3


def test_emitted_batches_share_no_memory() -> None:
    items = [next(node) for node in [make_pool(Numbers(), 24)] for _ in range(6)]
    before = [item["batch"]["gt"].clone() for item in items]
    items[0]["batch"]["gt"].zero_()
    assert all(torch.equal(item["batch"]["gt"], was) for item, was in zip(items[1:], before[1:], strict=True))


def record(reader: int, epoch: int = 0, source: int = 0, **counts: int) -> Record:
    return {"reader": reader, "epoch": epoch, "source": source, "counts": counts, "given_up": {}, "example": "a.png"}


def test_a_tally_adds_readers_and_keeps_earlier_passes() -> None:
    tally = Tally(1000, 0.5)
    tally.note(record(0, used=5, too_small=1))
    tally.note(record(1, used=4))
    tally.note(record(0, used=9, too_small=2))
    assert tally.counts() == {"used": 13, "too_small": 2}
    tally.note(record(0, epoch=1, source=1, used=1))
    assert tally.counts() == {"used": 14, "too_small": 2}
    again = Tally(1000, 0.5, tally.state_dict())
    assert again.counts() == tally.counts()
    again.note(record(0, epoch=1, source=1, used=2))
    assert again.counts() == {"used": 15, "too_small": 2}


def test_a_tally_gives_up_above_the_share_of_an_epoch() -> None:
    tally = Tally(1000, 0.01)
    tally.note(record(0, used=0, truncated=6, too_small=4))
    with pytest.raises(StreamError, match=r"11 of the 11 read so far \(truncated 7, too_small 4\).*for example a\.png"):
        tally.note(record(0, used=0, truncated=7, too_small=4))


def test_the_allowance_grows_with_the_epochs() -> None:
    tally = Tally(1000, 0.01)
    tally.note(record(0, epoch=1, used=1980, truncated=20))
    with pytest.raises(StreamError, match="21 of the 2001"):
        tally.note(record(0, epoch=1, used=1980, truncated=21))


def test_one_bad_image_in_a_small_corpus_is_no_reason_to_stop() -> None:
    Tally(20, 0.01).note(record(0, used=3, truncated=1))
    with pytest.raises(StreamError, match="2 of the 5"):
        Tally(20, 0.01).note(record(0, used=3, truncated=2))
    with pytest.raises(StreamError, match="1 of the 4"):
        Tally(20, 0.0).note(record(0, used=3, truncated=1))


def test_what_a_filter_drops_is_counted_and_not_bad() -> None:
    tally = Tally(100, 0.01)
    tally.lose(50, FILTERED)
    assert tally.counts() == {"used": 0, "filtered": 50}
    with pytest.raises(StreamError, match="not_finite 2"):
        tally.lose(2, "not_finite")


def test_describe_puts_the_most_frequent_first() -> None:
    assert describe({"a": 1, "b": 3, "c": 1}) == "b 3, a 1, c 1"
    assert describe({}) == "none"

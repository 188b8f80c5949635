"""The loader against prefetchers that ask ahead, ask again and drop what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthpipe.basicsr_plugin.loader import SERIAL, StreamLoader
from synthpipe.errors import StreamError


class Counting:
    """A stream of whole numbers whose state is the next one."""

    def __init__(self) -> None:
        self.next = 0
        self.closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            self.next += 1
            yield {"value": self.next - 1}

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]

    def close(self) -> None:
        self.closed = True


class Short(Counting):
    """Ends after two batches."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return islice(super().__iter__(), 2)


def train(loader: StreamLoader, steps: int, lookahead: int, save_every: int) -> tuple[list[int], dict[int, Any]]:
    """BasicSR's loop with a prefetcher that holds ``lookahead`` batches and fills up at construction and reset."""
    values: list[int] = []
    states: dict[int, Any] = {}
    iterator = iter(loader)
    held = list(islice(iterator, lookahead))
    while True:
        iterator = iter(loader)  # reset() at each epoch drops what is held
        held = list(islice(iterator, lookahead))
        while True:
            following = next(iterator, None)
            if following is not None:
                held.append(following)
            if not held:
                break
            batch = held.pop(0)
            loader.mark_trained(batch[SERIAL])
            values.append(batch["value"])
            if loader.trained % save_every == 0:
                states[loader.trained] = loader.state_dict()
            if len(values) == steps:
                return values, states


@settings(deadline=None)
@given(
    epoch_length=st.integers(1, 7), lookahead=st.integers(0, 4), save_every=st.integers(1, 5), steps=st.integers(1, 30)
)
def test_nothing_is_lost_or_repeated(epoch_length: int, lookahead: int, save_every: int, steps: int) -> None:
    loader = StreamLoader(Counting(), epoch_length, save_every)
    values, states = train(loader, steps, lookahead, save_every)
    assert values == list(range(steps))
    for done, state in states.items():
        resumed = StreamLoader(Counting(), epoch_length, save_every)
        resumed.load_state_dict(state)
        assert train(resumed, 5, lookahead, save_every)[0] == list(range(done, done + 5))


def test_an_epoch_cut_by_a_resume_ends_where_it_would_have() -> None:
    loader = StreamLoader(Counting(), epoch_length=5, snapshot_every=1)
    loader.load_state_dict({"trained": 7, "stream": {"next": 7}})
    assert [batch[SERIAL] for batch in loader] == [8, 9, 10]
    assert len(loader) == 5


def test_a_state_that_was_not_kept_is_an_error() -> None:
    loader = StreamLoader(Counting(), epoch_length=10, snapshot_every=4)
    iterator = iter(loader)
    first, _ahead = next(iterator), next(iterator)
    loader.mark_trained(first[SERIAL])
    with pytest.raises(StreamError, match=r"after batch 1 was not kept.*every 4th"):
        loader.state_dict()


def test_a_stream_that_ends_is_an_error() -> None:
    loader = StreamLoader(Short(), epoch_length=10, snapshot_every=4)
    with pytest.raises(StreamError, match=r"ended after 2 batches.*leave out `epochs`"):
        list(loader)


def test_close_closes_the_stream() -> None:
    stream = Counting()
    StreamLoader(stream, 1, 1).close()
    assert stream.closed

"""States of streams: plain values, from JSON, pickle or a checkpoint of the user's."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from synthpipe.errors import StreamError
from synthpipe.pipeline import build_stream
from tests.fuzz.mutation import mutated_tree, parse_plain, write_plain
from tests.fuzz.reader import Reader
from tests.stream_corpus import NoisyHalf, small_options, write_corpus


def prepare(folder: Path) -> Reader:
    """States after some batches of streams with and without readers; of one that loads, two more batches are taken."""
    shards = write_corpus(folder, [5, 4, 6])
    settings = [{}, {"epochs": 2, "drop_last": False}, {"prefetch": 0, "pool": 0}]
    streams = [build_stream(small_options(shards, workers=0, **some), degrade=NoisyHalf()) for some in settings]
    seeds = []
    for number, stream in enumerate(streams):
        seeds.append(write_plain([number, stream.state_dict()]))
        for _ in range(3):
            next(stream)
        seeds.append(write_plain([number, stream.state_dict()]))
        stream.close()

    def read(data: bytes) -> None:
        try:
            given = parse_plain(data)
        except ValueError as error:
            raise StreamError(str(error)) from error
        number, state = given if isinstance(given, list) and len(given) == 2 else (0, given)
        stream = streams[number if type(number) is int and 0 <= number < len(streams) else 0]
        if isinstance(state, dict) and isinstance(state.get("identity"), dict) and "gt_size" in state["identity"]:
            # A state of another version would be refused for its options, and nothing behind them looked at.
            state = {**state, "identity": stream.state_dict()["identity"]}
        stream.load_state_dict(state)
        try:
            for _ in range(2):
                next(stream, None)
        finally:
            stream.close()

    return Reader(seeds, read, (b"None", b"True", b"{}", b"[]", b"-1", b"'version'", b"nan", b"inf", b"1e9"), _mutate)


def _mutate(data: bytes, rng: Random) -> bytes:
    number, state = parse_plain(data)
    kept: Any = state["identity"]
    state = mutated_tree(state, rng)
    if isinstance(state, dict) and rng.random() < 0.8:
        state["identity"] = kept
    return write_plain([number, state])

"""Which sample comes when: a pure function of (seed, epoch, sample counts, consumer).

A *consumer* is one reader process of one rank.  For each epoch the shards are put in a new order, their samples are
laid end to end, and the line is cut into as many equal parts as there are consumers.  So every sample belongs to
exactly one consumer, parts differ by one sample at most, few shards are enough for many workers, and which shards
a consumer sees changes with every epoch.

Inside its part a consumer has ``open_shards`` shards open and takes one sample from each in turn; the addresses pass
through a shuffle buffer.  Only addresses move, so that a position in the epoch is the whole state.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from synthpipe.seeds import sample_seed

__all__ = [
    "Address",
    "Consumer",
    "Segment",
    "consumer_segments",
    "epoch_order",
    "part_bounds",
    "position_of",
    "seen_before",
]

#: (position of the shard in the list of shards, number of the sample in the shard)
Address = tuple[int, int]


@dataclass(frozen=True)
class Consumer:
    """One reader out of ``total``: worker ``index % workers`` of rank ``index // workers``."""

    index: int
    total: int


@dataclass(frozen=True)
class Segment:
    """Samples ``first`` (included) to ``stop`` (excluded) of one shard."""

    shard: int
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


def part_bounds(samples: int, first: int, stop: int, total: int) -> tuple[int, int]:
    """Where the parts of consumers ``first`` to ``stop`` (excluded) of ``total`` begin and end among ``samples``."""
    return samples * first // total, samples * stop // total


def seen_before(epoch: int, samples: int, position: int, consumer: Consumer) -> int:
    """Samples that all consumers have taken before this one, if all are equally fast.

    Args:
        epoch: from 0.
        samples: of the corpus.
        position: how many this consumer has taken in this epoch before.
        consumer: who reads.
    """
    return epoch * samples + position * consumer.total + consumer.index


def consumer_segments(counts: Sequence[int], seed: int, epoch: int, consumer: Consumer) -> list[Segment]:
    """The parts of shards that belong to one consumer in one epoch, in reading order.

    Args:
        counts: number of samples of each shard.
        seed: the stream's seed.
        epoch: from 0.
        consumer: whose part.
    """
    begin, end = part_bounds(sum(counts), consumer.index, consumer.index + 1, consumer.total)
    # A sort by hash is the same in every Python and NumPy, which their permutations do not promise.
    order = sorted(range(len(counts)), key=lambda shard: sample_seed(seed, epoch, f"shard/{shard}"))
    segments, start = [], 0
    for shard in order:
        first, stop = max(begin - start, 0), min(end - start, counts[shard])
        if first < stop:
            segments.append(Segment(shard, first, stop))
        start += counts[shard]
    return segments


def epoch_order(
    segments: Sequence[Segment],
    seed: int,
    epoch: int,
    consumer: Consumer,
    open_shards: int,
    shuffle_buffer: int,
    on_open: Callable[[int], None] | None = None,
) -> Iterator[Address]:
    """All addresses of ``segments``, each once, interleaved and shuffled.

    Args:
        segments: from :func:`consumer_segments`.
        seed: the stream's seed.
        epoch: from 0.
        consumer: who reads.
        open_shards: shards read in turn.
        shuffle_buffer: addresses held back; 0 keeps the interleaved order.
        on_open: told the shard when its first address enters the buffer, well before it leaves it.
    """
    incoming = _interleave(segments, open_shards, on_open)
    if shuffle_buffer < 2:
        yield from incoming
        return
    # Random.random() is guaranteed to repeat in every Python version; randrange and shuffle are not.
    draw = random.Random(sample_seed(seed, epoch, f"buffer/{consumer.index}")).random
    buffer: list[Address] = []
    for address in incoming:
        if len(buffer) < shuffle_buffer:
            buffer.append(address)
            continue
        slot = int(draw() * len(buffer))
        yield buffer[slot]
        buffer[slot] = address
    while buffer:
        slot = int(draw() * len(buffer))
        buffer[slot], buffer[-1] = buffer[-1], buffer[slot]
        yield buffer.pop()


def position_of(
    address: Address,
    counts: Sequence[int],
    seed: int,
    epoch: int,
    total: int,
    open_shards: int,
    shuffle_buffer: int,
) -> tuple[Consumer, int]:
    """Who reads a sample in an epoch, and how many others before it in that epoch.

    Args:
        address: of the sample; it must be one of ``counts``.
        counts: number of samples of each shard.
        seed: the stream's seed.
        epoch: from 0.
        total: consumers.
        open_shards: see :func:`epoch_order`.
        shuffle_buffer: likewise.

    Raises:
        ValueError: there is no such sample.
    """
    for index in range(total):
        consumer = Consumer(index, total)
        segments = consumer_segments(counts, seed, epoch, consumer)
        if any(address[0] == part.shard and part.first <= address[1] < part.stop for part in segments):
            order = epoch_order(segments, seed, epoch, consumer, open_shards, shuffle_buffer)
            return consumer, next(position for position, other in enumerate(order) if other == address)
    raise ValueError(f"no consumer reads sample {address[1]} of shard {address[0]}; the shards hold {list(counts)}")


def _interleave(
    segments: Sequence[Segment], open_shards: int, on_open: Callable[[int], None] | None
) -> Iterator[Address]:
    waiting = deque(segments)
    opened: deque[Iterator[Address]] = deque()
    while waiting or opened:
        while waiting and len(opened) < open_shards:
            segment = waiting.popleft()
            if on_open is not None:
                on_open(segment.shard)
            opened.append(zip(itertools.repeat(segment.shard), range(segment.first, segment.stop), strict=False))
        addresses = opened.popleft()
        address = next(addresses, None)
        if address is not None:
            yield address
            opened.append(addresses)

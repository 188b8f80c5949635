"""``index.json`` beside a shard: what a stream makes of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from random import Random
from typing import Any

from synthpipe.errors import ImageError
from synthpipe.pipeline.plan import Consumer, consumer_segments, epoch_order
from synthpipe.pipeline.stream_corpus import read_corpus
from synthpipe.shards.shard_index import read_index
from synthpipe.shards.shard_reader import ShardReaders
from tests.fuzz.mutation import ODD, mutated_tree
from tests.fuzz.reader import Reader
from tests.stream_corpus import write_tar

TOKENS = (
    *(b"Infinity", b"-Infinity", b"NaN", b"true", b"null", b'"a.tar"', b'"../a.tar"', b'"/etc/passwd"', b'"\\ud800"'),
    *(b'"\\u0000"', b"1e400", b"-1", b"10000001", b"[" * 1000, b'{"shards":' * 500, b'"samples": 3', b'"bytes": 1'),
)
#: Addresses of a corpus that are read.
READ = 50


def prepare(folder: Path) -> Reader:
    """Indexes of one, of two and of a thousand shards; two of these are there."""
    for name in "ab":
        write_tar(folder / f"{name}.tar", [(f"{name}{number}.png", b"x" * 50) for number in range(3)])
    (folder / "sub").mkdir()
    size = (folder / "a.tar").stat().st_size
    entries = [{"name": f"{name}.tar", "samples": 3, "bytes": size, "sha256": "ab" * 32} for name in "ab"]
    seeds = [_index(entries[:1]), _index(entries)]
    seeds.append(_index([{"name": f"{number:04d}.tar", "samples": 1000, "bytes": 1 << 28} for number in range(1000)]))

    def read(data: bytes) -> None:
        (folder / "index.json").write_bytes(data)
        read_index(folder)
        corpus = read_corpus(str(folder))
        readers = ShardReaders(corpus.urls, None, corpus.listed)
        consumer = Consumer(0, 1)
        order = epoch_order(consumer_segments(corpus.counts, 0, 0, consumer), 0, 0, consumer, 4, 10)
        for _, (shard, number) in zip(range(READ), order, strict=False):
            with contextlib.suppress(ImageError):
                readers[shard].read(number)
            readers[shard].beside(number)
        readers.close()

    return Reader(seeds, read, TOKENS, _mutate)


def _index(entries: list[dict[str, Any]]) -> bytes:
    samples = sum(entry["samples"] for entry in entries)
    head = {"format": "synthpipe-shards", "version": 1, "samples": samples, "bytes": 1}
    return json.dumps(head | {"shards": entries}, indent=1).encode()


def _mutate(data: bytes, rng: Random) -> bytes:
    odd = [value for value in ODD if not isinstance(value, bytes | set | complex)]
    try:
        return json.dumps(mutated_tree(json.loads(data), rng, odd), skipkeys=True).encode()
    except (ValueError, RecursionError):
        return data[: rng.randrange(len(data))]

"""The index of a shard set: what it says, how shards are named, and one that is made by reading headers.

Its file is described in :mod:`synthpipe.shards.index_file`, the names in :mod:`synthpipe.shards.shard_names`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthpipe.errors import ShardError
from synthpipe.shards.index_file import (
    INDEX_NAME,
    PLAN_NAME,
    STATE_FOLDER,
    ShardIndex,
    ShardInfo,
    find_index,
    read_index,
)
from synthpipe.shards.shard_names import expand_urls
from synthpipe.shards.shard_scan import find_key, scan_shard

__all__ = [
    "COMPRESSED_SUFFIXES",
    "INDEX_NAME",
    "PLAN_NAME",
    "STATE_FOLDER",
    "ShardIndex",
    "ShardInfo",
    "build_index",
    "expand_urls",
    "find_index",
    "read_index",
]

#: What such shards hold can be counted, but not read by its address.
COMPRESSED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".zst")


def build_index(urls: str | Path | Sequence[str | Path], *, allow_pipe: bool = False) -> ShardIndex:
    """Count the samples of shards that came without an index, by reading their headers.

    Args:
        urls: anything that :func:`expand_urls` takes.

    Raises:
        ShardError: not a tar file, a member with an absolute or ``..`` name, a shard without images, or a key
            that comes twice (also in parts: the files of a sample must follow each other).
    """
    names = expand_urls(urls, allow_pipe=allow_pipe)
    infos, hashes = [], []
    for name in names:
        if name.startswith("pipe:"):
            raise ShardError(f"cannot index {name!r}: only files and URLs can be scanned")
        size, keys = scan_shard(name)
        infos.append(ShardInfo(name, len(keys), size))
        hashes.append(keys)
    _check_unique(names, hashes)
    return ShardIndex(tuple(infos))


def _check_unique(urls: list[str], hashes: list[np.ndarray]) -> None:
    """Find a key that comes twice; the shards that hold it are read again to name it."""
    every = np.sort(np.concatenate(hashes))
    twice = every[1:][every[1:] == every[:-1]]
    if not len(twice):
        return
    wanted = int(twice[0])
    holders = [url for url, keys in zip(urls, hashes, strict=True) if np.uint64(wanted) in keys]
    name = find_key(holders[0], wanted)
    raise ShardError(f"{len(twice)} duplicate keys: key {name!r} comes more than once, in {' and '.join(holders)}")

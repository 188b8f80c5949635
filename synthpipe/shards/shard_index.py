"""``index.json``: which shards a set has, and how much is in each.

It stands beside the shards::

    {"format": "synthpipe-shards", "version": 1, "samples": 1934, "bytes": 523415040,
     "shards": [{"name": "shard-000000.tar", "samples": 1000, "bytes": 268431360, "sha256": "…"}, …]}

It holds nothing of the machine or the time, so the same shards have the same index wherever they are copied.

What it says is believed until a shard is opened.  A stream then compares ``bytes`` with the file, the number of samples
with those that it finds, and ``sha256`` once in a pass, beside the reading; what differs is told in the log.
``sha256`` is also compared where a run resumes, and where the state of a stream is loaded.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthpipe.errors import ShardError, excerpt, shortened
from synthpipe.files.storage import join_url, read_optional
from synthpipe.json_text import parse_json

__all__ = [
    "INDEX_NAME",
    "LARGEST_INDEX",
    "MOST_SAMPLES",
    "PLAN_NAME",
    "STATE_FOLDER",
    "ShardIndex",
    "ShardInfo",
    "find_index",
    "read_index",
]

INDEX_NAME = "index.json"
#: What `synthpipe shard` keeps beside the shards in order to resume.
STATE_FOLDER = "_state"
#: What a run was begun with; there is an index beside it once all is done.
PLAN_NAME = f"{STATE_FOLDER}/plan.json"
#: Bytes of an index file; a million shards take 180 MB.
LARGEST_INDEX = 1 << 28
#: Samples of one shard; each takes a kilobyte at least.
MOST_SAMPLES = 10_000_000

_FORMAT = "synthpipe-shards"
_VERSION = 1
_LARGEST_SHARD = 1 << 62


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file name (or its URL, where it was counted without an index), and what is in it."""

    name: str
    samples: int
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a set, in order; ``root`` is the folder or URL that names are relative to ("" for none)."""

    shards: tuple[ShardInfo, ...]
    root: str = ""

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def urls(self) -> list[str]:
        """Path or URL of every shard."""
        return [join_url(self.root, shard.name) if self.root else shard.name for shard in self.shards]

    def to_json(self) -> str:
        """The text of ``index.json``."""
        shards = [
            {"name": shard.name, "samples": shard.samples, "bytes": shard.bytes}
            | ({"sha256": shard.sha256} if shard.sha256 else {})
            for shard in self.shards
        ]
        head = {"format": _FORMAT, "version": _VERSION, "samples": self.samples, "bytes": self.bytes}
        return json.dumps(head | {"shards": shards}, indent=1) + "\n"


def read_index(url_or_path: str | Path) -> ShardIndex:
    """Read the index of a folder of shards, or an index file itself.

    Args:
        url_or_path: ``/data/hr``, ``/data/hr/index.json`` or the same behind an fsspec URL.

    Raises:
        ShardError: there is none, it is damaged or too large, or a newer synthpipe wrote it.
    """
    url = str(url_or_path)
    found = find_index(url)
    if found is None:
        raise ShardError(
            f"no shard index at {_index_url(url)!r}; write one with `synthpipe shard`, or name the tar files instead"
        )
    return found


def find_index(url: str) -> ShardIndex | None:
    """As :func:`read_index`; None where there is none."""
    url = _index_url(url)
    data = read_optional(url, LARGEST_INDEX)
    return None if data is None else _parse_index(data, url)


def _index_url(url: str) -> str:
    return url if url.endswith(".json") else join_url(url, INDEX_NAME)


def _parse_index(data: bytes, url: str) -> ShardIndex:
    try:
        content = parse_json(data, LARGEST_INDEX)
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {excerpt(content)}")
        if content["format"] != _FORMAT:
            raise ShardError(
                f"{url}: not a shard index, its format is {excerpt(content['format'])}, expected {_FORMAT!r}"
            )
        version = _whole(content, "version", _LARGEST_SHARD)
        if version > _VERSION:
            raise ShardError(f"{url}: index version {version}, this synthpipe reads up to {_VERSION}; update synthpipe")
        if not isinstance(content["shards"], list):
            raise ValueError(f"expected a list of shards, got {excerpt(content['shards'])}")
        shards = tuple(_parse_shard(entry, url) for entry in content["shards"])
        stated = _whole(content, "samples", _LARGEST_SHARD)
    except (ValueError, KeyError) as error:
        text = shortened(f"{type(error).__name__}: {error}")
        raise ShardError(f"{url}: damaged shard index ({text}); {_REMEDY}") from error
    index = ShardIndex(shards, url.rpartition("/")[0] or ("/" if url.startswith("/") else "."))
    twice = next((name for name, count in Counter(shard.name for shard in shards).items() if count > 1), None)
    if twice is not None:
        raise ShardError(f"{url}: damaged shard index: shard {twice!r} is listed twice; {_REMEDY}")
    if index.samples != stated:
        raise ShardError(f"{url}: damaged shard index: {index.samples} samples listed, {stated} stated; {_REMEDY}")
    return index


_REMEDY = "write the set anew with `synthpipe shard`, or name the tar files, whose samples are then counted"


def _parse_shard(entry: Any, url: str) -> ShardInfo:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object for each shard, got {excerpt(entry)}")
    name, sha256 = entry["name"], entry.get("sha256")
    if not isinstance(name, str) or not (sha256 is None or isinstance(sha256, str)):
        raise ValueError(f"expected texts for name and sha256, got {excerpt([name, sha256])}")
    if not _is_plain_name(name):
        raise ShardError(f"{url}: refused, shard name {excerpt(name)} is not a plain file name")
    samples = _whole(entry, "samples", MOST_SAMPLES)
    if samples < 1:
        raise ShardError(f"{url}: shard {name!r} is listed with {samples} samples, expected at least 1")
    return ShardInfo(name, samples, _whole(entry, "bytes", _LARGEST_SHARD), sha256)


def _whole(values: dict[str, Any], key: str, largest: int) -> int:
    number = values[key]
    # True is a whole number to Python.
    if type(number) is not int or not 0 <= number <= largest:
        raise ValueError(f"expected a whole number from 0 to {largest} for {key!r}, got {excerpt(number)}")
    return number


def _is_plain_name(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return bool(name) and not name.startswith(".") and not any(character in name for character in "/\\\0")

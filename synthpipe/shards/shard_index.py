"""The index of a shard set, and every way to name shards: paths, braces, globs, folders, indexes, URLs.

``index.json`` stands beside the shards::

    {"format": "synthpipe-shards", "version": 1, "samples": 1934, "bytes": 523415040,
     "shards": [{"name": "shard-000000.tar", "samples": 1000, "bytes": 268431360, "sha256": "…"}, …]}

It holds nothing of the machine or the time, so the same shards have the same index wherever they are copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.shardlists import expand_urls as webdataset_expand

from synthpipe.errors import OptionError, ShardError
from synthpipe.files.storage import glob_urls, is_local, join_url, read_optional
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
    "read_index",
]

INDEX_NAME = "index.json"
#: What `synthpipe shard` keeps beside the shards in order to resume.
STATE_FOLDER = "_state"
#: What a run was begun with; there is an index beside it once all is done.
PLAN_NAME = f"{STATE_FOLDER}/plan.json"
#: What such shards hold can be counted, but not read by its address.
COMPRESSED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".zst")

_FORMAT = "synthpipe-shards"
_VERSION = 1
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ShardInfo:
    """One shard: its file name (or, from :func:`build_index`, its URL), and what is in it."""

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
        ShardError: there is none, it is damaged, or a newer synthpipe wrote it.
    """
    url = str(url_or_path)
    if not url.endswith(".json"):
        url = join_url(url, INDEX_NAME)
    data = read_optional(url)
    if data is None:
        raise ShardError(f"no shard index at {url!r}; write one with `synthpipe shard`, or name the tar files instead")
    return _parse_index(data, url)


def expand_urls(shards: str | Path | Sequence[str | Path], *, allow_pipe: bool = False) -> list[str]:
    """Every shard that ``shards`` names, in order.

    Args:
        shards: a tar file, a brace pattern (``/data/hr-{000000..000511}.tar``), a glob, a folder (its index, or
            without one its tar files in sorted order), an index file, any of these behind an fsspec URL, or a
            list of them.
        allow_pipe: let ``pipe:COMMAND`` through, which runs a shell.

    Raises:
        OptionError: ``pipe:`` without ``allow_pipe``, an unbalanced brace, a shard named twice.
        ShardError: a folder or pattern without shards, an index that cannot be read, a run of
            `synthpipe shard` that has not finished.
    """
    entries = [shards] if isinstance(shards, str | Path) else list(shards)
    urls = [url for entry in entries for text in _expand_braces(str(entry)) for url in _expand_one(text, allow_pipe)]
    if not urls:
        raise ShardError(f"no shards named: expected a tar file, pattern, folder, index or URL, got {shards!r}")
    if len(set(urls)) < len(urls):
        twice = next(url for position, url in enumerate(urls) if url in set(urls[:position]))
        raise OptionError(f"shard {twice!r} is named twice; its samples would come twice, with the same keys")
    return urls


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


def _parse_index(data: bytes, url: str) -> ShardIndex:
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise ShardError(f"{url}: not a shard index, its format is {content['format']!r}, expected {_FORMAT!r}")
        if content["version"] > _VERSION:
            version = content["version"]
            raise ShardError(f"{url}: index version {version}, this synthpipe reads up to {_VERSION}; update synthpipe")
        shards = tuple(_parse_shard(entry, url) for entry in content["shards"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{url}: damaged shard index ({type(error).__name__}: {error})") from error
    index = ShardIndex(shards, url.rpartition("/")[0] or ("/" if url.startswith("/") else "."))
    if len({shard.name for shard in shards}) < len(shards) or index.samples != content.get("samples"):
        raise ShardError(f"{url}: damaged shard index: {index.samples} samples listed, {content.get('samples')} stated")
    return index


def _parse_shard(entry: dict[str, Any], url: str) -> ShardInfo:
    info = ShardInfo(str(entry["name"]), int(entry["samples"]), int(entry["bytes"]), entry.get("sha256"))
    if "/" in info.name or "\\" in info.name or info.name.startswith("."):
        raise ShardError(f"{url}: refused, shard name {info.name!r} is not a plain file name")
    if info.samples < 1:
        raise ShardError(f"{url}: shard {info.name!r} is listed with {info.samples} samples, expected at least 1")
    return info


def _expand_braces(text: str) -> list[str]:
    if is_local(text) and Path(text).exists():
        return [text]
    if "{" not in text:
        return [text]  # also spares fsspec's chains (`simplecache::s3://…`), which WebDataset would cut at the colons
    try:
        return list(webdataset_expand(text))
    except ValueError as error:
        raise OptionError(f"shards {text!r}: unbalanced braces, expected a pattern like hr-{{000..511}}.tar") from error


def _expand_one(text: str, allow_pipe: bool) -> list[str]:
    if text.startswith("pipe:"):
        if not allow_pipe:
            raise OptionError(f"shards {text!r}: 'pipe:' runs a shell command; set allow_pipe: true if you mean it")
        return [text]
    if text.endswith(_TAR_SUFFIXES) and not re.search(r"[*?\[]", text):
        return [text]
    if text.endswith(".json"):
        return read_index(text).urls()
    if re.search(r"[*?\[]", text) and not (is_local(text) and Path(text).exists()):
        return _found(glob_urls(text), text)
    return _expand_folder(text)


def _expand_folder(folder: str) -> list[str]:
    data = read_optional(join_url(folder, INDEX_NAME))
    if data is not None:
        return _parse_index(data, join_url(folder, INDEX_NAME)).urls()
    if read_optional(join_url(folder, PLAN_NAME)) is not None:
        raise ShardError(
            f"{folder}: `synthpipe shard` has not finished here; run it again to complete it, or name the tar files"
        )
    return _found(glob_urls(join_url(folder, "*.tar")), folder)


def _found(urls: list[str], text: str) -> list[str]:
    if not urls:
        found = ""
        if is_local(text) and not re.search(r"[*?\[]", text):
            path = Path(text).absolute()
            found = f", found no {str(path)!r}" if not path.exists() else "; `synthpipe shard` makes them of images"
        raise ShardError(
            f"no shards at {text!r}: expected tar files, or a folder with tar files or {INDEX_NAME}{found}"
        )
    return urls


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

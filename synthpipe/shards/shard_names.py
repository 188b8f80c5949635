"""Every way to name shards: paths, braces, globs, folders, indexes, URLs; each shard once, and its samples counted."""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from synthpipe.errors import OptionError, ShardError, counted, excerpt
from synthpipe.files.storage import glob_urls, is_known_protocol, is_local, join_url, local_path, read_optional
from synthpipe.shards.brace_pattern import MOST_SHARDS, expand_braces
from synthpipe.shards.shard_index import INDEX_NAME, PLAN_NAME, ShardIndex, ShardInfo, find_index, read_index
from synthpipe.shards.shard_scan import find_key, scan_shard

__all__ = ["COMPRESSED_SUFFIXES", "SHARD_SUFFIXES", "build_index", "expand_urls", "listed_shards"]

#: What such shards hold can be counted, but not read by its address.
COMPRESSED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".zst")

_log = logging.getLogger(__name__)

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
#: A local file with one of these is shards or their index; any other file is none.
SHARD_SUFFIXES = (*_TAR_SUFFIXES, *COMPRESSED_SUFFIXES, ".json")
_GLOB = re.compile(r"[*?\[]")
_PLAIN_URL = re.compile(r"(?:\w+::)*[a-z][a-z0-9+]*://[a-z0-9_.-]+(?:/(?![.])[^/%?#\s]+)+\Z")
_USUAL_PORTS = {("http", 80), ("https", 443)}


def expand_urls(shards: str | Path | Sequence[str | Path], *, allow_pipe: bool = False) -> list[str]:
    """Every shard that ``shards`` names, in order.

    Args:
        shards: a tar file, a brace pattern (``/data/hr-{000000..000511}.tar``), a glob, a folder (its index, or
            without one its tar files in sorted order), an index file, any of these behind an fsspec URL, or a
            list of them.
        allow_pipe: let ``pipe:COMMAND`` through, which runs a shell.

    Raises:
        OptionError: ``pipe:`` without ``allow_pipe``, an unbalanced brace, a pattern of too many names, one shard under
            two names (spellings, links).
        ShardError: a folder or pattern without shards, an index that cannot be read, a run of
            `synthpipe shard` that has not finished.
    """
    entries = [shards] if isinstance(shards, str | Path) else list(shards)
    urls: list[str] = []
    for entry in entries:
        for text in _expand_braces(str(entry)):
            urls += _expand_one(text, allow_pipe)
            if len(urls) > MOST_SHARDS:
                raise OptionError(f"shards {excerpt(str(entry))}: more than MOST_SHARDS ({MOST_SHARDS}) shards in all")
    if not urls:
        raise ShardError(f"no shards named: expected a tar file, pattern, folder, index or URL, got {shards!r}")
    _check_once(urls)
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


def listed_shards(urls: Iterable[str], instead: str) -> dict[str, ShardInfo]:
    """What the indexes beside shards say of them, by URL; an index that cannot be read is told of.

    Args:
        urls: of :func:`expand_urls`.
        instead: what the log says is done without an index.

    Raises:
        ShardError: a protocol that is not known or not installed.
    """
    wanted = [url for url in urls if not url.startswith("pipe:")]
    known: dict[str, ShardInfo] = {}
    for folder in sorted({url.rpartition("/")[0] or "." for url in wanted}):
        try:
            index = find_index(folder)
        except ShardError as error:
            if "://" in folder and not is_known_protocol(folder):
                raise
            _log.warning("%s; %s", error, instead)
            continue
        if index is not None:
            known |= {shard.name: shard for shard in index.shards} | dict(zip(index.urls(), index.shards, strict=True))
    return {url: known[url] for url in wanted if url in known}


def _check_once(urls: Iterable[str]) -> None:
    """Refuse a shard that is named twice, however it is spelt."""
    names: dict[object, str] = {}
    for url in urls:
        first = names.setdefault(_identity(url), url)
        if first is not url:
            ways = "is named twice" if first == url else f"and {first!r} are the same file"
            raise OptionError(f"shard {url!r} {ways}; its samples would come twice, with the same keys")


def _identity(url: str) -> object:
    """The same for every name of one shard: links and hard links, ``./``, ``//``, ``%7E``, ``file://``, ``HTTP://``."""
    if url.startswith("pipe:"):
        return url
    if is_local(url):
        path = local_path(url)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return os.path.abspath(path)
        # Not every network file system has numbers of its own for its files.
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    # Most need no look at their parts, and there may be hundreds of thousands.
    return url if _PLAIN_URL.match(url) else _plain_url(url)


def _plain_url(url: str) -> str:
    """The one spelling that matches ``_PLAIN_URL``, with port and query where they matter."""
    chain, colons, plain = url.rpartition("::")
    try:
        parts = urlsplit(plain)
        port = "" if parts.port is None or (parts.scheme, parts.port) in _USUAL_PORTS else f":{parts.port}"
    except ValueError:
        return url
    host = (parts.hostname or parts.netloc).lower()
    # Two leading slashes would stay.
    path = posixpath.normpath("/" + unquote(parts.path).lstrip("/"))
    return f"{chain}{colons}{parts.scheme}://{host}{port}{path}" + (f"?{parts.query}" if parts.query else "")


def _expand_braces(text: str) -> list[str]:
    if is_local(text) and _exists(text):
        return [text]
    if "{" not in text:
        return [text]  # also spares fsspec's chains (`simplecache::s3://…`), which WebDataset would cut at the colons
    return expand_braces(text)


def _expand_one(text: str, allow_pipe: bool) -> list[str]:
    if text.startswith("pipe:"):
        if not allow_pipe:
            raise OptionError(f"shards {text!r}: 'pipe:' runs a shell command; set allow_pipe: true if you mean it")
        return [text]
    if text.endswith(_TAR_SUFFIXES) and not _GLOB.search(text):
        return [text]
    if text.endswith(".json"):
        return _listed(text)
    if _GLOB.search(text) and not (is_local(text) and _exists(text)):
        return _found(glob_urls(text), text)
    return _expand_folder(text)


def _expand_folder(folder: str) -> list[str]:
    index = find_index(join_url(folder, INDEX_NAME))
    if index is not None:
        _tell_of_unlisted(folder, {shard.name for shard in index.shards})
        return index.urls()
    if read_optional(join_url(folder, PLAN_NAME)) is not None:
        raise ShardError(
            f"{folder}: `synthpipe shard` has not finished here; run it again to complete it, or name the tar files"
        )
    return _found(glob_urls(join_url(folder, "*.tar")), folder)


def _listed(index_url: str) -> list[str]:
    index = read_index(index_url)
    _tell_of_unlisted(index.root, {shard.name for shard in index.shards})
    return index.urls()


def _tell_of_unlisted(folder: str, listed: set[str]) -> None:
    """Tar files beside an index that are not in it are not read; behind URLs nobody looks."""
    if not is_local(folder):
        return
    try:
        names = os.listdir(local_path(folder))
    except OSError:
        return
    others = sorted(name for name in names if name.endswith(".tar") and not name.startswith(".") and name not in listed)
    if others:
        _log.warning(
            "%s: %s not in its %s and not read, as %r; name them, or remove the index to read all",
            folder,
            counted(len(others), "tar file"),
            INDEX_NAME,
            others[0],
        )


def _found(urls: list[str], text: str) -> list[str]:
    if not urls:
        found = ""
        if is_local(text) and not _GLOB.search(text):
            path = Path(text).absolute()
            found = f", found no {str(path)!r}" if not path.exists() else "; `synthpipe shard` makes them of images"
            if path.is_file():
                found = ", found a file that is no tar"
        raise ShardError(
            f"no shards at {excerpt(text)}: expected tar files, or a folder with tar files or {INDEX_NAME}{found}"
        )
    return urls


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    # A name that is longer than any can be.
    except OSError:
        return False


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

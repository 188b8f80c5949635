"""What a tar shard holds, from its headers alone: sizes are stepped over, nothing is decoded."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys

from synthpipe.errors import ShardError
from synthpipe.files.storage import open_url

__all__ = ["IMAGE_SUFFIXES", "check_member_name", "find_key", "scan_shard"]

#: Suffixes of shard members that hold the image.
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "tif", "tiff")

# What WebDataset passes over.
_META_MEMBER = re.compile(r"__[^/]*__($|/)")


def check_member_name(name: str, shard: str) -> None:
    """Refuse names that point outside of a folder they would be unpacked to.

    Raises:
        ShardError: an absolute name, or one with a ``..`` part.
    """
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise ShardError(f"{shard}: refused, its member {name!r} is an absolute name or has a '..' part")


def scan_shard(url: str) -> tuple[int, NDArray[np.uint64]]:
    """Bytes of a shard, and a 64-bit hash of the key of each sample: 10 M keys as text would not fit in memory.

    Raises:
        ShardError: not a whole tar file, a member with an absolute or ``..`` name, two members of one name, no images.
    """
    hashes, images = [], 0
    with open_url(url) as handle:
        if not handle.seekable():
            raise ShardError(f"cannot index {url!r}: the server does not serve parts of files; copy the shard first")
        for key, suffixes in _samples_in(handle, url):
            images += any(suffix.rsplit(".", 1)[-1] in IMAGE_SUFFIXES for suffix in suffixes)
            hashes.append(_hash_key(key))
        size = handle.seek(0, os.SEEK_END)
    if not images:
        raise ShardError(f"{url}: a shard without images ({', '.join(IMAGE_SUFFIXES)}); remove it from the list")
    return size, np.array(hashes, np.uint64)


def find_key(url: str, hashed: int) -> str:
    """The key in a shard whose hash :func:`scan_shard` gave as ``hashed``."""
    with open_url(url) as handle:
        return next(key for key, _ in _samples_in(handle, url) if _hash_key(key) == hashed)


def _samples_in(handle: IO[bytes], url: str) -> Iterator[tuple[str, set[str]]]:
    """(key, suffixes) of every sample, grouped by WebDataset's own code."""
    files = ({"fname": name, "data": b"", "__url__": url} for name in _members(handle, url))
    try:
        for sample in group_by_keys(files):
            yield sample["__key__"], {suffix for suffix in sample if not suffix.startswith("__")}
    except ValueError as error:
        raise ShardError(f"{url}: two members share key and suffix ({error.args[0]}); names must be unique") from error


def _members(handle: IO[bytes], url: str) -> Iterator[str]:
    """Names of the regular files that WebDataset would read; only headers are looked at."""
    try:
        with tarfile.open(fileobj=handle, mode="r:*") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it keeps every header
                check_member_name(member.name, url)
                if member.isreg() and not _META_MEMBER.match(member.name):
                    yield member.name
            # The library takes a header that is damaged or cut off for the end; the true end is a block of zeros.
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"damaged or cut off at byte {tar.offset}")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(f"{url}: not a readable tar file ({type(error).__name__}: {error})") from error


def _hash_key(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")

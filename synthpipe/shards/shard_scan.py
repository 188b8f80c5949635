"""What a tar shard holds, from its headers alone: sizes are stepped over, nothing is decoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from synthpipe.errors import ShardError
from synthpipe.files.storage import open_url
from synthpipe.shards.tar_walk import (
    IMAGE_SUFFIXES,
    TarMember,
    TarSample,
    check_member_name,
    group_samples,
    walk_members,
)

__all__ = ["find_key", "scan_shard"]


def scan_shard(url: str) -> tuple[int, NDArray[np.uint64]]:
    """Bytes of a shard, and a 64-bit hash of the key of each sample: 10 M keys as text would not fit in memory.

    Args:
        url: a tar file, also one compressed with gzip, bzip2 or xz.

    Returns:
        The size of the file, and the hashes ``(N,)`` in the shard's order.

    Raises:
        ShardError: not a whole tar file, a member with an absolute or ``..`` name, two members of one name, a sparse
            file, no images.
    """
    hashes, images = [], 0
    with open_url(url) as handle:
        if not handle.seekable():
            raise ShardError(f"cannot index {url!r}: the server does not serve parts of files; copy the shard first")
        for sample in _samples_in(handle, url):
            images += sample.image is not None
            hashes.append(_hash_key(sample.key))
        size = handle.seek(0, os.SEEK_END)
    if not images:
        raise ShardError(f"{url}: a shard without images ({', '.join(IMAGE_SUFFIXES)}); remove it from the list")
    return size, np.array(hashes, np.uint64)


def find_key(url: str, hashed: int) -> str:
    """The key in a shard whose hash :func:`scan_shard` gave as ``hashed``.

    Raises:
        ShardError: the shard cannot be read any more.
        StopIteration: there is no such key.
    """
    with open_url(url) as handle:
        return next(sample.key for sample in _samples_in(handle, url) if _hash_key(sample.key) == hashed)


def _samples_in(handle: IO[bytes], url: str) -> Iterator[TarSample]:
    """Every sample; one that cannot be read by its address is refused, one without an image is not."""
    try:
        for sample in group_samples(_members_in(_decompressed(handle), url)):
            if sample.problem in ("truncated_shard", "unreadable_shard"):
                raise ShardError(f"{url}: not a readable tar file: {sample.detail}")
            if sample.problem not in (None, "missing_image"):
                raise ShardError(f"{url}: {sample.detail}")
            yield sample
    except ShardError:
        raise
    # Decompressors and remote file systems raise errors of their own.
    except Exception as error:
        raise ShardError(f"{url}: not a readable tar file ({type(error).__name__}: {error})") from error


def _members_in(file: IO[bytes], url: str) -> Iterator[TarMember]:
    for member in walk_members(file):
        # Also of files that belong to no sample.
        check_member_name(member.name, url)
        yield member


def _decompressed(handle: IO[bytes]) -> IO[bytes]:
    start = handle.read(6)
    handle.seek(0)
    # Some builds of Python lack one or the other.
    if start.startswith(b"\x1f\x8b"):
        import gzip

        return cast(IO[bytes], gzip.open(handle))
    if start.startswith(b"BZh"):
        import bz2

        return cast(IO[bytes], bz2.open(handle))
    if start == b"\xfd7zXZ\0":
        import lzma

        return cast(IO[bytes], lzma.open(handle))
    return handle


def _hash_key(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")

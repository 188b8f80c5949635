"""What a stream must know of its shards before it reads them: where they are, how many samples, how large images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from synthpipe.errors import ImageError, ShardError, StreamError, counted
from synthpipe.files.byte_source import is_local, open_source
from synthpipe.files.image_size import image_size
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.shards.shard_index import ShardInfo
from synthpipe.shards.shard_names import COMPRESSED_SUFFIXES, expand_urls, listed_shards
from synthpipe.shards.shard_reader import Listed, ShardReader
from synthpipe.shards.tar_walk import TarSample, walk_samples

__all__ = ["Corpus", "check_ranks", "probe_sides", "read_corpus"]

_log = logging.getLogger(__name__)

_SCAN_THREADS = 8
# Spread over the corpus, because folders of one size each tend to follow each other.
_PROBED_SHARDS = 6
_PROBED_IMAGES = 8


@dataclass(frozen=True)
class Corpus:
    """Shards in order, and the number of samples in each."""

    urls: tuple[str, ...]
    counts: tuple[int, ...]
    #: What the index says of each shard; None where its samples were counted.
    listed: tuple[Listed | None, ...] = ()
    #: SHA-256 of each shard by its index; none where one of them has no index.
    checksums: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Samples in all shards."""
        return sum(self.counts)

    def fingerprint(self) -> str:
        """The same for the same shards wherever they lie."""
        lines = [f"{url.rsplit('/', 1)[-1]} {count}" for url, count in zip(self.urls, self.counts, strict=True)]
        # A shard's name need not be UTF-8.
        return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

    def checksum(self) -> str | None:
        """The same for the same bytes in the same order, as the indexes have it; None where there is no index."""
        if not self.checksums:
            return None
        return hashlib.blake2b("\n".join(self.checksums).encode(), digest_size=16).hexdigest()


def read_corpus(shards: str | Sequence[str], *, allow_pipe: bool = False, spool_dir: str | None = None) -> Corpus:
    """Find the shards and their sample counts: from the index beside them, else by a scan of the headers.

    What is lost shows in the stream's counts: a shard that cannot be read is taken to hold as many samples as the
    others do on average, and one without an index that is damaged further on has one sample more than can be found.

    Args:
        shards: anything that :func:`synthpipe.shards.shard_names.expand_urls` takes.
        allow_pipe: let ``pipe:COMMAND`` through, which runs a shell.
        spool_dir: folder for copies of remote shards while they are scanned.

    Raises:
        OptionError: ``pipe:`` that is not allowed, or a compressed shard.
        ShardError: no shards, or none that can be read.
    """
    urls = expand_urls(shards if isinstance(shards, str) else list(shards), allow_pipe=allow_pipe)
    for url in urls:
        if url.endswith(COMPRESSED_SUFFIXES):
            raise ShardError(f"{url}: compressed shards have no addresses to read by; unpack it to a plain .tar")
    indexed = listed_shards(urls, "counting samples by a scan instead")
    known = {url: shard.samples for url, shard in indexed.items()}
    unknown = [url for url in urls if url not in known]
    scanned = _scan_all(unknown, spool_dir)
    found = {**known, **{url: count for url, count in scanned.items() if count is not None}}
    if not any(found.values()):
        raise ShardError(
            f"no samples in {counted(len(urls), 'shard')}, the first {urls[0]!r}; are these tar files of images?"
        )
    average = max(round(sum(found.values()) / len(found)), 1)
    checksums = tuple(shard.sha256 for url in urls if (shard := indexed.get(url)) is not None and shard.sha256)
    counts = tuple(found.get(url, average) for url in urls)
    listed = tuple(map(_listed, map(indexed.get, urls)))
    return Corpus(tuple(urls), counts, listed, checksums if len(checksums) == len(urls) else ())


def _listed(shard: ShardInfo | None) -> Listed | None:
    return None if shard is None else Listed(shard.samples, shard.bytes, shard.sha256)


def probe_sides(corpus: Corpus, spool_dir: str | None = None, max_pixels: int = MAX_PIXELS) -> int | None:
    """The shortest side among a few images of a few shards, from their headers; None if none is readable."""
    sides = []
    for shard in _spread(len(corpus.urls), _PROBED_SHARDS):
        local = is_local(corpus.urls[shard])
        reader = ShardReader(corpus.urls[shard], spool_dir)
        try:
            # The last image of a remote shard would have to wait for all the others.
            numbers = _spread(corpus.counts[shard], _PROBED_IMAGES) if local else range(_PROBED_IMAGES)
            sides += [min(size) for size in _sizes(reader, numbers, max_pixels)]
        finally:
            reader.close()
        if sides and not local:
            break
    return min(sides, default=None)


def _spread(size: int, count: int) -> Sequence[int]:
    """Up to ``count`` of ``range(size)``, evenly spaced."""
    return sorted({size * place // count for place in range(count)}) if size else ()


def _sizes(reader: ShardReader, numbers: Sequence[int], max_pixels: int) -> Iterator[tuple[int, int]]:
    for number in numbers:
        try:
            _, data = reader.read(number)
            yield image_size(data, max_pixels)
        except ImageError:
            continue


def _scan_all(urls: Sequence[str], spool_dir: str | None) -> dict[str, int | None]:
    if not urls:
        return {}
    remote = sum(not is_local(url) for url in urls)
    if remote:
        _log.warning(
            "%s without an index, read whole to count samples; see `synthpipe shard`", counted(remote, "remote shard")
        )
    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        return dict(zip(urls, pool.map(lambda url: _scan(url, spool_dir), urls), strict=True))


def _scan(url: str, spool_dir: str | None) -> int | None:
    """Samples in one shard, and one more where it is damaged; None where it cannot be read at all.

    How many samples lie behind the damage cannot be known, so that the one stands for all of them.
    """
    count = 0
    last: TarSample | None = None
    try:
        source = open_source(url, spool_dir)
        try:
            for sample in walk_samples(source.file()):
                count, last = count + 1, sample
        finally:
            source.close()
    except OSError as error:
        _log.warning("%s: cannot be read: %s", url, error)
        return None
    if last is None:
        _log.warning("%s: an archive without samples", url)
    elif last.problem == "unreadable_shard":
        _log.warning("%s: %s", url, last.detail)
        return None
    elif last.is_damage:
        _log.warning("%s: %s; its first %d samples are used, what may follow is lost", url, last.detail, count - 1)
    return count


def check_ranks(corpus: Corpus, rank: int, world_size: int) -> None:
    """Refuse ranks that are out of range or would have no sample.

    Raises:
        StreamError: with the numbers.
    """
    if not 0 <= rank < world_size:
        raise StreamError(f"rank must be in 0..{world_size - 1} for a world size of {world_size}, got {rank}")
    if corpus.samples < world_size:
        raise StreamError(
            f"{counted(corpus.samples, 'sample')} cannot be split over {world_size} ranks; use fewer ranks"
        )

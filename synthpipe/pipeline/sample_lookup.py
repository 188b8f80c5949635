"""One sample of a stream, found by its name in batches and read again as the stream reads it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from synthpipe.errors import OptionError, StreamError, counted
from synthpipe.files.byte_source import open_source
from synthpipe.files.decode import decode_image
from synthpipe.files.printable import printable
from synthpipe.pipeline.crop import check_size
from synthpipe.pipeline.plan import Address, position_of, seen_before
from synthpipe.pipeline.source import CutTile, SourceSettings, cut_tiles
from synthpipe.shards.shard_reader import ShardReader
from synthpipe.shards.tar_walk import walk_samples

__all__ = ["FoundSample", "Reading", "find_sample", "read_again", "reading_of"]

_SCAN_THREADS = 8
_NAMED = 5
_CROP = re.compile(r"(.+)#(\d+)", re.DOTALL)


@dataclass(frozen=True)
class FoundSample:
    """A sample of the corpus.

    Args:
        address: its shard and its number there.
        key: as batches have it, less the number of its tile.
        path: as ``gt_path`` of batches.
        crop: the tile that was asked for; None: all.
    """

    address: Address
    key: str
    path: str
    crop: int | None = None


@dataclass(frozen=True)
class Reading:
    """When a sample is read: by which rank and worker, after how many of the epoch there, and of the stream on all."""

    rank: int
    worker: int
    position: int
    seen: int


def find_sample(settings: SourceSettings, name: str) -> FoundSample:
    """The one sample of a name: its key, with ``#N`` maybe, the name of its image file, or all of its ``gt_path``.

    The headers of all shards are read, of remote ones all bytes.

    Raises:
        OptionError: none or several samples of this name; says the nearest, or which.
    """
    wanted: list[tuple[str, int | None]] = [(name, None)]
    if settings.crops_per_image > 1 and (match := _CROP.fullmatch(name)):
        wanted.append((match[1], int(match[2])))
    shards = [number for number, url in enumerate(settings.urls) if name.startswith(f"{printable(url)}/")]
    with ThreadPoolExecutor(_SCAN_THREADS) as threads:
        listed = list(threads.map(lambda shard: _listed(settings, shard), shards or range(len(settings.urls))))
    samples = [sample for found, _ in listed for sample in found]
    for text, crop in wanted:
        found = _of_name(samples, text)
        if len(found) > 1:
            more = ", ..." if len(found) > _NAMED else ""
            paths = ", ".join(repr(sample.path) for sample in found[:_NAMED])
            raise OptionError(f"{len(found)} samples are called {text!r}: name one by its gt_path: {paths}{more}")
        if found:
            return _checked(settings, found[0], crop)
    problems = [problem for _, problem in listed if problem is not None]
    near = difflib.get_close_matches(wanted[-1][0], _names(samples), n=1, cutoff=0)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    unread = f"; not read: {counted(len(problems), 'shard')}: {problems[0]}" if problems else ""
    raise OptionError(
        f"no sample is called {name!r} among {len(samples)} of {counted(len(listed), 'shard')}{hint}{unread}"
    )


def reading_of(settings: SourceSettings, address: Address, epoch: int, workers: int, world_size: int) -> Reading:
    """When the stream reads a sample in an epoch; nothing is read for it.

    Args:
        settings: of the stream.
        address: of the sample.
        epoch: from 0.
        workers: reader processes of a rank; 0 counts as 1.
        world_size: ranks.
    """
    readers = max(workers, 1)
    consumer, position = position_of(
        address,
        settings.counts,
        settings.seed,
        epoch,
        world_size * readers,
        settings.open_shards,
        settings.shuffle_buffer,
    )
    seen = seen_before(epoch, sum(settings.counts), position, consumer)
    return Reading(consumer.index // readers, consumer.index % readers, position, seen)


def read_again(
    settings: SourceSettings, sample: FoundSample, epoch: int
) -> tuple[tuple[int, int], Sequence[tuple[int, CutTile]]]:
    """Height and width of the image, and the tiles that an epoch takes of it with their numbers.

    Raises:
        ImageError: the stream skips it for this reason.
        StreamError: the stream leaves it out, by its table of scores.
    """
    shard, number = sample.address
    reader = ShardReader(settings.urls[shard], settings.spool_dir)
    try:
        member, data = reader.read(number)
    finally:
        reader.close()
    path = f"{settings.urls[shard]}/{member.name}"
    if settings.keep is not None and not settings.keep.keeps(member.key, path):
        raise StreamError(f"{sample.path}: the stream leaves it out: `filter` drops it by the table of scores")
    image, _ = decode_image(data, path, alpha=settings.alpha, max_pixels=settings.max_pixels)
    check_size(image, settings.tile, path)
    tiles = enumerate(cut_tiles(settings, image, member.key, epoch))
    return image.shape[:2], [(at, tile) for at, tile in tiles if sample.crop in (None, at)]


def _listed(settings: SourceSettings, shard: int) -> tuple[list[FoundSample], str | None]:
    """The samples of a shard, and what is wrong with it."""
    url = settings.urls[shard]
    try:
        source = open_source(url, settings.spool_dir)
        try:
            return list(_samples(source.file(), shard, url)), None
        finally:
            source.close()
    except OSError as error:
        return [], f"{url}: {error}"


def _samples(file: object, shard: int, url: str) -> Iterator[FoundSample]:
    for number, sample in enumerate(walk_samples(file)):  # type: ignore[arg-type]
        if not sample.is_damage:
            name = sample.key if sample.image is None else sample.image.name
            yield FoundSample((shard, number), printable(sample.key), printable(f"{url}/{name}"))


def _of_name(samples: Sequence[FoundSample], text: str) -> list[FoundSample]:
    """Those whose key or path it is; else those of which it is the end, after a slash, of key or path."""
    exact = [sample for sample in samples if text in (sample.key, sample.path)]
    return exact or [s for s in samples if s.path.endswith(f"/{text}") or s.key.endswith(f"/{text}")]


def _names(samples: Sequence[FoundSample]) -> list[str]:
    """Keys, and names of files."""
    return [*(sample.key for sample in samples), *(sample.path.rsplit("/", 1)[-1] for sample in samples)]


def _checked(settings: SourceSettings, sample: FoundSample, crop: int | None) -> FoundSample:
    """The sample with its tile, if the stream reads it."""
    shard, number = sample.address
    if number >= settings.counts[shard]:
        raise OptionError(
            f"{sample.path}: the stream never reads it: the shard's index lists {settings.counts[shard]} samples, and "
            f"this is number {number} from 0; make the set anew with `synthpipe shard`"
        )
    if crop is not None and crop >= settings.crops_per_image:
        last = settings.crops_per_image - 1
        raise OptionError(f"{sample.key}#{crop}: crops_per_image gives numbers 0 to {last} of each image")
    return FoundSample(sample.address, sample.key, sample.path, crop)

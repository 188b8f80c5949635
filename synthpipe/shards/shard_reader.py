"""Random access to the samples of a shard, found by a scan of the headers that goes no further than it must."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from synthpipe.errors import ImageError, counted
from synthpipe.files.byte_source import ByteSource, is_local, open_source
from synthpipe.files.printable import printable
from synthpipe.shards.tar_walk import TarSample, walk_samples
from synthpipe.shards.unused_images import FURTHER_IMAGE, NO_IMAGES, UNUSED_IMAGE, UnusedImages, unused_text

__all__ = ["BESIDE", "FURTHER_IMAGE", "UNLISTED_SAMPLE", "Listed", "Member", "ShardReader", "ShardReaders"]

#: The reason of samples that a shard holds beyond those that its index lists; they are never read.
UNLISTED_SAMPLE = "unlisted_sample"
#: Reasons that count what lies beside the samples that are read.
BESIDE = frozenset({UNUSED_IMAGE, FURTHER_IMAGE, UNLISTED_SAMPLE})

_log = logging.getLogger(__name__)

# Systems allow a process 256 to 1024 open files; a few hundred thousand addresses may lie in more shards.
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class Member:
    """The image of one sample: where its bytes lie, or why it cannot be used.

    Without a name it stands for what a damaged shard has lost.
    """

    key: str
    name: str
    offset: int
    size: int
    problem: str | None = None
    detail: str = ""
    unused: UnusedImages = NO_IMAGES


class Listed(NamedTuple):
    """What the index says of a shard."""

    samples: int
    bytes: int
    sha256: str | None = None


class ShardReader:
    """The samples of one shard by number.

    Whatever is wrong with the shard is kept, and every sample that it should have had says so.

    Args:
        url: the shard; opened when first needed.
        spool_dir: folder for the copy of a remote shard.
        listed: what the index says of it, compared with what is found; None where there is none.
    """

    def __init__(self, url: str, spool_dir: str | None = None, listed: Listed | None = None) -> None:
        self.url = url
        self._spool_dir = spool_dir
        self._listed = listed
        self._unlisted: int | None = None
        self._compared = self._hashing = False
        self._members: list[Member] = []
        self._source: ByteSource | None = None
        self._rest: Iterator[TarSample] | None = None
        self._failure: ImageError | None = None

    @property
    def awake(self) -> bool:
        """Whether it holds an open file."""
        return self._source is not None

    def begin(self) -> None:
        """Open the shard; a remote one begins to arrive."""
        if self._source is None and self._failure is None:
            try:
                self._source = open_source(self.url, self._spool_dir)
            except OSError as error:
                self._fail(error)
                return
            if is_local(self.url):
                self._compare_size(self._source.size())
                self._compare_bytes_of_file(self._source)

    def beside(self, number: int) -> tuple[Counter[str], str]:
        """What lies beside sample ``number``, which has been read, and is not used: counts by reason, and a sentence.

        Samples that the index does not list lie beside the last one that it does.
        """
        if number >= len(self._members):
            return Counter(), ""
        unused = self._members[number].unused
        counts = Counter(unused.counts())
        text = unused_text(unused, self.url) if unused else ""
        if self._listed is not None and number + 1 == self._listed.samples and self._unlisted:
            counts[UNLISTED_SAMPLE] = self._unlisted
            text = self._unlisted_text()
        return counts, text

    def read(self, number: int) -> tuple[Member, bytes]:
        """Sample ``number``: its member and the bytes of its image file.

        Raises:
            ImageError: reasons ``"missing_shard"``, ``"unreadable_shard"``, ``"truncated_shard"``,
                ``"missing_image"``, ``"duplicate_key"``, ``"unsafe_name"``, ``"sparse_file"``, ``"too_large"``.
        """
        self.begin()
        if self._source is not None:
            try:
                return self._read(number, self._source)
            except OSError as error:
                self._fail(error)
        assert self._failure is not None
        raise self._failure

    def close(self) -> None:
        """Close the file, keeping the places of its samples; a spooled copy vanishes."""
        if self._source is not None:
            self._source.close()
        self._source = self._rest = None

    def _read(self, number: int, source: ByteSource) -> tuple[Member, bytes]:
        self._look_for(number, source)
        if number < len(self._members):
            member = self._members[number]
        elif self._members and not self._members[-1].name:
            # What should stand behind the damage is lost with it.
            member = self._members[-1]
        else:
            raise ImageError(
                f"{self.url}: sample {number} is missing: the shard ends after {counted(len(self._members), 'sample')}",
                reason="truncated_shard" if self._members else "unreadable_shard",
            )
        place = f"{self.url}/{printable(member.name)}" if member.name else f"{self.url}: sample {number} is missing"
        if member.problem is not None:
            raise ImageError(f"{place}: {member.detail}", reason=member.problem)
        data = source.read_at(member.offset, member.size)
        if len(data) < member.size:
            raise ImageError(
                f"{place}: the shard ends after {len(data)} of {member.size} bytes", reason="truncated_shard"
            )
        return member, data

    def _look_for(self, number: int, source: ByteSource) -> None:
        """Scan on until sample ``number`` is found, or the shard ends."""
        if self._rest is None:
            # after a rest, over what is known already
            self._rest = itertools.islice(walk_samples(source.file()), len(self._members), None)
        for sample in itertools.islice(self._rest, max(number + 1 - len(self._members), 0)):
            self._members.append(_member_of(sample))
            if sample.is_damage:
                _log.warning("%s: %s; samples behind that are lost", self.url, sample.detail)
        if self._listed is not None and self._unlisted is None and len(self._members) == self._listed.samples:
            # All that the index lists are found.
            self._unlisted = sum(not sample.is_damage for sample in self._rest)
            if self._unlisted:
                _log.warning("%s", self._unlisted_text())
            if not is_local(self.url):
                self._compare_size(source.size())
                self._compare_bytes(source.sha256())

    def _unlisted_text(self) -> str:
        assert self._listed is not None
        return (
            f"{self.url}: {counted(self._unlisted or 0, 'sample')} more than the {self._listed.samples} that its index "
            "lists, never read. The shard has changed since: remove the index, so that samples are counted, or make "
            "the set anew with `synthpipe shard`"
        )

    def _compare_size(self, size: int) -> None:
        if self._listed is not None and size != self._listed.bytes and not self._compared:
            _log.warning(
                "%s: has %d bytes and %d by its index: it is cut off, or was changed after it was indexed",
                self.url,
                size,
                self._listed.bytes,
            )
            # The reason is told; its bytes are others, too.
            self._listed = self._listed._replace(sha256=None)
        self._compared = True

    def _compare_bytes_of_file(self, source: ByteSource) -> None:
        """Beside the reading: the file is read whole once, and what was read stays in the system's memory."""
        if self._listed is None or self._listed.sha256 is None or self._hashing:
            return
        self._hashing = True
        threading.Thread(
            target=lambda: self._compare_bytes(source.sha256()), name=f"checksum {self.url}", daemon=True
        ).start()

    def _compare_bytes(self, found: str | None) -> None:
        listed = None if self._listed is None else self._listed.sha256
        if found is not None and listed is not None and found != listed.lower():
            _log.warning(
                "%s: has other bytes than its index says (SHA-256 %.12s..., by the index %.12s...): it was changed "
                "after it was indexed, or is damaged; compare it with its source, or make the set anew with "
                "`synthpipe shard`",
                self.url,
                found,
                listed,
            )

    def _fail(self, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        text = "no such shard" if missing else f"cannot be read: {error}"
        self._failure = ImageError(f"{self.url}: {text}", reason="missing_shard" if missing else "unreadable_shard")
        _log.warning("%s", self._failure)
        self.close()


def _member_of(sample: TarSample) -> Member:
    image = sample.image
    if image is None:
        # The key stands for the name that is not there.
        return Member(sample.key, sample.key, 0, 0, sample.problem, sample.detail, sample.unused)
    return Member(sample.key, image.name, image.offset, image.size, sample.problem, sample.detail, sample.unused)


class ShardReaders:
    """The shards in use by one worker: opened when first needed, closed when the plan is through with them.

    Of local files only so many are open at once; those used longest ago rest meanwhile.

    Args:
        urls: all shards of the stream.
        spool_dir: folder for copies of remote shards.
        listed: of each shard what the index says; empty where there is none.
    """

    def __init__(
        self, urls: tuple[str, ...], spool_dir: str | None = None, listed: Sequence[Listed | None] = ()
    ) -> None:
        self._urls = urls
        self._spool_dir = spool_dir
        self._listed = list(listed)
        # the one used last stands at the end
        self._open: dict[int, ShardReader] = {}

    def __getitem__(self, shard: int) -> ShardReader:
        """The reader of a shard."""
        reader = self._open.pop(shard, None)
        if reader is None:
            listed = self._listed[shard] if self._listed else None
            reader = ShardReader(self._urls[shard], self._spool_dir, listed)
        self._open[shard] = reader
        if not reader.awake and is_local(reader.url):
            self._make_room()
        return reader

    def __len__(self) -> int:
        return len(self._open)

    def expect(self, shard: int) -> None:
        """A shard will be needed soon: a remote one begins to arrive."""
        if not is_local(self._urls[shard]):
            self[shard].begin()

    def release(self, shard: int) -> None:
        """Close a shard, if it is open."""
        reader = self._open.pop(shard, None)
        if reader is not None:
            reader.close()
            if (listed := self._listed[shard] if self._listed else None) is not None:
                # Once in a pass is enough.
                self._listed[shard] = listed._replace(sha256=None)

    def close(self) -> None:
        """Close all."""
        for shard in list(self._open):
            self.release(shard)

    def _make_room(self) -> None:
        awake = [reader for reader in self._open.values() if reader.awake and is_local(reader.url)]
        for reader in awake[: max(len(awake) - _OPEN_FILES + 1, 0)]:
            reader.close()

"""Random access to the samples of a shard, found by a scan of the headers that goes no further than it must."""

from __future__ import annotations

import itertools
import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from webdataset.tariterators import group_by_keys

from synthpipe.errors import ImageError, ShardError
from synthpipe.files.byte_source import ByteSource, is_local, open_source
from synthpipe.shards.shard_index import IMAGE_SUFFIXES, check_member_name

__all__ = ["Member", "ShardReader", "ShardReaders", "TarScan"]

_log = logging.getLogger(__name__)

# Systems allow a process 256 to 1024 open files; a few hundred thousand addresses may lie in more shards.
_OPEN_FILES = 64

_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class Member:
    """The image of one sample: where its bytes lie, or why it cannot be used."""

    key: str
    name: str
    offset: int
    size: int
    problem: str | None = None


class TarScan:
    """Samples of an uncompressed tar in order, from its headers; image bytes are stepped over.

    Files are grouped as webdataset groups them.  A damaged tar ends the scan and sets :attr:`damage`.

    Args:
        file: a seekable reader.
        url: what names of members begin with.
    """

    def __init__(self, file: BinaryIO, url: str) -> None:
        self._file = file
        self._url = url
        #: What is wrong with the file, once the scan has come upon it.
        self.damage: str | None = None

    def __iter__(self) -> Iterator[Member]:
        duplicates: list[Exception] = []

        def note(error: Exception) -> bool:
            duplicates.append(error)
            return True

        seen: set[str] = set()
        for sample in group_by_keys(self._files(), handler=note):
            key = sample.pop("__key__")
            sample.pop("__url__")
            member = _image_member(key, sample)
            if duplicates or key in seen:
                member = Member(key, member.name, 0, 0, problem="duplicate_key")
            duplicates.clear()
            seen.add(key)
            yield member

    def _files(self) -> Iterator[dict[str, Any]]:
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    # the tar would keep every header that it has seen
                    tar.members = []  # type: ignore[attr-defined]
                    if info.isreg() and not _META.match(info.name):
                        place = (info.name, info.offset_data, info.size)
                        yield {"fname": info.name, "data": place, "__url__": self._url}
        except tarfile.TarError as error:
            self.damage = str(error)


def _image_member(key: str, sample: dict[str, Any]) -> Member:
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in sample), None)
    if suffix is None:
        return Member(key, key, 0, 0, problem="missing_image")
    name, offset, size = sample[suffix]
    try:
        check_member_name(name, key)
    except ShardError:
        return Member(key, name, offset, size, problem="unsafe_name")
    return Member(key, name, offset, size)


class ShardReader:
    """The samples of one shard by number.

    Whatever is wrong with the shard is kept, and every sample that it should have had says so.

    Args:
        url: the shard; opened when first needed.
        spool_dir: folder for the copy of a remote shard.
    """

    def __init__(self, url: str, spool_dir: str | None = None) -> None:
        self.url = url
        self._spool_dir = spool_dir
        self._members: list[Member] = []
        self._source: ByteSource | None = None
        self._scan: TarScan | None = None
        self._found: Iterator[Member] = iter(())
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

    def read(self, number: int) -> tuple[Member, bytes]:
        """Sample ``number``: its member and the bytes of its image file.

        Raises:
            ImageError: reasons ``"missing_shard"``, ``"unreadable_shard"``, ``"truncated_shard"``,
                ``"missing_image"``, ``"duplicate_key"``, ``"unsafe_name"``.
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
        self._source = self._scan = None

    def _read(self, number: int, source: ByteSource) -> tuple[Member, bytes]:
        if len(self._members) <= number:
            self._look_for(number, source)
        member = self._members[number]
        if member.problem is not None:
            raise ImageError(f"{self.url}/{member.name}: {member.problem.replace('_', ' ')}", reason=member.problem)
        data = source.read_at(member.offset, member.size)
        if len(data) < member.size:
            raise ImageError(
                f"{self.url}/{member.name}: the shard ends after {len(data)} of {member.size} bytes",
                reason="truncated_shard",
            )
        return member, data

    def _look_for(self, number: int, source: ByteSource) -> None:
        """Scan on until sample ``number`` is found."""
        if self._scan is None:
            self._scan = TarScan(source.file(), self.url)
            # after a rest, over what is known already
            self._found = itertools.islice(self._scan, len(self._members), None)
        self._members.extend(itertools.islice(self._found, number + 1 - len(self._members)))
        found = len(self._members)
        if found <= number:
            damage = f" ({self._scan.damage})" if self._scan.damage else ""
            raise ImageError(
                f"{self.url}: sample {number} is missing: the shard ends after {found} samples{damage}",
                reason="truncated_shard" if found else "unreadable_shard",
            )

    def _fail(self, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        text = "no such shard" if missing else f"cannot be read: {error}"
        self._failure = ImageError(f"{self.url}: {text}", reason="missing_shard" if missing else "unreadable_shard")
        _log.warning("%s", self._failure)
        self.close()


class ShardReaders:
    """The shards in use by one worker: opened when first needed, closed when the plan is through with them.

    Of local files only so many are open at once; those used longest ago rest meanwhile.

    Args:
        urls: all shards of the stream.
        spool_dir: folder for copies of remote shards.
    """

    def __init__(self, urls: tuple[str, ...], spool_dir: str | None = None) -> None:
        self._urls = urls
        self._spool_dir = spool_dir
        # the one used last stands at the end
        self._open: dict[int, ShardReader] = {}

    def __getitem__(self, shard: int) -> ShardReader:
        """The reader of a shard."""
        reader = self._open.pop(shard, None) or ShardReader(self._urls[shard], self._spool_dir)
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

    def close(self) -> None:
        """Close all."""
        for shard in list(self._open):
            self.release(shard)

    def _make_room(self) -> None:
        awake = [reader for reader in self._open.values() if reader.awake and is_local(reader.url)]
        for reader in awake[: max(len(awake) - _OPEN_FILES + 1, 0)]:
            reader.close()

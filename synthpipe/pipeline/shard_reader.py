"""Random access to the samples of a shard, found by a scan of the headers that goes no further than it must."""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from webdataset.tariterators import group_by_keys

from synthpipe.errors import ImageError, ShardError
from synthpipe.pipeline.byte_source import ByteSource, open_source
from synthpipe.pipeline.shard_index import IMAGE_SUFFIXES, check_member_name

__all__ = ["Member", "ShardReader", "ShardReaders", "TarScan"]

_log = logging.getLogger(__name__)

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
    """

    def __init__(self, url: str, spool_dir: str | None = None) -> None:
        self.url = url
        self._members: list[Member] = []
        self._source: ByteSource | None = None
        self._failure: ImageError | None = None
        try:
            self._source = open_source(url, spool_dir)
            self._scan = TarScan(self._source.file(), url)
            self._found = iter(self._scan)
        except OSError as error:
            self._fail(error)

    def read(self, number: int) -> tuple[Member, bytes]:
        """Sample ``number``: its member and the bytes of its image file.

        Raises:
            ImageError: reasons ``"missing_shard"``, ``"unreadable_shard"``, ``"truncated_shard"``,
                ``"missing_image"``, ``"duplicate_key"``, ``"unsafe_name"``.
        """
        if self._failure is None:
            try:
                return self._read(number)
            except OSError as error:
                self._fail(error)
        assert self._failure is not None
        raise self._failure

    def close(self) -> None:
        """Close the file; a spooled copy vanishes."""
        if self._source is not None:
            self._source.close()

    def _read(self, number: int) -> tuple[Member, bytes]:
        assert self._source is not None
        while len(self._members) <= number:
            member = next(self._found, None)
            if member is None:
                raise ImageError(
                    f"{self.url}: sample {number} is missing: {self._ending()}", reason=self._ending_reason()
                )
            self._members.append(member)
        member = self._members[number]
        if member.problem is not None:
            raise ImageError(f"{self.url}/{member.name}: {member.problem.replace('_', ' ')}", reason=member.problem)
        data = self._source.read_at(member.offset, member.size)
        if len(data) < member.size:
            raise ImageError(
                f"{self.url}/{member.name}: the shard ends after {len(data)} of {member.size} bytes",
                reason="truncated_shard",
            )
        return member, data

    def _ending(self) -> str:
        found = len(self._members)
        return f"the shard ends after {found} samples" + (f" ({self._scan.damage})" if self._scan.damage else "")

    def _ending_reason(self) -> str:
        return "truncated_shard" if self._members else "unreadable_shard"

    def _fail(self, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        text = "no such shard" if missing else f"cannot be read: {error}"
        self._failure = ImageError(f"{self.url}: {text}", reason="missing_shard" if missing else "unreadable_shard")
        _log.warning("%s", self._failure)


class ShardReaders:
    """The shards in use by one worker: opened when first needed, closed when the plan is through with them.

    Args:
        urls: all shards of the stream.
        spool_dir: folder for copies of remote shards.
    """

    def __init__(self, urls: tuple[str, ...], spool_dir: str | None = None) -> None:
        self._urls = urls
        self._spool_dir = spool_dir
        self._open: dict[int, ShardReader] = {}

    def open(self, shard: int) -> ShardReader:
        """The reader of a shard; a remote shard begins to arrive."""
        if shard not in self._open:
            self._open[shard] = ShardReader(self._urls[shard], self._spool_dir)
        return self._open[shard]

    def __len__(self) -> int:
        return len(self._open)

    def release(self, shard: int) -> None:
        """Close a shard, if it is open."""
        reader = self._open.pop(shard, None)
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Close all."""
        for shard in list(self._open):
            self.release(shard)

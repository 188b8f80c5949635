"""The members of a tar in order, and the samples that they make: the one way in which synthpipe reads shards.

Only headers are read; contents are stepped over, and nothing of a member is kept but its place.  A tar that is damaged
is used as far as it goes, and its last sample is one that says so: whoever takes all samples learns of the damage.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import IO, BinaryIO, NamedTuple

from webdataset.tariterators import base_plus_ext

from synthpipe.errors import ShardError
from synthpipe.files import image_formats
from synthpipe.shards.tar_header import TarDamage, TarHeader, read_header

__all__ = [
    "IMAGE_SUFFIXES",
    "TarMember",
    "TarSample",
    "check_member_name",
    "group_samples",
    "read_member",
    "walk_members",
    "walk_samples",
]

#: Suffixes of members that hold the image, without the dot; of several in a sample the first of this list counts.
IMAGE_SUFFIXES = tuple(suffix.removeprefix(".") for suffix in image_formats.IMAGE_SUFFIXES)

# What WebDataset passes over.
_META = re.compile(r"__[^/]*__($|/)")
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|\Z)", re.DOTALL)

# The end of an archive is filled with zeros up to a whole record, of 10 KiB and on some tapes more.
_LONGEST_RECORD = 1 << 20
_CHUNK = 1 << 16


class TarMember(NamedTuple):
    """A regular file in a tar: ``size`` bytes from byte ``offset``.

    Its headers begin at byte ``begin``, its padding ends before byte ``end``.  ``problem`` says why it cannot be used:
    ``"unsafe_name"``, ``"sparse_file"``, ``"truncated_shard"``.
    """

    name: str
    begin: int
    end: int
    offset: int
    size: int
    problem: str | None = None

    @property
    def block(self) -> tuple[int, int]:
        """``(begin, end)``: all bytes that are the member's, headers and padding included."""
        return self.begin, self.end


@dataclass(frozen=True, slots=True)
class TarSample:
    """Consecutive members with one key.

    ``members`` are named by their suffix in lower case and stand in the tar's order.  ``problem`` says why the sample
    cannot be used: ``"missing_image"``, ``"duplicate_key"``, a member's problem, and without members, as the last of
    all, ``"truncated_shard"`` or ``"unreadable_shard"`` for what a damaged tar has lost.  ``detail`` is the sentence
    on it.
    """

    key: str
    members: dict[str, TarMember] = field(default_factory=dict)
    problem: str | None = None
    detail: str = ""

    @property
    def image(self) -> TarMember | None:
        """The member that holds the image."""
        return next((self.members[suffix] for suffix in IMAGE_SUFFIXES if suffix in self.members), None)

    @property
    def is_damage(self) -> bool:
        """No sample but the notice that the tar cannot be read on."""
        return not self.members


def check_member_name(name: str, shard: str) -> None:
    """Refuse names that point outside of a folder they would be unpacked to.

    Raises:
        ShardError: an absolute name, or one with a ``..`` part.
    """
    if _OUTSIDE.match(name):
        raise ShardError(f"{shard}: refused, its member {name!r} is an absolute name or has a '..' part")


def walk_members(file: IO[bytes]) -> Iterator[TarMember]:
    """The regular files of a tar that WebDataset would read.

    Args:
        file: a seekable reader of an uncompressed tar.

    Raises:
        TarDamage: a header is damaged; the file ends early, be it between two members; the empty block that ends an
            archive stands in its middle.
    """
    position = 0
    shared: dict[bytes, bytes] = {}
    while (header := read_header(file, position, shared)) is not None:
        whole = header.end == header.data or _reaches(file, header.end)
        if header.regular and not _META.match(header.name):
            yield _member(header, cut=not whole and not _reaches(file, header.data + header.size))
        if not whole:
            raise TarDamage(header.begin, f"the file ends within {header.name!r}, which begins there")
        position = header.end
    _check_end(file, position)


def read_member(file: BinaryIO, member: TarMember) -> bytes:
    """The contents of a member of a tar on disk; fewer bytes where the tar is cut off."""
    return os.pread(file.fileno(), member.size, member.offset)


def walk_samples(file: IO[bytes]) -> Iterator[TarSample]:
    """The samples of a tar; of a damaged one, one more that says so.

    Args:
        file: a seekable reader of an uncompressed tar.
    """
    return group_samples(walk_members(file))


def group_samples(members: Iterator[TarMember]) -> Iterator[TarSample]:
    """Samples as WebDataset groups them; where ``members`` raises :class:`TarDamage`, one more that says so.

    Members without a suffix belong to no sample.  The keys that have been are held, to find one that comes again.
    """
    damage: list[TarDamage] = []
    keys: set[str] = set()
    for key, files in itertools.groupby(_named(members, damage), key=itemgetter(0)):
        yield _sample(key, [(suffix, member) for _, suffix, member in files], again=key in keys)
        keys.add(key)
    for found in damage:
        yield TarSample("", problem="truncated_shard" if keys else "unreadable_shard", detail=str(found))


def _named(members: Iterator[TarMember], damage: list[TarDamage]) -> Iterator[tuple[str, str, TarMember]]:
    """(key, suffix, member) of each that has both; at the end what is wrong with the tar goes to ``damage``."""
    try:
        for member in members:
            key, suffix = base_plus_ext(member.name)
            if key is not None:
                yield key, suffix.lower(), member
    except TarDamage as found:
        damage.append(found)


def _member(header: TarHeader, *, cut: bool) -> TarMember:
    problem = None
    if _OUTSIDE.match(header.name):
        problem = "unsafe_name"
    elif header.sparse:
        problem = "sparse_file"
    elif cut:
        problem = "truncated_shard"
    return TarMember(header.name, header.begin, header.end, header.data, header.size, problem)


def _sample(key: str, files: Sequence[tuple[str, TarMember]], *, again: bool) -> TarSample:
    members: dict[str, TarMember] = {}
    for suffix, member in files:
        members.setdefault(suffix, member)
    bad = next((member for member in members.values() if member.problem), None)
    if again or len(members) < len(files):
        detail = (
            f"key {key!r} comes more than once; the files of a sample must follow each other, under different names"
        )
        return TarSample(key, members, "duplicate_key", detail)
    if bad is not None:
        return TarSample(key, members, bad.problem, _detail(bad))
    if not any(suffix in members for suffix in IMAGE_SUFFIXES):
        return TarSample(key, members, "missing_image", f"no image, expected {', '.join(IMAGE_SUFFIXES)}")
    return TarSample(key, members)


def _detail(member: TarMember) -> str:
    return {
        "unsafe_name": f"refused, its member {member.name!r} is an absolute name or has a '..' part",
        "sparse_file": f"its member {member.name!r} is a sparse file, which has no bytes to read by address",
        "truncated_shard": f"the shard ends within its member {member.name!r}",
    }[str(member.problem)]


def _reaches(file: IO[bytes], end: int) -> bool:
    """Whether there is a byte before ``end``."""
    file.seek(end - 1)
    return bool(file.read(1))


def _check_end(file: IO[bytes], position: int) -> None:
    """Behind the empty block at ``position`` there is nothing but zeros, up to a whole record.

    Otherwise it is a hole in a damaged file, or another archive follows, whose members would be lost.
    """
    file.seek(position)
    for begin in itertools.count(position, _CHUNK):
        chunk = file.read(_CHUNK)
        data = chunk.lstrip(b"\0")
        if data:
            raise TarDamage(
                position, f"an empty block as at the end, but more data from {begin + len(chunk) - len(data)}"
            )
        if len(chunk) < _CHUNK:
            return
        if begin - position > _LONGEST_RECORD:
            raise TarDamage(position, f"more than {_LONGEST_RECORD} bytes of zeros, which may never have been written")

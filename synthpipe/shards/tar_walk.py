"""The members of a tar in order, and the samples that they make: the one way in which synthpipe reads shards.

Only headers are read; contents are stepped over, and nothing of a member is kept but its place.  A tar that is damaged
is used as far as it goes, and its last sample is one that says so: whoever takes all samples learns of the damage.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import IO, BinaryIO, NamedTuple

from webdataset.tariterators import base_plus_ext

from synthpipe.errors import ShardError
from synthpipe.files import image_formats
from synthpipe.shards.tar_header import TarDamage, TarHeader, read_header
from synthpipe.shards.unused_images import NO_IMAGES, UNUSED_IMAGE, UnusedImages, is_image_name, unused_beside

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST_IMAGE",
    "LINK",
    "LONGEST_NAME",
    "TarMember",
    "TarSample",
    "check_member_name",
    "group_samples",
    "read_member",
    "walk_all_members",
    "walk_members",
    "walk_samples",
]

#: Suffixes of members that hold the image, without the dot; of several in a sample the first of this list counts.
IMAGE_SUFFIXES = tuple(suffix.removeprefix(".") for suffix in image_formats.IMAGE_SUFFIXES)

#: Bytes of an image file: it is read into memory whole.
LARGEST_IMAGE = 1 << 30
#: Characters of a member's name; no system opens a longer one.
LONGEST_NAME = 4096

#: The problem of an image by name that is a link, a device or another thing without bytes.
LINK = "link"
_PASSED_OVER = (UNUSED_IMAGE, LINK)

# What WebDataset passes over.
_META = re.compile(r"__[^/]*__($|/)")
_OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|\Z)|.*\0", re.DOTALL)

_UNSAFE = "is an absolute name or has a '..' part or a zero byte"

# The end of an archive is filled with zeros up to a whole record, of 10 KiB and on some tapes more.
_LONGEST_RECORD = 1 << 20
_CHUNK = 1 << 16


class TarMember(NamedTuple):
    """A regular file in a tar: ``size`` bytes from byte ``offset``.

    Its headers begin at byte ``begin``, its padding ends before byte ``end``.  ``problem`` says why it cannot be used:
    ``"unsafe_name"``, ``"sparse_file"``, ``"truncated_shard"``; what :func:`walk_all_members` adds has problems of its
    own.
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
    cannot be used: ``"missing_image"``, ``"duplicate_key"``, ``"too_large"``, a member's problem, and without members,
    as the last of all, ``"truncated_shard"`` or ``"unreadable_shard"`` for what a damaged tar has lost.  ``detail`` is
    the sentence on it.  ``unused`` are image files that lie in the sample or behind it, and that no sample uses.
    """

    key: str
    members: dict[str, TarMember] = field(default_factory=dict)
    problem: str | None = None
    detail: str = ""
    unused: UnusedImages = NO_IMAGES

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
        ShardError: an absolute name, or one with a ``..`` part or a zero byte.
    """
    if _OUTSIDE.match(name):
        raise ShardError(f"{shard}: refused, its member {name!r} {_UNSAFE}")


def walk_members(file: IO[bytes]) -> Iterator[TarMember]:
    """The regular files of a tar that WebDataset would read.

    Args:
        file: a seekable reader of an uncompressed tar.

    Raises:
        TarDamage: a header is damaged; the file ends early, be it between two members; the empty block that ends an
            archive stands in its middle.
    """
    return (member for member in walk_all_members(file) if member.problem not in _PASSED_OVER)


def walk_all_members(file: IO[bytes]) -> Iterator[TarMember]:
    """Also images that WebDataset would pass over: of problem ``"unused_image"``, and ``"link"`` where it is no file.

    Raises:
        TarDamage: as :func:`walk_members` does.
    """
    position = 0
    shared: dict[bytes, bytes] = {}
    while (header := read_header(file, position, shared)) is not None:
        whole = header.end == header.data or _reaches(file, header.end)
        if header.regular and not _META.match(header.name) and len(header.name) <= LONGEST_NAME:
            yield _member(header, cut=not whole and not _reaches(file, header.data + header.size))
        elif not header.folder and is_image_name(header.name):
            problem = UNUSED_IMAGE if header.regular else LINK
            yield TarMember(header.name, header.begin, header.end, header.data, header.size, problem)
        if not whole:
            raise TarDamage(header.begin, f"the file ends within {header.name[:LONGEST_NAME]!r}, which begins there")
        position = header.end
    _check_end(file, position)


def _measured(members: Iterator[TarMember], file: IO[bytes]) -> Iterator[TarMember]:
    """The same members; damage says how much of the file is behind it."""
    try:
        yield from members
    except TarDamage as damage:
        unread = file.seek(0, os.SEEK_END) - damage.offset
        raise TarDamage(damage.offset, damage.reason, max(unread, 0)) from None


def read_member(file: BinaryIO, member: TarMember) -> bytes:
    """The contents of a member of a tar on disk; fewer bytes where the tar is cut off."""
    size = min(member.size, os.fstat(file.fileno()).st_size - member.offset)
    return os.pread(file.fileno(), max(size, 0), member.offset)


def walk_samples(file: IO[bytes]) -> Iterator[TarSample]:
    """The samples of a tar; of a damaged one, one more that says so.

    Args:
        file: a seekable reader of an uncompressed tar.
    """
    return group_samples(_measured(walk_all_members(file), file))


def group_samples(members: Iterator[TarMember]) -> Iterator[TarSample]:
    """Samples as WebDataset groups them; where ``members`` raises :class:`TarDamage`, one more that says so.

    Members without a suffix belong to no sample.  The keys that have been are held, to find one that comes again.
    """
    named = _NamedMembers(members)
    keys: set[str] = set()
    for key, files in itertools.groupby(named, key=itemgetter(0)):
        sample = _sample(key, [(suffix, member) for _, suffix, member in files], again=key in keys)
        between = named.take_unused()
        yield sample if between is NO_IMAGES else replace(sample, unused=sample.unused + between)
        keys.add(key)
    unused = named.take_unused()
    if named.damage is not None:
        problem = "truncated_shard" if keys else "unreadable_shard"
        yield TarSample("", problem=problem, detail=str(named.damage), unused=unused)
    elif unused:
        # The only thing in the tar; without a sample it would be taken for empty.
        detail = (
            f"no sample: its images are links, hidden, or have too long names, as {unused.example[:LONGEST_NAME]!r}"
        )
        yield TarSample("", problem="unreadable_shard", detail=detail, unused=unused)


class _NamedMembers(Iterator[tuple[str, str, TarMember]]):
    """(key, suffix, member) of each that has both; what is wrong with the tar is kept, and what no sample can use."""

    def __init__(self, members: Iterator[TarMember]) -> None:
        self._members = members
        self._unused = NO_IMAGES
        self.damage: TarDamage | None = None

    def __next__(self) -> tuple[str, str, TarMember]:
        try:
            for member in self._members:
                key, suffix = (None, "") if member.problem in _PASSED_OVER else base_plus_ext(member.name)
                if key is not None:
                    return key, str(suffix).lower(), member
                if is_image_name(member.name):
                    self._unused += UnusedImages(unused=1, example=member.name)
        except TarDamage as found:
            self.damage = found
        raise StopIteration

    def take_unused(self) -> UnusedImages:
        """Of the members so far, those not taken before."""
        found, self._unused = self._unused, NO_IMAGES
        return found


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
    image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    unused = NO_IMAGES
    others = [(s, m.name) for s, m in members.items() if m is not image and s.endswith(IMAGE_SUFFIXES)]
    if others:
        unused = unused_beside(image is not None, others)
    return TarSample(key, members, *_problem(key, files, members, again=again), unused)


def _problem(
    key: str, files: Sequence[tuple[str, TarMember]], members: dict[str, TarMember], *, again: bool
) -> tuple[str | None, str]:
    """Why the sample cannot be used, and the sentence on it."""
    if again or len(members) < len(files):
        return "duplicate_key", (
            f"key {key!r} comes more than once; the files of a sample must follow each other, under different names"
        )
    bad = next((member for member in members.values() if member.problem), None)
    if bad is not None:
        return bad.problem, _detail(bad)
    image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    if image is None:
        return "missing_image", f"no image, expected {', '.join(IMAGE_SUFFIXES)}"
    if image.size > LARGEST_IMAGE:
        return "too_large", f"an image file of {image.size} bytes, more than LARGEST_IMAGE ({LARGEST_IMAGE})"
    return None, ""


def _detail(member: TarMember) -> str:
    return {
        "unsafe_name": f"refused, its member {member.name!r} {_UNSAFE}",
        "sparse_file": f"its member {member.name!r} is a sparse file, which has no bytes to read by address",
        "truncated_shard": f"the shard ends within its member {member.name!r}",
    }[str(member.problem)]


def _reaches(file: IO[bytes], end: int) -> bool:
    """Whether there is a byte before ``end``."""
    try:
        file.seek(end - 1)
    except OSError as error:
        # Beyond what the file system can hold.
        if error.errno in (errno.EINVAL, errno.EOVERFLOW):
            return False
        raise
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

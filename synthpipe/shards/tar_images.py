"""The images of a tar that others have made, each with a safe key and with the files that belong to it.

WebDataset ends a key at the first dot of a name; here every image file is a sample of its own, whatever dots its name
has.  Files with the image's full stem belong to it: ``clip.000.txt`` to ``clip.000.png``.  An image that another one's
stem begins belongs to that one where its further suffix is one of letters that comes with several images of the tar:
``a.mask.png`` to ``a.jpg``, if there is a ``b.mask.png`` to ``b.jpg``.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from synthpipe.errors import OptionError, ShardError
from synthpipe.files.source_files import safe_part
from synthpipe.shards.tar_header import TarDamage
from synthpipe.shards.tar_walk import IMAGE_SUFFIXES, LARGEST_IMAGE, LONGEST_NAME, TarMember, walk_all_members
from synthpipe.shards.unused_images import UNUSED_IMAGE, is_image_name

__all__ = ["TarImage", "tar_images"]

_log = logging.getLogger(__name__)

# What can stand behind the dot of a key without meaning anything to anyone else.
_SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class TarImage(NamedTuple):
    """One image in a tar; ``source`` is the tar and the member below the inputs and names it for people.

    ``path`` and ``mtime_ns`` are the tar's, ``size`` bytes from ``offset`` the image's.  ``beside`` are suffix, offset
    and size of the files that belong to it.
    """

    key: str
    source: str
    path: str
    size: int
    mtime_ns: int
    offset: int
    beside: tuple[tuple[str, int, int], ...] = ()


def tar_images(path: str, source: str, key: str, passed_over: Counter[str]) -> Iterator[TarImage]:
    """Every image of a tar on this machine, in the tar's order.

    Args:
        path: of the tar.
        source: what its name is for people, before the member's.
        key: what keys begin with.
        passed_over: counts of what is no image and belongs to none, by suffix, and of images that cannot be used, by
            reason in parentheses, are added here.

    Raises:
        OptionError: there is no such file.
        ShardError: it cannot be read.
    """
    try:
        mtime_ns = os.stat(path).st_mtime_ns
        fields = {suffix for suffix, count in _further_suffixes(path).items() if count > 1}
        keys: set[str] = set()
        for group in _groups(path, passed_over):
            for image, stem_key, beside in _images_of(group, fields, passed_over):
                if stem_key in keys:
                    passed_over["(duplicate name)"] += 1
                    continue
                keys.add(stem_key)
                place = f"{source}/{'/'.join(_parts(image.name))}"
                yield TarImage(key + stem_key, place, path, image.size, mtime_ns, image.offset, beside)
    except FileNotFoundError as error:
        raise OptionError(f"input {path!r}: expected a tar on this machine, found nothing") from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error}); its images would be lost") from error


def _further_suffixes(path: str) -> Counter[str]:
    """With how many images each suffix comes that may be a part of their samples."""
    return Counter(suffix for group in _groups(path, Counter(), quiet=True) for suffix in _Stems(group).further())


def _groups(path: str, passed_over: Counter[str], *, quiet: bool = False) -> Iterator[list[TarMember]]:
    """Members that follow each other and have one name up to the first dot."""
    damage: list[TarDamage] = []
    with open(path, "rb") as file:
        usable = _usable(_until_damage(walk_all_members(file), damage), passed_over)
        for _, group in itertools.groupby(usable, key=lambda member: _group_name(member.name)):
            yield list(group)
        for found in damage:
            passed_over["(damaged tar)"] += 1
            if not quiet:
                unread = os.fstat(file.fileno()).st_size - found.offset
                _log.warning("%s: %s; what lies in its last %d bytes is lost", path, found, unread)


def _until_damage(members: Iterator[TarMember], damage: list[TarDamage]) -> Iterator[TarMember]:
    try:
        yield from members
    except TarDamage as found:
        damage.append(found)


def _usable(members: Iterator[TarMember], passed_over: Counter[str]) -> Iterator[TarMember]:
    for member in members:
        problem = None if member.problem == UNUSED_IMAGE else member.problem
        if len(member.name) > LONGEST_NAME:
            problem = "too long name"
        elif os.path.basename(member.name).startswith("."):
            problem = "hidden"
        elif member.size > LARGEST_IMAGE:
            problem = "too large"
        if problem is None:
            yield member
        else:
            passed_over[f"({problem.replace('_', ' ')})"] += 1


def _images_of(
    group: Sequence[TarMember], fields: Collection[str], passed_over: Counter[str]
) -> Iterator[tuple[TarMember, str, tuple[tuple[str, int, int], ...]]]:
    """Each image, its key in the tar, and what belongs to it."""
    stems = _Stems(group)
    images = {stem: stems.samples(stem, fields) for stem in stems.images}
    beside: dict[str, dict[str, TarMember]] = {stem: {} for stem in images}
    for member in group:
        if member in images.get(_stem(member.name), ()):
            continue
        owner = next((found for found in _prefixes(member.name) if images.get(found[0])), None)
        suffix = os.path.splitext(member.name)[1].lower() or "(no suffix)"
        if owner is None or not _SUFFIX.match(owner[1]) or owner[1] in beside[owner[0]]:
            passed_over[suffix] += 1
        else:
            beside[owner[0]][owner[1]] = member
    for stem, found in images.items():
        parts = tuple((suffix, member.offset, member.size) for suffix, member in sorted(beside[stem].items()))
        for member in found:
            # As of a folder's files: no escape ends in `%suffix`, so it cannot meet another file's key.
            more = f"%{os.path.splitext(member.name)[1][1:]}" if len(found) > 1 else ""
            yield member, "/".join(map(safe_part, _parts(stem))) + more, parts


class _Stems:
    """The images of a group by their stems, in the order in which readers prefer them."""

    def __init__(self, group: Sequence[TarMember]) -> None:
        self.images: dict[str, list[TarMember]] = {}
        for member in group:
            if is_image_name(member.name):
                self.images.setdefault(_stem(member.name), []).append(member)
        for members in self.images.values():
            members.sort(key=lambda member: IMAGE_SUFFIXES.index(member.name.rpartition(".")[2].lower()))

    def further(self) -> Iterator[str]:
        """What may be a part of another image's sample: its suffix behind that one's stem."""
        for stem, members in self.images.items():
            for member in members:
                suffix = self._suffix(stem, member)
                if suffix is not None:
                    yield suffix

    def samples(self, stem: str, fields: Collection[str]) -> list[TarMember]:
        """The images of this stem that are samples of their own."""
        return [member for member in self.images[stem] if self._suffix(stem, member) not in fields]

    def _suffix(self, stem: str, member: TarMember) -> str | None:
        if member is not self.images[stem][0]:
            return member.name[len(stem) + 1 :].lower()
        found = (suffix for owner, suffix in _prefixes(stem) if owner in self.images)
        suffix = next(found, None)
        if suffix is None or suffix[:1].isdigit():
            return None
        return suffix + os.path.splitext(member.name)[1].lower()


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _prefixes(name: str) -> Iterator[tuple[str, str]]:
    """Each stem that the name may have, from the longest on, and the suffix in lower case behind it."""
    begin = name.rfind("/") + 1
    place = name.rfind(".")
    while place > begin:
        yield name[:place], name[place + 1 :].lower()
        place = name.rfind(".", 0, place)


def _group_name(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _parts(name: str) -> list[str]:
    """Of a path, without ``.``; `tar` writes ``./a.png`` where it is given a folder."""
    return [part for part in name.split("/") if part not in ("", ".")]

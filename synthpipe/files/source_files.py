"""Image folders as a sorted, repeatable list of files, each with a key that is safe in shards.

A key is the path below the folder, without the suffix, as in ``city/night/IMG_0001``.  It must survive WebDataset,
tar, every file system and every URL, so characters that one of them would read in its own way become ``%XX``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from synthpipe.errors import OptionError
from synthpipe.files.folder_walk import image_status, walk_image_folders
from synthpipe.files.output_place import OutputPlace, identity_of

__all__ = ["SourceFile", "SourceFolders", "folder_labels", "refuse_overlap", "safe_part"]

# A dot would end the key for WebDataset; the others are special to file systems, globs or URLs.
_SPECIAL = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029.%\\\\/:*?"<>|]')


class SourceFile(NamedTuple):
    """One image file; ``source`` is its path below the inputs and names it for people."""

    key: str
    source: str
    path: str
    size: int
    mtime_ns: int


@dataclass
class SourceFolders:
    """The images of several folders, in the order of :func:`synthpipe.files.folder_walk.walk_image_folders`.

    Args:
        folders: what to search; where there are several, keys begin with the folder's name.
        output: where what is made of the images goes.

    Raises:
        OptionError: a folder does not exist, or lies in another one (its images would come twice); on the walk, the
            output lies in one.
        ShardError: on the walk, a folder that the disk or network does not list.
    """

    folders: Sequence[str]
    output: OutputPlace | None = None
    #: What the last walk passed over, by suffix or reason.
    ignored: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        roots = [Path(folder).resolve() for folder in self.folders]
        for root, folder in zip(roots, self.folders, strict=True):
            if "://" in folder or not root.is_dir():
                raise OptionError(f"input {folder!r}: expected an existing folder on this machine")
            if self.output is not None:
                self.output.check(identity_of(root.stat()), folder)
        refuse_overlap(self.folders)

    def __iter__(self) -> Iterator[SourceFile]:
        self.ignored.clear()
        roots = [Path(folder).resolve() for folder in self.folders]
        if len(roots) == 1:
            yield from self._files(roots[0], "", "")
            return
        for root, label in zip(roots, folder_labels(roots), strict=True):
            yield from self._files(root, f"{label}/", f"{safe_part(label)}/")

    def _files(self, root: Path, source: str, key: str) -> Iterator[SourceFile]:
        for folder in walk_image_folders(root, self.ignored, self.output):
            key_below = "".join(f"{safe_part(part)}/" for part in folder.below.split("/")[:-1])
            for name, name_key in zip(folder.names, _name_keys(folder.names), strict=True):
                path = os.path.join(folder.path, name)
                status = image_status(path, self.ignored)
                if status is not None:
                    place = source + folder.below + name
                    yield SourceFile(key + key_below + name_key, place, path, status.st_size, status.st_mtime_ns)


def refuse_overlap(folders: Sequence[str]) -> None:
    """Raise OptionError where one of several folders is another, or lies in it: its images would come twice."""
    roots = [Path(folder).resolve() for folder in folders]
    for outer, outer_name in zip(roots, folders, strict=True):
        insiders = [name for root, name in zip(roots, folders, strict=True) if root.is_relative_to(outer)]
        if len(insiders) > 1:
            raise OptionError(f"inputs {insiders} overlap; name only {outer_name!r}, once")


def _name_keys(names: Sequence[str]) -> Iterator[str]:
    """Keys of files of one folder, sorted by stem: the suffix is part of a key where two files share a stem."""
    for position, name in enumerate(names):
        stem, suffix = os.path.splitext(name)
        neighbours = (*names[max(position - 1, 0) : position], *names[position + 1 : position + 2])
        shared = any(os.path.splitext(other)[0] == stem for other in neighbours)
        # No escape ends in `%suffix`, so it cannot meet another file's key.
        yield safe_part(stem) + (f"%{suffix[1:]}" if shared else "")


def safe_part(part: str) -> str:
    """A folder's or file's name as a part of a key."""
    escaped = _SPECIAL.sub(_escape, part)
    # WebDataset passes over members below folders such as `__MACOSX__`.
    return "%5F" + escaped[1:] if escaped.startswith("__") else escaped


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def folder_labels(roots: Sequence[Path]) -> list[str]:
    """The folders' own names, numbered where they repeat."""
    labels: list[str] = []
    for root in roots:
        name = label = root.name or "root"
        number = 1
        while label in labels:
            number += 1
            label = f"{name}~{number}"
        labels.append(label)
    return labels

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

from synthpipe.errors import OptionError, ShardError

__all__ = ["SUFFIXES", "SourceFile", "SourceFolders"]

#: Files with these suffixes (in any case) are taken for images.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")

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
    """Walks several folders in sorted order, to any depth, following links.

    Names that begin with a dot are passed over, as are files that are no images by their suffix.

    Args:
        folders: what to search; where there are several, keys begin with the folder's name.

    Raises:
        OptionError: a folder does not exist, or lies in another one (its images would come twice).
    """

    folders: Sequence[str]
    #: What the last walk passed over, by suffix.
    ignored: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        roots = [Path(folder).resolve() for folder in self.folders]
        for root, folder in zip(roots, self.folders, strict=True):
            if "://" in folder or not root.is_dir():
                raise OptionError(f"input {folder!r}: expected an existing folder on this machine")
        for outer, outer_name in zip(roots, self.folders, strict=True):
            insiders = [name for root, name in zip(roots, self.folders, strict=True) if root.is_relative_to(outer)]
            if len(insiders) > 1:
                raise OptionError(f"inputs {insiders} overlap; name only {outer_name!r}, once")

    def __iter__(self) -> Iterator[SourceFile]:
        self.ignored.clear()
        roots = [Path(folder).resolve() for folder in self.folders]
        if len(roots) == 1:
            yield from self._walk(roots[0], "", "", ())
            return
        for root, label in zip(roots, _labels(roots), strict=True):
            yield from self._walk(root, f"{label}/", f"{_safe_part(label)}/", ())

    def _walk(self, folder: Path, source: str, key: str, above: tuple[tuple[int, int], ...]) -> Iterator[SourceFile]:
        """Files of ``folder`` and below; ``above`` are the folders on the way here, against circular links."""
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            self.ignored["(circular link)"] += 1
            return
        images, folders = self._listing(folder)
        for position, name in enumerate(images):
            stem, suffix = os.path.splitext(name)
            # Sorted by stem, files that differ in their suffix only are neighbours.
            neighbours = images[max(position - 1, 0) : position] + images[position + 1 : position + 2]
            shared = any(os.path.splitext(other)[0] == stem for other in neighbours)
            path = os.path.join(folder, name)
            try:
                file = os.stat(path)
            except FileNotFoundError:
                self.ignored["(dangling link)"] += 1
                continue
            # No escape ends in `%suffix`, so it cannot meet another file's key.
            name_key = _safe_part(stem) + (f"%{suffix[1:]}" if shared else "")
            yield SourceFile(key + name_key, source + name, path, file.st_size, file.st_mtime_ns)
        for name in folders:
            yield from self._walk(folder / name, f"{source}{name}/", f"{key}{_safe_part(name)}/", (*above, identity))

    def _listing(self, folder: Path) -> tuple[list[str], list[str]]:
        """Sorted names of the images and of the folders; names alone, for a folder may hold millions."""
        images, folders = [], []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    if entry.name.startswith("."):
                        self.ignored["(hidden)"] += 1
                    elif entry.is_dir():
                        folders.append(entry.name)
                    elif entry.name.lower().endswith(SUFFIXES):
                        images.append(entry.name)
                    else:
                        self.ignored[os.path.splitext(entry.name)[1].lower() or "(no suffix)"] += 1
        except OSError as error:
            message = f"cannot list the folder {str(folder)!r}: {error.strerror}; its images would be lost"
            raise ShardError(message) from error
        return sorted(images, key=lambda name: "\0".join(os.path.splitext(name))), sorted(folders)


def _safe_part(part: str) -> str:
    escaped = _SPECIAL.sub(_escape, part)
    # WebDataset passes over members below folders such as `__MACOSX__`.
    return "%5F" + escaped[1:] if escaped.startswith("__") else escaped


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def _labels(roots: Sequence[Path]) -> list[str]:
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

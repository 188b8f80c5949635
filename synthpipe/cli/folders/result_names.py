"""Names of the files that are made of a folder's images: no two alike, whatever lies beside what."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = ["PageKey", "ResultNames"]

#: Bytes of a name that file systems take, less ``.png`` and what tells pages and samples.
_LONGEST = 255 - 24


class PageKey(NamedTuple):
    """By which masks and random numbers are found: relative names without suffix, of the file and of a page in it.

    A file keeps its suffix where two differ in it alone.  Of a file with one page both are the same.
    """

    file: str
    page: str


class ResultNames:
    """One for each run.  Names that differ in case alone count as the same: some file systems keep one of them.

    Args:
        paths: the images.
        source: the folder that they are of, or the one image.
        suffixes: what is added to a name for each result of a page, such as ``("_1", "_2")``.
        flat: names without folders, whose names go into them.
        as_they_are: each result replaces its image; the names are those of the images.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        source: Path,
        suffixes: Sequence[str] = ("",),
        *,
        flat: bool = False,
        as_they_are: bool = False,
    ) -> None:
        root = source if source.is_dir() else source.parent
        self._relative = {path: path.relative_to(root) for path in paths}
        self._suffixes = suffixes
        self._flat = flat
        stems = Counter(relative.with_suffix("") for relative in self._relative.values())
        #: Of the files, see :class:`PageKey`.
        self.keys = {
            path: (relative if stems[relative.with_suffix("")] > 1 else relative.with_suffix("")).as_posix()
            for path, relative in self._relative.items()
        }
        # Results beside folders must not be called what a folder is called.
        self._taken = {
            str(folder).casefold() for relative in self._relative.values() for folder in relative.parents if not flat
        }
        self._alike = Counter(self._stem(path).casefold() for path in paths)
        # All names before any is given away: an image of many pages makes room for the others.
        self._names = self.keys if as_they_are else {path: self._free_name(path) for path in paths}

    def pages(self, path: Path, number: int) -> list[str]:
        """Names of the pages of an image, without the suffixes and ``.png``; to be asked for once."""
        if number == 1:
            return [self._names[path]]
        tails = [f"_p{page + 1}" for page in range(number)]
        for name in self._candidates(path):
            if self._take([f"{name}{tail}" for tail in tails]):
                return [f"{name}{tail}" for tail in tails]
        raise AssertionError("candidates do not end")

    def page_keys(self, path: Path, number: int) -> list[PageKey]:
        """Of each page of an image."""
        key = self.keys[path]
        return [PageKey(key, key if number == 1 else f"{key}_p{page + 1}") for page in range(number)]

    @property
    def folders(self) -> set[Path]:
        """Below OUT, where results go."""
        return {Path(name).parent for name in self._names.values()}

    def _free_name(self, path: Path) -> str:
        return next(name for name in self._candidates(path) if self._take([name]))

    def _candidates(self, path: Path) -> chain[str]:
        """The best first: without suffix, unless another image differs in that alone."""
        stem, whole = self._stem(path), self._joined(self._relative[path])
        short = [stem] if self._alike[stem.casefold()] == 1 else []
        return chain(short, [whole], (f"{whole}_{number}" for number in count(2)))

    def _stem(self, path: Path) -> str:
        return self._joined(self._relative[path].with_suffix(""))

    def _joined(self, relative: Path) -> str:
        if not self._flat:
            return relative.as_posix()
        name = "_".join(PurePosixPath(relative).parts)
        data = os.fsencode(name)
        if len(data) <= _LONGEST:
            return name
        return f"{data[: _LONGEST - 17].decode('utf-8', 'ignore')}_{hashlib.blake2b(data, digest_size=8).hexdigest()}"

    def _take(self, names: Sequence[str]) -> bool:
        """Whether all results of these names are free; then they are taken."""
        wanted = {f"{name}{suffix}.png".casefold() for name in names for suffix in self._suffixes}
        if wanted & self._taken:
            return False
        self._taken |= wanted
        return True

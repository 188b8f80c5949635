"""A folder that is written to, as the walk through the input has to know it: a run must not read what a run wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from synthpipe.errors import OptionError
from synthpipe.files.storage import is_local, local_path

__all__ = ["FolderIdentity", "OutputPlace", "identity_of", "local_output"]

#: (device, inode) of a folder: the same by whatever links it is reached.
FolderIdentity = tuple[int, int]


def identity_of(status: os.stat_result) -> FolderIdentity:
    """Of a folder."""
    return status.st_dev, status.st_ino


class OutputPlace:
    """A folder that is written to, which need not exist yet.

    Args:
        path: the folder.
        what: how messages call it, such as ``"OUT"`` or ``"run_dir"``.
        in_place: whether it may be the folder that is read; where it lies inside that, it is left out of the reading.
        cure: what to do where it may not; the end of a sentence.
    """

    def __init__(
        self,
        path: str | Path,
        what: str = "OUT",
        *,
        in_place: bool = False,
        cure: str = "name a folder beside it",
    ) -> None:
        self.path, self.what, self.in_place, self.cure = Path(path), what, in_place, cure
        self._real = Path(os.path.realpath(path))
        self._own = _identity_or_none(self._real)
        #: The folder and all that it lies in, as far as they exist.
        self._around = {
            identity for place in (self._real, *self._real.parents) if (identity := _identity_or_none(place))
        }

    def check(self, identity: FolderIdentity, path: str) -> None:
        """Told of every folder that is read.

        Raises:
            OptionError: this one is that folder, or lies inside it, by whatever links.
        """
        if not self.in_place and identity in self._around:
            where = "is" if identity == self._own else "lies inside"
            raise OptionError(
                f"{self.what} {str(self.path)!r} {where} {path!r}, which is read: the next run would take what this "
                f"one wrote for its input; {self.cure}"
            )

    def check_folders(self, read: Iterable[Path], written: Iterable[Path]) -> None:
        """Told of the folders of all images, and of those below this one that are written to.

        Raises:
            OptionError: one is both, by whatever links.
        """
        identities = {_identity_or_none(folder) for folder in read} - {None}
        for folder in sorted(written):
            if _identity_or_none(self.path / folder) in identities:
                raise OptionError(
                    f"{self.what} {str(self.path)!r}: results would be written to {str(self.path / folder)!r}, which "
                    f"is read; {self.cure}"
                )

    def check_file(self, read: Path, name: str) -> None:
        """Told of the one image that is read and of the name, without suffix, of what is made of it.

        Raises:
            OptionError: the one would replace the other.
        """
        written = self.path / f"{name}.png"
        if written.exists() and written.samefile(read):
            raise OptionError(f"{self.what} {str(self.path)!r}: the result would replace {str(read)!r}; {self.cure}")

    def is_at(self, folder: Path) -> bool:
        """Whether ``folder`` is this one."""
        return self._own is not None and _identity_or_none(folder) == self._own

    def is_left_out(self, identity: FolderIdentity, below: str) -> bool:
        """Whether a folder on the walk, at ``below`` the root, is this one and not the root itself."""
        return self.in_place and bool(below) and identity == self._own


def local_output(url: str, what: str = "OUT", cure: str = "name a folder beside it") -> OutputPlace | None:
    """The place that a path or URL names; None where it is not on this machine."""
    return OutputPlace(local_path(url), what, cure=cure) if is_local(url) else None


def _identity_or_none(path: Path) -> FolderIdentity | None:
    try:
        return identity_of(os.stat(path))
    except OSError:
        return None

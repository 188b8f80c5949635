"""The one walk through a folder of images, behind every command: what is an image, what is passed over and why.

Links to folders are followed; a folder that lies on the way to itself is not entered again.  What is passed over is
counted: files by their suffix, everything else by one of the reasons below, which stand in parentheses so that no
suffix can be taken for them.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from synthpipe.errors import ShardError
from synthpipe.files.image_formats import IMAGE_SUFFIXES, has_image_suffix
from synthpipe.files.output_place import FolderIdentity, OutputPlace, identity_of

__all__ = ["ImageFolder", "expected_images", "image_status", "passed_over_text", "walk_image_folders"]

HIDDEN = "(hidden)"
NO_SUFFIX = "(no suffix)"
DANGLING_LINK = "(dangling link)"
CIRCULAR_LINK = "(circular link)"
UNREADABLE_FOLDER = "(unreadable folder)"
UNREADABLE = "(unreadable)"
NOT_REGULAR = "(not a regular file)"
OUTPUT_FOLDER = "(output folder)"

_log = logging.getLogger(__name__)

#: A link whose end is missing, lies below a file, or is the link itself.
_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
#: Kinds that a message names; a folder of numbered files may have thousands of suffixes.
_KINDS_SHOWN = 8


class ImageFolder(NamedTuple):
    """A folder on the walk: where it is, its path below the root (``""`` or ``"city/night/"``), its images' names."""

    path: str
    below: str
    names: list[str]


def walk_image_folders(
    root: str | Path, passed_over: Counter[str], output: OutputPlace | None = None
) -> Iterator[ImageFolder]:
    """Every folder from ``root`` down, a folder before those in it, each with what is an image by its name.

    Names are sorted by code points, files by their stems first, so that files that differ in their suffix alone are
    neighbours.  Names that begin with a dot are passed over.  Only the names in one folder, and in those on the way to
    it, are held at a time.

    Args:
        root: an existing folder.
        passed_over: is added to.
        output: where what is made of the images goes; it is no part of the walk.

    Raises:
        OptionError: ``output`` is a folder on the walk or lies inside one, and may not.
        ShardError: a folder that cannot be listed for another reason than missing permission (disk, network).
    """
    pending: list[tuple[str, str, tuple[FolderIdentity, ...]]] = [(os.fspath(root), "", ())]
    while pending:
        path, below, above = pending.pop()
        try:
            identity = identity_of(os.stat(path))
            if identity in above:
                passed_over[CIRCULAR_LINK] += 1
                continue
            if output is not None:
                output.check(identity, path)
                if output.is_left_out(identity, below):
                    passed_over[OUTPUT_FOLDER] += 1
                    continue
            images, folders = _listing(path, passed_over)
        except PermissionError as error:
            passed_over[UNREADABLE_FOLDER] += 1
            _log.warning("cannot list the folder %r: %s; what it holds is left out", path, error.strerror)
            continue
        except OSError as error:
            raise ShardError(f"cannot list the folder {path!r}: {error.strerror}; its images would be lost") from error
        yield ImageFolder(path, below, images)
        inside = (*above, identity)
        pending += [(os.path.join(path, name), f"{below}{name}/", inside) for name in reversed(folders)]


def image_status(path: str, passed_over: Counter[str]) -> os.stat_result | None:
    """Size and times of what is an image by its name; None, and counted, where it is no file that can be read.

    Raises:
        ShardError: the disk or network does not say.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        passed_over[_reason(error, path)] += 1
        return None
    if not stat.S_ISREG(status.st_mode):
        # Reading a named pipe would wait for ever.
        passed_over[NOT_REGULAR] += 1
        return None
    return status


def passed_over_text(passed_over: Mapping[str, int]) -> str:
    """Counts for a message, the most frequent first, as in ``"12 .bmp, 1 (hidden)"``; empty where there are none."""
    kinds = sorted(passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f"{count} {kind if kind.isprintable() else ascii(kind)}" for kind, count in kinds[:_KINDS_SHOWN]]
    rest = sum(count for _, count in kinds[_KINDS_SHOWN:])
    return ", ".join([*shown, f"{rest} of other kinds"] if rest else shown)


def expected_images(passed_over: Mapping[str, int]) -> str:
    """The end of a message on a folder without images: what counts as an image, and what was found instead."""
    found = passed_over_text(passed_over) or "nothing"
    tars = "; tars are packed by `synthpipe shard 'FOLDER/*.tar' OUT_DIR`" if ".tar" in passed_over else ""
    return f"expected files ending in {', '.join(IMAGE_SUFFIXES)}, found {found}{tars}"


def _listing(path: str, passed_over: Counter[str]) -> tuple[list[str], list[str]]:
    """Sorted names of the images and of the folders; names alone, for a folder may hold millions."""
    images: list[str] = []
    folders: list[str] = []
    with os.scandir(path) as found:
        for entry in found:
            if entry.name.startswith("."):
                passed_over[HIDDEN] += 1
            elif _is_folder(entry):
                folders.append(entry.name)
            elif has_image_suffix(entry.name):
                images.append(entry.name)
            else:
                passed_over[_why_no_image(entry)] += 1
    return sorted(images, key=lambda name: "\0".join(os.path.splitext(name))), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also through a link; False for one that leads nowhere or to where we may not look."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in _NOTHING_THERE or isinstance(error, PermissionError):
            return False
        raise


def _why_no_image(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        # Perhaps to a folder of images on a disk that is not mounted: more than a file of no interest.
        try:
            os.stat(entry.path)
        except OSError as error:
            return _reason(error, entry.path)
    return os.path.splitext(entry.name)[1].lower() or NO_SUFFIX


def _reason(error: OSError, path: str) -> str:
    if isinstance(error, PermissionError):
        return UNREADABLE
    if error.errno in _NOTHING_THERE:
        return DANGLING_LINK
    raise ShardError(f"cannot look at {path!r}: {error.strerror}; the image would be lost") from error

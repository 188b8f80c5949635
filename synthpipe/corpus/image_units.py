"""What is scored and filtered in one go: the images of a shard, or a run of files of a folder.

Every image has a key and a path, also one that cannot be used; the order is that of the storage, always the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

from synthpipe.errors import OptionError, ShardError, counted, excerpt
from synthpipe.files.byte_source import is_local, open_remote
from synthpipe.files.folder_walk import expected_images
from synthpipe.files.output_place import OutputPlace
from synthpipe.files.printable import printable
from synthpipe.files.source_files import SourceFile, SourceFolders
from synthpipe.files.storage import absolute_url, file_stamp, local_path
from synthpipe.shards.sample_note import read_note
from synthpipe.shards.shard_index import INDEX_NAME, PLAN_NAME
from synthpipe.shards.shard_names import COMPRESSED_SUFFIXES, SHARD_SUFFIXES, expand_urls, listed_shards
from synthpipe.shards.tar_walk import TarMember, TarSample, read_member, walk_samples
from synthpipe.shards.unused_images import NO_IMAGES, UnusedImages

__all__ = [
    "FolderUnit",
    "ShardUnit",
    "StoredImage",
    "Unit",
    "find_units",
    "is_image_file",
    "is_image_folder",
    "printable",
]

_log = logging.getLogger(__name__)

#: Files of a folder in one unit.
_FILES = 200


@dataclass(eq=False)
class StoredImage:
    """One image as it is stored.

    ``data`` is its file; empty where ``problem`` says what is wrong.  ``path`` is the member of the shard or the file
    below the folder, ``origin`` the path that it once had where that is known.  ``members`` are all that the shard
    holds of the sample, where it can be used.  ``unused`` are image files beside it that no sample uses.
    """

    key: str
    path: str
    origin: str
    data: bytes = b""
    problem: str | None = None
    members: tuple[TarMember, ...] = ()
    unused: UnusedImages = NO_IMAGES
    #: Where a folder's file lies.
    file: str = ""


@dataclass(frozen=True)
class ShardUnit:
    """A tar shard; ``label`` tells it from the corpus' others, ``listed`` are samples and bytes by its index."""

    label: str
    url: str
    listed: tuple[int, int] | None = None

    def fingerprint(self) -> str | None:
        """Another one when the shard has another size or modification time; None where that cannot be known.

        As ``make`` and ``rsync`` have it: bytes that were changed behind the same size and time are found by who
        compares checksums, and copies that keep the time are scored no second time.

        Raises:
            ShardError: there is no such shard.
        """
        if self.url.startswith("pipe:"):
            return None
        return hashlib.sha256(file_stamp(self.url).encode()).hexdigest()

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, Iterator[StoredImage]]]:
        """The shard's file, a local copy of a remote one, and its images in order.

        All samples are read, whatever the index says; where that is something else, the log says so.

        Raises:
            ShardError: it cannot be opened or fetched.
        """
        with _local_file(self.url) as file:
            yield file, self._compared(_images_of_shard(file), os.fstat(file.fileno()).st_size)

    def _compared(self, images: Iterator[StoredImage], size: int) -> Iterator[StoredImage]:
        samples = 0
        for image in images:
            samples += 1
            yield image
        if self.listed is not None and self.listed != (samples, size):
            _log.warning(
                "%s: holds %s in %d bytes, and by its index %d in %d: all are read; make the index anew with "
                "`synthpipe shard`, or remove it",
                self.url,
                counted(samples, "sample"),
                size,
                *self.listed,
            )


@dataclass(frozen=True)
class FolderUnit:
    """Some files of a folder, one after another."""

    label: str
    entries: tuple[SourceFile, ...]

    def fingerprint(self) -> str:
        """Another one when a file was added, removed, renamed, or has another size or modification time."""
        lines = [[entry.key, entry.source, entry.size, entry.mtime_ns] for entry in self.entries]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    @contextmanager
    def open(self) -> Iterator[tuple[None, Iterator[StoredImage]]]:
        """The images in order."""
        yield None, map(_image_of_file, self.entries)


Unit = ShardUnit | FolderUnit


def find_units(
    source: Sequence[str],
    *,
    allow_pipe: bool = False,
    passed_over: Counter[str] | None = None,
    output: OutputPlace | None = None,
    expected: str = "a folder of images, or shards (tars, their folder or index)",
) -> list[ShardUnit] | list[FolderUnit]:
    """Shards in any spelling that :func:`synthpipe.shards.shard_names.expand_urls` takes, or folders of images.

    Args:
        source: paths, patterns and URLs.
        allow_pipe: whether ``pipe:`` URLs may run shell commands.
        passed_over: counts of what lies in folders beside the images, by suffix or reason, are added here.
        output: a folder that images or shards are written to, which must not be read.
        expected: what errors on a place that is neither say.

    Raises:
        OptionError: shards and folders of images at once, ``pipe:`` that is not allowed, a shard named twice; or
            ``output`` is where the shards lie, is a folder of images or lies in one.
        ShardError: no images, no shards, or compressed ones.
    """
    folders = [place for place in source if is_image_folder(place)]
    if folders and len(folders) < len(source):
        other = next(place for place in source if place not in folders)
        raise OptionError(f"{folders[0]!r} is a folder of images and {other!r} is not; take them one after the other")
    if folders:
        return _folder_units(folders, passed_over, output)
    _check_places(source, expected)
    urls = expand_urls(list(source), allow_pipe=allow_pipe)
    for url in urls:
        if url.endswith(COMPRESSED_SUFFIXES):
            raise ShardError(f"{url}: compressed shards cannot be copied from in parts; unpack it to a plain .tar")
    if output is not None:
        output.check_folders({Path(local_path(url)).parent for url in urls if is_local(url)}, [Path()])
    listed = {url: (shard.samples, shard.bytes) for url, shard in listed_shards(urls, "it is not looked at").items()}
    return [ShardUnit(label, _absolute(url), listed.get(url)) for label, url in zip(_labels(urls), urls, strict=True)]


def _check_places(source: Sequence[str], expected: str) -> None:
    """Refuse a name that is neither folder nor shards, before it is taken for a pattern of shards."""
    for place in source:
        if "://" in place or place.startswith("pipe:") or any(mark in place for mark in "*?[{"):
            continue
        if is_image_file(place):
            raise ShardError(f"{place!r} is a file that is no tar; expected {expected}")
        path = Path(local_path(place)).absolute()
        if not path.exists() and not place.endswith(SHARD_SUFFIXES):
            raise ShardError(
                f"no images and no shards at {excerpt(place)}: expected {expected}, found no {str(path)!r}"
            )


def is_image_file(place: str) -> bool:
    """Whether this is a file on this machine that cannot be shards by its name: what is told by its bytes."""
    return "://" not in place and not place.endswith(SHARD_SUFFIXES) and Path(place).is_file()


def _absolute(url: str) -> str:
    """Workers of a cluster have working folders of their own."""
    return absolute_url(url) if is_local(url) else url


def is_image_folder(place: str) -> bool:
    """Whether this is a folder on this machine that holds no shards."""
    if "://" in place or place.startswith("pipe:") or not Path(place).is_dir():
        return False
    folder = Path(place)
    return not ((folder / INDEX_NAME).exists() or (folder / PLAN_NAME).exists() or any(folder.glob("*.tar")))


def _folder_units(folders: list[str], passed_over: Counter[str] | None, output: OutputPlace | None) -> list[FolderUnit]:
    found = SourceFolders(folders, output)
    files = iter(found)
    units: list[FolderUnit] = []
    while entries := tuple(itertools.islice(files, _FILES)):
        units.append(FolderUnit(f"images-{len(units):06d}", entries))
    if not units:
        raise ShardError(f"no images and no shards in {', '.join(folders)}: {expected_images(found.ignored)}")
    if passed_over is not None:
        passed_over.update(found.ignored)
    return units


def _labels(urls: list[str]) -> list[str]:
    """The names of the shards without the folders that all have in common; the same wherever the corpus lies."""
    if any(url.startswith("pipe:") for url in urls):
        return [f"{number:06d}" for number in range(len(urls))]
    parts = [url.split("/") for url in urls]
    common = 0
    while len({tuple(names[: common + 1]) for names in parts}) == 1 and common + 1 < min(map(len, parts)):
        common += 1
    return ["/".join(names[common:]) for names in parts]


@contextmanager
def _local_file(url: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            if is_local(url):
                if not S_ISREG(os.stat(local_path(url)).st_mode):
                    raise ShardError(f"{url}: expected a tar, found no regular file")
                file: Any = stack.enter_context(open(local_path(url), "rb"))
            else:
                file = stack.enter_context(tempfile.TemporaryFile())
                with open_remote(url) as remote:
                    shutil.copyfileobj(remote, file, 1 << 20)
                file.seek(0)
        except FileNotFoundError as error:
            raise ShardError(f"{url}: no such shard") from error
        except ShardError:
            raise
        # Remote file systems raise their client library's own errors; as OSError the engine tries again.
        except Exception as error:
            raise OSError(f"{url}: cannot be read: {type(error).__name__}: {error}") from error
        yield file


def _images_of_shard(file: BinaryIO) -> Iterator[StoredImage]:
    """The image of each sample; where the tar is damaged, one more that says so."""
    return (_image_of_sample(file, sample) for sample in walk_samples(file))


def _image_of_sample(file: BinaryIO, sample: TarSample) -> StoredImage:
    member, note = sample.image, sample.members.get("json")
    name = sample.key if member is None else member.name
    origin = None
    if member is not None and note is not None and sample.problem in (None, "duplicate_key"):
        origin = _origin(read_note(file, note))
    if member is None or sample.problem is not None:
        return StoredImage(sample.key, name, origin or name, problem=sample.problem, unused=sample.unused)
    parts = tuple(sample.members.values())
    data = read_member(file, member)
    return StoredImage(sample.key, name, origin or name, data, members=parts, unused=sample.unused)


def _origin(note: dict[str, Any] | None) -> str | None:
    """What `synthpipe shard` noted as the image's path."""
    source = None if note is None else note.get("source")
    return source if isinstance(source, str) else None


def _image_of_file(entry: SourceFile) -> StoredImage:
    image = StoredImage(entry.key, entry.source, entry.source, file=entry.path)
    try:
        image.data = Path(entry.path).read_bytes()
    except OSError as error:
        if not isinstance(error, PermissionError | FileNotFoundError):
            raise
        image.problem = "unreadable"
    return image

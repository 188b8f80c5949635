"""What `synthpipe shard` reads: folders of images and tars of images, in one order with keys that do not meet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from synthpipe.errors import OptionError, ShardError
from synthpipe.files.folder_walk import walk_image_folders
from synthpipe.files.output_place import OutputPlace
from synthpipe.files.source_files import SourceFile, SourceFolders, folder_labels, safe_part
from synthpipe.files.storage import is_local, local_path
from synthpipe.shards.shard_index import INDEX_NAME
from synthpipe.shards.shard_names import COMPRESSED_SUFFIXES, expand_urls
from synthpipe.shards.tar_images import TarImage, tar_images

__all__ = ["ImageSources"]


class ImageSources:
    """The images of all inputs, in their order.

    Args:
        inputs: folders of images; tars, patterns of tars, indexes of shards and folders with an index and no image.
            Where there is more than one folder and tar, keys begin with its name.
        output: where what is made of the images goes.

    Raises:
        OptionError: an input that is none of these or not on this machine, one that is named twice or lies in another,
            compressed tars; on the walk, the output lies in one.
        ShardError: no tar at all where some are named; on the walk, what the disk does not give.
    """

    def __init__(self, inputs: Sequence[str], output: OutputPlace | None = None) -> None:
        self.inputs = inputs
        #: What the last walk passed over, by suffix or reason.
        self.ignored: Counter[str] = Counter()
        self._output = output
        self._tars = {place: _tars_at(place) for place in inputs if _is_of_tars(place)}
        if self._tars:
            expand_urls([tar for tars in self._tars.values() for tar in tars])
        folders = [place for place in inputs if place not in self._tars]
        self._folders = SourceFolders(folders, output)

    def __iter__(self) -> Iterator[SourceFile | TarImage]:
        if not self._tars:
            yield from self._folders
            self.ignored = self._folders.ignored
            return
        self.ignored = Counter()
        places = [place for entry in self.inputs for place in self._tars.get(entry, [entry])]
        roots = [Path(local_path(place)).absolute() for place in places]
        labels = folder_labels([root.with_suffix("") if root.is_file() else root for root in roots])
        for root, label in zip(roots, labels, strict=True):
            key = f"{safe_part(label)}/" if len(roots) > 1 else ""
            if root.is_file():
                yield from tar_images(str(root), label if key else root.name, key, self.ignored)
            else:
                yield from self._of_folder(str(root), label, key)

    def _of_folder(self, folder: str, label: str, key: str) -> Iterator[SourceFile]:
        found = SourceFolders([folder], self._output)
        for file in found:
            yield file._replace(key=key + file.key, source=f"{label}/{file.source}" if key else file.source)
        self.ignored.update(found.ignored)


def _is_of_tars(place: str) -> bool:
    """Whether an input names tars; a folder that holds images as well is one of images."""
    path = Path(local_path(place))
    if path.is_dir():
        return (path / INDEX_NAME).is_file() and not any(folder.names for folder in walk_image_folders(path, Counter()))
    return (
        path.is_file() or place.endswith((".tar", ".json")) or any(mark in place for mark in "*?[{") or "://" in place
    )


def _tars_at(place: str) -> list[str]:
    if place.startswith("pipe:") or not is_local(place):
        raise OptionError(f"input {place!r}: tars are read in parts, in any order; copy them to this machine first")
    path = Path(local_path(place))
    if path.is_file() and path.suffix not in (".tar", ".json", *COMPRESSED_SUFFIXES):
        raise OptionError(f"input {place!r}: expected a folder of images, a tar, or a folder or index of shards")
    tars = expand_urls(place)
    for tar in tars:
        if tar.endswith(COMPRESSED_SUFFIXES):
            raise ShardError(f"{tar}: compressed tars cannot be read in parts; unpack it to a plain .tar")
        if not os.path.isfile(local_path(tar)):
            raise OptionError(f"input {tar!r}: expected a tar on this machine, found no such file")
    return [local_path(tar) for tar in tars]

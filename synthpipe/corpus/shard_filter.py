"""The kept part of one scored shard, of the very bytes of its samples; or of some files of a folder.

Every image is compared with what was scored; of a shard that differs nothing is published.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, assert_never

from synthpipe.corpus.image_units import FolderUnit, ShardUnit, StoredImage, Unit, printable
from synthpipe.corpus.keep_rule import State
from synthpipe.corpus.unit_job import UnitJob, unused_facts
from synthpipe.errors import ImageError, OptionError, ShardError, counted
from synthpipe.files.decode import decode_image, encode_png, thumbnail
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.job_result import JobResult, finished_earlier, publish_result
from synthpipe.shards.tar_sink import TarSink
from synthpipe.shards.unused_images import NO_IMAGES

__all__ = ["KEPT_FOLDER", "FilterJob", "Shown", "UnitKept", "filter_unit"]

#: Below the output folder: links to the kept files, or copies.
KEPT_FOLDER = "images"


#: Pixels of the pictures in the report: the whole image made small, and a piece of it as it is.
_SMALL = 128
_PIECE = 128


@dataclass(frozen=True)
class Shown:
    """Pictures of one image for the report: all of it, reduced, and its middle as it is; PNG files."""

    small: bytes
    piece: bytes


@dataclass(frozen=True, kw_only=True)
class FilterJob(UnitJob):
    """All that :func:`filter_unit` needs.

    Args:
        unit, output, scratch: see :class:`UnitJob`.
        target: file name of the new shard.
        keys, sha256, states: of the unit's images in order, as they were scored.
        shown: places of the images that the report wants to show.
        files: what is made of the kept files of a folder.
    """

    target: str
    keys: tuple[str, ...]
    sha256: tuple[str | None, ...]
    states: bytes
    shown: tuple[int, ...]
    files: Literal["list", "link", "copy"]


@dataclass
class UnitKept(JobResult):
    """What became of one unit; ``pictures`` are base64 of :class:`Shown`, by place in it.

    ``beside`` counts image files that no sample uses, by reason, and ``unused`` says which and why.
    """

    pictures: dict[str, list[str]] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)
    unused: str = ""


def filter_unit(job: FilterJob) -> UnitKept:
    """Write the kept part of one shard, unless an earlier run has; a plain function, so that any engine can run it.

    Raises:
        ShardError: the images are not those that were scored; the shard cannot be read or the kept part not written.
    """
    finished = _finished_earlier(job)
    if finished is not None:
        return finished
    result = UnitKept(job.name, source=_source(job.unit))
    with job.scratch_folder() as scratch, job.unit.open() as (file, images), ExitStack() as stack:
        sink = stack.enter_context(TarSink(scratch / job.target)) if file is not None else None
        unused = NO_IMAGES
        for place, image in _checked(images, job):
            unused += image.unused
            if job.states[place] == State.KEPT:
                result.samples += 1
                if sink is not None and file is not None:
                    sink.copy(file, (member.block for member in image.members))
                elif job.files != "list":
                    _place_file(image, job.output, job.files)
            if place in job.shown:
                result.pictures[str(place)] = [base64.b64encode(data).decode() for data in _pictures(image)]
        if sink is not None:
            sink.close()
        result = replace(result, **unused_facts(unused, job.unit))
        publish_result(result, job.target, job.output, scratch, sink)
    return result


def _finished_earlier(job: FilterJob) -> UnitKept | None:
    if isinstance(job.unit, ShardUnit):
        return finished_earlier(UnitKept, job.name, job.target, job.output)
    # Links and copies are made again: nothing says that all of them are still there.
    if job.files != "list":
        return None
    return finished_earlier(UnitKept, job.name, job.target, job.output, source=_source(job.unit), verify=None)


def _source(unit: Unit) -> str | None:
    """Of kept shards the bytes are those that were scored, whatever the source has become; of files there is a list."""
    return unit.fingerprint() if isinstance(unit, FolderUnit) else None


def _checked(images: Iterator[StoredImage], job: FilterJob) -> Iterator[tuple[int, StoredImage]]:
    """The images with their places, each compared with what was scored."""
    remedy = "the scores are of another state of it; run `synthpipe score` again"
    place = -1
    for place, image in enumerate(images):
        if place >= len(job.keys):
            raise ShardError(f"{job.name}: image {printable(image.key)!r} has no score, {place} have; {remedy}")
        if printable(image.key) != job.keys[place]:
            raise ShardError(f"{job.name}: image {place} is {image.key!r}, scored was {job.keys[place]!r}; {remedy}")
        digest = None if image.problem else hashlib.sha256(image.data).hexdigest()
        if digest != job.sha256[place]:
            kept = "where its size and modification time are as they were, remove the table's .parts folder first"
            raise ShardError(
                f"{job.name}: image {image.key!r} has other bytes than the one that was scored; {remedy}; {kept}"
            )
        yield place, image
    if place + 1 < len(job.keys):
        raise ShardError(f"{job.name}: holds {counted(place + 1, 'image')}, scored were {len(job.keys)}; {remedy}")


def _place_file(image: StoredImage, output: OutputFolder, mode: Literal["link", "copy"]) -> None:
    target = Path(output.url.removeprefix("file://")) / KEPT_FOLDER / image.path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.tmp")
    temporary.unlink(missing_ok=True)
    match mode:
        case "copy":
            shutil.copy2(image.file, temporary)
        case "link":
            try:
                os.link(os.path.realpath(image.file), temporary)
            except OSError as error:
                raise OptionError(
                    f"{target}: no link can be made to {image.file} ({error.strerror}); use files: copy"
                ) from error
        case _:
            assert_never(mode)
    os.replace(temporary, target)
    # A rename onto another name of the same file does nothing, by POSIX.
    temporary.unlink(missing_ok=True)


def _pictures(image: StoredImage) -> tuple[bytes, bytes]:
    """All of the image reduced, and its middle at its own size; empty where it cannot be decoded."""
    try:
        pixels = decode_image(image.data, image.path).pixels
    except ImageError:
        return b"", b""
    height, width = pixels.shape[:2]
    top, left = max(height - _PIECE, 0) // 2, max(width - _PIECE, 0) // 2
    small, piece = thumbnail(pixels, _SMALL), pixels[top : top + _PIECE, left : left + _PIECE]
    return encode_png(small, optimize=True), encode_png(piece, optimize=True)

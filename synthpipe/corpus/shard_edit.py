"""One shard with each image replaced by an edited one: the same samples under the same keys in the same order.

Everything of a sample but its image is taken over byte for byte; only the facts of the image's file that `synthpipe
shard` notes beside it are brought up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from synthpipe.corpus.image_units import ShardUnit, StoredImage, printable
from synthpipe.corpus.unit_job import UnitJob
from synthpipe.errors import ImageError
from synthpipe.files.decode import decode_image, encode_png
from synthpipe.shards.job_result import CountedResult, finished_earlier, publish_result
from synthpipe.shards.sample_note import read_note
from synthpipe.shards.tar_sink import TarSink
from synthpipe.shards.unused_images import UNUSED_IMAGE, unused_text

__all__ = ["EditJob", "ImageEdit", "UnitEdited", "edit_shard"]

Pixels = NDArray[np.uint8]


class ImageEdit(Protocol):
    """What is done to each image.  It crosses process borders, and comes to life where the work is."""

    def identity(self) -> dict[str, Any]:
        """Plain values that say what it does; a run goes on only with the same ones."""

    def open(self) -> Callable[[Pixels], Pixels]:
        """The edit itself: ``(H, W, 3)`` uint8, RGB -> the same; raises ImageError for an image that it cannot take."""


@dataclass(frozen=True, kw_only=True)
class EditJob(UnitJob):
    """All that :func:`edit_shard` needs.

    Args:
        unit, output, scratch: see :class:`UnitJob`.
        target: file name of the new shard.
        edit: what is done to each image.
        broken: samples whose image cannot be edited are left out, or taken over as they are.
    """

    unit: ShardUnit
    target: str
    edit: ImageEdit
    broken: Literal["skip", "copy"]


@dataclass
class UnitEdited(CountedResult):
    """What became of one shard; ``counts`` and ``broken`` are images that were not edited, also those taken over.

    ``further`` are image files beside a sample's own, which go with it as they are.
    """

    edited: int = 0
    further: int = 0


def edit_shard(job: EditJob) -> UnitEdited:
    """Write one edited shard, unless an earlier run has; a plain function, so that any engine can run it.

    The file appears under its name when it is whole.  At any time one image is in memory.

    Raises:
        ShardError: the shard cannot be read or the new one not written.
    """
    source = job.unit.fingerprint()
    if source is not None:
        finished = finished_earlier(UnitEdited, job.name, job.target, job.output, source=source)
        if finished is not None:
            return finished
    result = UnitEdited(job.name, source=source)
    edit = job.edit.open()
    with job.scratch_folder() as scratch, job.unit.open() as (file, images), TarSink(scratch / job.target) as sink:
        for image in images:
            _take_over(file, image, edit, job.broken, sink, result)
            _tell_of_unused(image, job.unit.url, result)
        sink.close()
        publish_result(result, job.target, job.output, scratch, sink)
    return result


def _take_over(
    file: BinaryIO,
    image: StoredImage,
    edit: Callable[[Pixels], Pixels],
    broken: Literal["skip", "copy"],
    sink: TarSink,
    result: UnitEdited,
) -> None:
    try:
        if image.problem is not None:
            raise ImageError(f"{image.path or 'the shard'}: {image.problem.replace('_', ' ')}", image.problem)
        pixels = edit(decode_image(image.data, image.path).pixels)
    except ImageError as error:
        result.leave_out(error.reason, printable(image.path), printable(str(error)))
        if broken == "copy" and image.members:
            sink.copy(file, (member.block for member in image.members))
            result.samples += 1
        return
    _write_sample(file, image, pixels, sink)
    result.samples += 1
    result.edited += 1


def _tell_of_unused(image: StoredImage, shard: str, result: UnitEdited) -> None:
    """Image files that no sample uses are not edited; of a sample's unused ones the first is listed."""
    unused = image.unused
    result.further += unused.further
    if unused.unused:
        result.leave_out(UNUSED_IMAGE, printable(unused.example), printable(unused_text(unused, shard)))
        result.counts[UNUSED_IMAGE] += unused.unused - 1


def _write_sample(file: BinaryIO, image: StoredImage, pixels: Pixels, sink: TarSink) -> None:
    data = encode_png(pixels)
    for member in image.members:
        if member.name == image.path:
            # Of several images readers take the PNG first, so that this one is what they find.
            sink.add(f"{image.key}.png", data)
            continue
        about = None
        if member.name.lower() == f"{image.key}.json".lower():
            about = _about(read_note(file, member), image.data, data, pixels)
        if about is None:
            sink.copy(file, [member.block])
        else:
            sink.add(member.name, about)


def _about(about: dict[str, Any] | None, before: bytes, after: bytes, pixels: Pixels) -> bytes | None:
    """The note of `synthpipe shard` for the new file; None where the note is another one."""
    if about is None or about.get("sha256") != hashlib.sha256(before).hexdigest():
        return None
    height, width = pixels.shape[:2]
    facts = {"width": width, "height": height, "format": "png", "bytes": len(after)}
    about |= {name: value for name, value in facts.items() if name in about}
    return json.dumps(about | {"sha256": hashlib.sha256(after).hexdigest()}, sort_keys=True).encode()

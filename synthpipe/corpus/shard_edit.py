"""One shard with each image replaced by an edited one: the same samples under the same keys in the same order.

Images stay what they were: grey, with alpha and EXIF, of their depth and range.
Everything of a sample but its image is taken over byte for byte; only the facts of the image's file that `synthpipe
shard` notes beside it are brought up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO, Literal, Protocol

from numpy.typing import NDArray

from synthpipe.corpus.image_units import ShardUnit, StoredImage, printable
from synthpipe.corpus.unit_job import UnitJob
from synthpipe.errors import ImageError
from synthpipe.files.decoding.srgb import FURTHER_PAGES
from synthpipe.files.original import Original, encode_original, read_pages
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.shards.job_result import CountedResult, finished_earlier, publish_result
from synthpipe.shards.sample_note import read_note
from synthpipe.shards.tar_sink import TarSink
from synthpipe.shards.unused_images import UNUSED_IMAGE, unused_text

__all__ = ["EditJob", "ImageEdit", "ImageReading", "UnitEdited", "edit_shard"]

#: Colours ``(H, W, 1)`` or ``(H, W, 3)`` and alpha ``(H, W, 1)`` or None, as :class:`Original` has them.
Pixels = tuple[NDArray[Any], NDArray[Any] | None]


@dataclass(frozen=True)
class ImageReading:
    """How images are read: see :func:`synthpipe.files.original.read_pages`.

    Args:
        value_range, max_pixels: as there.
        refuse_pages: leave out images with several pages, in place of using the first.
    """

    value_range: int | None = None
    max_pixels: int = MAX_PIXELS
    refuse_pages: bool = False

    def identity(self) -> dict[str, Any]:
        """What is not as usual; a run goes on only with the same."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    def read(self, data: bytes, name: str) -> Original:
        """The first page.

        Raises:
            ImageError: it cannot be read, or further ones are refused.
        """
        page = next(read_pages(data, name, value_range=self.value_range, max_pixels=self.max_pixels))
        if page.pages > 1 and self.refuse_pages:
            raise ImageError(f"{name}: has {page.pages} pages, which are refused here", "pages")
        return page


class ImageEdit(Protocol):
    """What is done to each image.  It crosses process borders, and comes to life where the work is."""

    def identity(self) -> dict[str, Any]:
        """Plain values that say what it does; a run goes on only with the same ones."""

    def open(self) -> Callable[[Original], Pixels]:
        """The edit itself, of the same dtype and range; raises ImageError for an image that it cannot take."""


@dataclass(frozen=True, kw_only=True)
class EditJob(UnitJob):
    """All that :func:`edit_shard` needs.

    Args:
        unit, output, scratch: see :class:`UnitJob`.
        target: file name of the new shard.
        edit: what is done to each image.
        broken: samples whose image cannot be edited are left out, or taken over as they are.
        reading: how images are read.
    """

    unit: ShardUnit
    target: str
    edit: ImageEdit
    broken: Literal["skip", "copy"]
    reading: ImageReading = ImageReading()


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
            _take_over(file, image, edit, job, sink, result)
            _tell_of_unused(image, job.unit.url, result)
        sink.close()
        publish_result(result, job.target, job.output, scratch, sink)
    return result


def _take_over(
    file: BinaryIO,
    image: StoredImage,
    edit: Callable[[Original], Pixels],
    job: EditJob,
    sink: TarSink,
    result: UnitEdited,
) -> None:
    try:
        if image.problem is not None:
            raise ImageError(f"{image.path or 'the shard'}: {image.problem.replace('_', ' ')}", image.problem)
        page = job.reading.read(image.data, image.path)
        pixels = edit(page)
    except ImageError as error:
        result.leave_out(error.reason, printable(image.path), printable(str(error)))
        if job.broken == "copy" and image.members:
            sink.copy(file, (member.block for member in image.members))
            result.samples += 1
        return
    given_up = dict(page.given_up)
    if page.pages > 1:
        given_up[FURTHER_PAGES] = page.pages - 1
    for reason, count in given_up.items():
        result.give_up(reason, printable(image.path), count)
    _write_sample(file, image, encode_original(*pixels, page.exif), pixels[0].shape[:2], sink)
    result.samples += 1
    result.edited += 1


def _tell_of_unused(image: StoredImage, shard: str, result: UnitEdited) -> None:
    """Image files that no sample uses are not edited; of a sample's unused ones the first is listed."""
    unused = image.unused
    result.further += unused.further
    if unused.unused:
        result.leave_out(UNUSED_IMAGE, printable(unused.example), printable(unused_text(unused, shard)))
        result.counts[UNUSED_IMAGE] += unused.unused - 1


def _write_sample(file: BinaryIO, image: StoredImage, data: bytes, size: tuple[int, ...], sink: TarSink) -> None:
    for member in image.members:
        if member.name == image.path:
            # Of several images readers take the PNG first, so that this one is what they find.
            sink.add(f"{image.key}.png", data)
            continue
        about = None
        if member.name.lower() == f"{image.key}.json".lower():
            about = _about(read_note(file, member), image.data, data, size)
        if about is None:
            sink.copy(file, [member.block])
        else:
            sink.add(member.name, about)


def _about(about: dict[str, Any] | None, before: bytes, after: bytes, size: tuple[int, ...]) -> bytes | None:
    """The note of `synthpipe shard` for the new file; None where the note is another one."""
    if about is None or about.get("sha256") != hashlib.sha256(before).hexdigest():
        return None
    height, width = size
    facts = {"width": width, "height": height, "format": "png", "bytes": len(after)}
    about |= {name: value for name, value in facts.items() if name in about}
    return json.dumps(about | {"sha256": hashlib.sha256(after).hexdigest()}, sort_keys=True).encode()

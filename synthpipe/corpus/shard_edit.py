"""One shard with each image replaced by an edited one: the same samples under the same keys in the same order.

Everything of a sample but its image is taken over byte for byte; only the facts of the image's file that `synthpipe
shard` notes beside it are brought up to date.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from synthpipe.corpus.image_units import ShardUnit, StoredImage, printable
from synthpipe.corpus.shard_result import is_as_written, state_name
from synthpipe.errors import ImageError
from synthpipe.files.decode import decode_image, encode_png
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.tar_sink import TarSink

__all__ = ["EditJob", "ImageEdit", "UnitEdited", "edit_shard", "read_result"]

Pixels = NDArray[np.uint8]


class ImageEdit(Protocol):
    """What is done to each image.  It crosses process borders, and comes to life where the work is."""

    def identity(self) -> dict[str, Any]:
        """Plain values that say what it does; a run goes on only with the same ones."""

    def open(self) -> Callable[[Pixels], Pixels]:
        """The edit itself: ``(H, W, 3)`` uint8, RGB -> the same; raises ImageError for an image that it cannot take."""


@dataclass(frozen=True)
class EditJob:
    """All that :func:`edit_shard` needs; ``scratch`` is a folder for unfinished files, None for one of the job's own.

    ``broken``: samples whose image cannot be edited are left out (``"skip"``) or taken over as they are (``"copy"``).
    """

    unit: ShardUnit
    target: str
    edit: ImageEdit
    broken: Literal["skip", "copy"]
    output: OutputFolder
    scratch: str | None

    @property
    def name(self) -> str:
        """The shard's label."""
        return self.unit.label


@dataclass
class UnitEdited:
    """What became of one shard: 0 ``samples`` means that nothing is left of it, and there is no file.

    ``source`` is the fingerprint of the shard that was read; ``counts`` are images that were not edited, by reason, and
    ``broken`` lists them as ``[path, reason, message]``.
    """

    name: str
    source: str | None = None
    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    edited: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    broken: list[list[str]] = field(default_factory=list)


def edit_shard(job: EditJob) -> UnitEdited:
    """Write one edited shard, unless an earlier run has; a plain function, so that any engine can run it.

    The file appears under its name when it is whole.  At any time one image is in memory.

    Raises:
        ShardError: the shard cannot be read or the new one not written.
    """
    finished = _finished_earlier(job)
    if finished is not None:
        return finished
    result = UnitEdited(job.name, job.unit.fingerprint())
    edit = job.edit.open()
    with ExitStack() as stack:
        scratch = Path(job.scratch or stack.enter_context(tempfile.TemporaryDirectory(prefix="synthpipe-")))
        file, images = stack.enter_context(job.unit.open())
        path = scratch / job.target
        sink = stack.enter_context(TarSink(path))
        for image in images:
            _take_over(file, image, edit, job.broken, sink, result)
        sink.close()
        if result.samples:
            result.bytes, result.sha256 = sink.bytes, sink.digest.hexdigest()
            job.output.publish(path, job.target)
        # Written last: a shard counts as finished only with this beside it.
        text = json.dumps(asdict(result), sort_keys=True)
        job.output.publish_bytes(text.encode(), state_name(job.target), scratch)
    return result


def read_result(output: OutputFolder, target: str) -> UnitEdited | None:
    """What an earlier :func:`edit_shard` left about a shard, or None where it left nothing usable."""
    data = output.read(state_name(target))
    if data is None:
        return None
    try:
        return UnitEdited(**json.loads(data))
    except (ValueError, TypeError):
        return None


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
        pixels = edit(decode_image(image.data, image.path))
    except ImageError as error:
        result.counts[error.reason] = result.counts.get(error.reason, 0) + 1
        result.broken.append([printable(image.path), error.reason, printable(str(error))])
        if broken == "copy" and image.blocks:
            sink.copy(file, image.blocks)
            result.samples += 1
        return
    _write_sample(file, image, pixels, sink)
    result.samples += 1
    result.edited += 1


def _write_sample(file: BinaryIO, image: StoredImage, pixels: Pixels, sink: TarSink) -> None:
    data = encode_png(pixels)
    for block in image.blocks:
        name, content = _member(file, block)
        if name == image.path:
            # Of several images readers take the PNG first, so that this one is what they find.
            sink.add(f"{image.key}.png", data)
            continue
        about = _about(content, image.data, data, pixels) if name.lower() == f"{image.key}.json".lower() else None
        if about is None:
            sink.copy(file, [block])
        else:
            sink.add(name, about)


def _member(file: BinaryIO, block: tuple[int, int]) -> tuple[str, bytes]:
    """Name and content of the one member that lies in ``block``."""
    begin, end = block
    file.seek(begin)
    with tarfile.open(fileobj=io.BytesIO(file.read(end - begin)), mode="r:") as tar:
        info = tar.next()
        assert info is not None
        content = tar.extractfile(info)
        assert content is not None
        return info.name, content.read()


def _about(text: bytes, before: bytes, after: bytes, pixels: Pixels) -> bytes | None:
    """The note of `synthpipe shard` for the new file; None where the note is another one."""
    try:
        about = json.loads(text)
    except ValueError:
        return None
    if not isinstance(about, dict) or about.get("sha256") != hashlib.sha256(before).hexdigest():
        return None
    height, width = pixels.shape[:2]
    facts = {"width": width, "height": height, "format": "png", "bytes": len(after)}
    about |= {name: value for name, value in facts.items() if name in about}
    return json.dumps(about | {"sha256": hashlib.sha256(after).hexdigest()}, sort_keys=True).encode()


def _finished_earlier(job: EditJob) -> UnitEdited | None:
    """The earlier result, if it is of the shard as it is now, still there, and still what was written."""
    result = read_result(job.output, job.target)
    if result is None or result.source is None or result.source != job.unit.fingerprint():
        return None
    if result.samples == 0:
        return result
    return result if is_as_written(job.output, job.target, result.bytes, result.sha256) else None

"""One shard, from its list of images to a verified tar: a plain function, so that any engine can run it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from webdataset import TarWriter

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import ImageError, ShardError
from synthpipe.files.containers import image_suffix
from synthpipe.files.decode import BitDepthWarning, decode_image, encode_png
from synthpipe.files.source_files import SourceFile
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.shard_index import STATE_FOLDER
from synthpipe.shards.shard_scan import check_member_name

__all__ = ["ShardJob", "ShardResult", "read_result", "write_shard"]

_BLOCK = 1 << 20
_FORMAT_NAMES = {"png": "png", "jpg": "jpeg", "webp": "webp", "tiff": "tiff"}


@dataclass(frozen=True)
class ShardJob:
    """All that :func:`write_shard` needs; ``scratch`` is a local folder for the unfinished file."""

    name: str
    entries: tuple[SourceFile, ...]
    options: ShardOptions
    output: OutputFolder
    scratch: Path


@dataclass
class ShardResult:
    """What became of one shard: 0 ``samples`` means that none of its images could be used, and there is no file.

    ``counts`` are images left out, by reason; ``broken`` lists them as ``[source, reason, message]``, except those
    that are only too small.
    """

    name: str
    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    broken: list[list[str]] = field(default_factory=list)


def write_shard(job: ShardJob) -> ShardResult:
    """Write one shard, unless an earlier run has finished it.

    The file appears under its name when it is whole.  At any time one image is in memory.

    Raises:
        ShardError: an image changed since the plan was made, a disk that cannot be read or written.
    """
    finished = _finished_earlier(job)
    if finished is not None:
        return finished
    result = ShardResult(job.name)
    path = job.scratch / job.name
    with path.open("wb") as file:
        sink = _HashingSink(file)
        with _tar_writer(sink) as tar, _quiet_about_depth(job.options):
            for entry in job.entries:
                _write_entry(tar, entry, job.options, result)
    if result.samples:
        result.bytes, result.sha256 = sink.bytes, sink.digest.hexdigest()
        job.output.publish(path, job.name)
    else:
        path.unlink()
    # Written last: a shard counts as finished only with this beside it.
    job.output.publish_bytes(json.dumps(asdict(result), sort_keys=True).encode(), _state_name(job.name), job.scratch)
    return result


def read_result(output: OutputFolder, name: str) -> ShardResult | None:
    """What an earlier :func:`write_shard` left about a shard, or None where it left nothing usable."""
    data = output.read(_state_name(name))
    if data is None:
        return None
    try:
        return ShardResult(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _state_name(name: str) -> str:
    return f"{STATE_FOLDER}/{name}.json"


def _finished_earlier(job: ShardJob) -> ShardResult | None:
    """The earlier result, if the shard is still there and still what was written."""
    result = read_result(job.output, job.name)
    if result is None or result.samples == 0:
        return result
    if job.output.size(job.name) != result.bytes:
        return None
    if job.options.verify == "size" or _checksum(job) == result.sha256:
        return result
    return None


def _checksum(job: ShardJob) -> str:
    digest = hashlib.sha256()
    with job.output.open(job.name) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _write_entry(tar: TarWriter, entry: SourceFile, options: ShardOptions, result: ShardResult) -> None:
    try:
        sample = _sample(entry, options)
    except ImageError as error:
        counts = Counter(result.counts)
        counts[error.reason] += 1
        result.counts = dict(counts)
        if error.reason != "too_small":
            result.broken.append([entry.source, error.reason, str(error)])
        return
    check_member_name(entry.key, result.name)
    tar.write(sample)
    # The library keeps the header of every member that it has written.
    tar.tarstream.members.clear()
    result.samples += 1


def _sample(entry: SourceFile, options: ShardOptions) -> dict[str, Any]:
    """One sample as WebDataset writes it: the image file and what is known about it."""
    data = _read(entry)
    pixels = decode_image(data, entry.source, alpha=options.alpha)
    height, width = pixels.shape[:2]
    if min(height, width) < options.min_size:
        message = f"{entry.source}: {width}x{height} pixels, the shorter side must have {options.min_size}"
        raise ImageError(message, reason="too_small")
    if options.reencode == "png":
        data = encode_png(pixels)
    suffix = image_suffix(data)
    about = {
        "source": entry.source,
        "width": width,
        "height": height,
        "format": _FORMAT_NAMES[suffix],
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return {"__key__": entry.key, suffix: data, "json": json.dumps(about, sort_keys=True).encode()}


def _read(entry: SourceFile) -> bytes:
    try:
        with open(entry.path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except PermissionError as error:
        raise ImageError(f"{entry.source}: may not be read ({error.strerror})", reason="unreadable") from error
    except FileNotFoundError as error:
        raise ShardError(f"{entry.path}: has vanished since the run began; begin anew in an empty folder") from error
    except OSError as error:
        raise ShardError(f"{entry.path}: cannot be read ({error.strerror}); run again when the disk answers") from error
    if (len(data), status.st_mtime_ns) != (entry.size, entry.mtime_ns):
        raise ShardError(
            f"{entry.path}: has changed since the run began ({entry.size} bytes then, {len(data)} now); "
            "begin anew in an empty folder"
        )
    return data


def _tar_writer(sink: _HashingSink) -> TarWriter:
    """A writer whose bytes depend on the samples alone; PAX holds names of any length and script."""
    return TarWriter(sink, user="", group="", mode=0o444, mtime=0, encoder=False, format="PAX_FORMAT")


@contextmanager
def _quiet_about_depth(options: ShardOptions) -> Iterator[None]:
    """Decoding only checks an image whose bytes are kept: nothing is rounded, and nothing need be said."""
    with warnings.catch_warnings():
        if options.reencode is None:
            warnings.simplefilter("ignore", BitDepthWarning)
        yield


class _HashingSink:
    """Counts and hashes what passes through to ``file``."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.bytes = 0
        self.digest = hashlib.sha256()

    def write(self, block: bytes) -> int:
        """Pass on one block."""
        self.bytes += len(block)
        self.digest.update(block)
        return self._file.write(block)

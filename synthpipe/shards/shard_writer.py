"""One shard, from its list of images to a verified tar: a plain function, so that any engine can run it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webdataset import TarWriter

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import ImageError, ShardError
from synthpipe.files.containers import image_suffix
from synthpipe.files.decode import decode_image, encode_png
from synthpipe.files.image_formats import has_wrong_suffix
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.job_result import CountedResult, finished_earlier, publish_result
from synthpipe.shards.sample_note import parse_note
from synthpipe.shards.shard_plan import SourceImage
from synthpipe.shards.tar_images import TarImage
from synthpipe.shards.tar_sink import HashingFile
from synthpipe.shards.tar_walk import check_member_name

__all__ = ["WRONG_SUFFIX", "ShardJob", "write_shard"]

#: Counted beside what images give up: a name that says another format than the bytes.  Samples have the right one.
WRONG_SUFFIX = "wrong_suffix"


@dataclass(frozen=True)
class ShardJob:
    """All that :func:`write_shard` needs; ``scratch`` is a local folder for the unfinished file."""

    name: str
    entries: tuple[SourceImage, ...]
    options: ShardOptions
    output: OutputFolder
    scratch: Path


def write_shard(job: ShardJob) -> CountedResult:
    """Write one shard, unless an earlier run has finished it.

    The file appears under its name when it is whole.  At any time one image is in memory.  Images that are only too
    small are counted and not listed.

    Raises:
        ShardError: an image changed since the plan was made, a disk that cannot be read or written.
    """
    finished = finished_earlier(CountedResult, job.name, job.name, job.output, verify=job.options.verify)
    if finished is not None:
        return finished
    result = CountedResult(job.name)
    with HashingFile(job.scratch / job.name) as file, _tar_writer(file) as tar:
        for entry in job.entries:
            _write_entry(tar, entry, job.options, result)
    publish_result(result, job.name, job.output, job.scratch, file)
    return result


def _write_entry(tar: TarWriter, entry: SourceImage, options: ShardOptions, result: CountedResult) -> None:
    try:
        sample, given_up = _sample(entry, options)
    except ImageError as error:
        listed = entry.source if error.reason != "too_small" else None
        result.leave_out(error.reason, listed, str(error))
        return
    check_member_name(entry.key, result.name)
    tar.write(sample)
    # The library keeps the header of every member that it has written.
    tar.tarstream.members.clear()
    result.samples += 1
    for reason, count in given_up.items():
        result.give_up(reason, entry.source, count)


def _sample(entry: SourceImage, options: ShardOptions) -> tuple[dict[str, Any], dict[str, int]]:
    """One sample as WebDataset writes it: the image file and what is known about it; and what readers will not see."""
    data, beside = _read(entry)
    wrong = {WRONG_SUFFIX: 1} if has_wrong_suffix(entry.source, data) else {}
    original = hashlib.sha256(data).hexdigest()
    pixels, given_up = decode_image(data, entry.source, alpha=options.alpha, max_pixels=options.max_pixels)
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
        "format": "jpeg" if suffix == "jpg" else suffix,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if suffix in beside:
        message = f"{entry.source}: is a {suffix} by its bytes, and another file of that suffix belongs to it"
        raise ImageError(message, reason="duplicate_key")
    sample = {"__key__": entry.key, suffix: data, **beside, "json": _note(about, beside.get("json"), original)}
    return sample, {**given_up, **wrong}


def _note(about: dict[str, Any], earlier: bytes | None, original: str) -> bytes:
    """What is known of the image, over what its JSON said before; JSON that is no object stays as it is."""
    if earlier is not None:
        found = parse_note(earlier)
        if found is None:
            return earlier
        # Of a shard of ours, the path that the image had before it came there.
        if found.get("sha256") == original and isinstance(found.get("source"), str):
            about = about | {"source": found["source"]}
        about = found | about
    return json.dumps(about, sort_keys=True).encode()


def _read(entry: SourceImage) -> tuple[bytes, dict[str, bytes]]:
    """The image's file, and by suffix those that belong to it."""
    beside: dict[str, bytes] = {}
    try:
        with open(entry.path, "rb") as file:
            status = os.fstat(file.fileno())
            if isinstance(entry, TarImage):
                data = os.pread(file.fileno(), entry.size, entry.offset)
                beside = {suffix: os.pread(file.fileno(), size, offset) for suffix, offset, size in entry.beside}
            else:
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
    return data, beside


def _tar_writer(file: HashingFile) -> TarWriter:
    """A writer whose bytes depend on the samples alone; PAX holds names of any length and script."""
    return TarWriter(file, user="", group="", mode=0o444, mtime=0, encoder=False, format="PAX_FORMAT")

"""Which image goes into which shard, decided before any work begins and the same on every machine.

The plan of ten million images must neither fill the memory nor the disk: it is a file of gzip members, one for each
shard, with one JSON line for each image; only the table of shards is held.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthpipe.config.shard import ShardOptions
from synthpipe.files.source_files import SourceFile
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.shards.run_plan import InputChecksum, RunPlan
from synthpipe.shards.tar_images import TarImage

__all__ = ["PlannedShard", "ShardPlan", "SourceImage", "make_plan"]

SourceImage = SourceFile | TarImage

_FORMAT = "synthpipe-shard-plan"
_VERSION = 1
# Options that change how the work is done, not what comes out.
_FREE_OPTIONS = {"inputs", "output", "workers", "verify"}


@dataclass(frozen=True)
class PlannedShard:
    """One shard to be: its number of images, their bytes, and where its part of the plan file lies."""

    samples: int
    bytes: int
    offset: int
    length: int


@dataclass(frozen=True)
class ShardPlan:
    """The table of shards, and the file that lists their images.

    ``digest`` stands for all images (keys, sizes, times of change) in their order.
    """

    path: Path
    options: dict[str, Any]
    digest: str
    shards: tuple[PlannedShard, ...]

    @property
    def samples(self) -> int:
        """Number of images in the plan."""
        return sum(shard.samples for shard in self.shards)

    def name(self, number: int) -> str:
        """File name of a shard; digits enough that names sort as numbers do."""
        digits = max(6, len(str(len(self.shards) - 1)))
        return f"{self.options['prefix']}-{number:0{digits}d}.tar"

    def entries(self, number: int) -> list[SourceImage]:
        """The images of one shard."""
        shard = self.shards[number]
        with self.path.open("rb") as file:
            file.seek(shard.offset)
            text = gzip.decompress(file.read(shard.length))
        return [_parsed(line) for line in text.splitlines()]

    def for_resuming(self) -> RunPlan:
        """What is kept beside the shards, to tell at the next run whether anything has changed."""

        def difference(before: Mapping[str, Any]) -> str:
            """What to say where the digest is another one."""
            if before["samples"] != self.samples:
                return f"the input has changed since the run began: {before['samples']} images then, {self.samples} now"
            return (
                f"the input has changed since the run began: {self.samples} images then and now, but other names, "
                "sizes or times of change"
            )

        # The digest depends on how the images are distributed, and so on the options.
        digest = InputChecksum(self.digest, difference, with_options=True)
        totals = {"samples": self.samples, "shards": len(self.shards)}
        return RunPlan(_FORMAT, _VERSION, "options", self.options, {"digest": digest}, totals)


def make_plan(files: Iterable[SourceImage], options: ShardOptions, folder: Path) -> ShardPlan:
    """Distribute ``files`` over shards.

    Args:
        files: all images, in a repeatable order.
        options: ``seed``, ``max_samples`` and ``max_bytes`` decide.
        folder: where the plan file is written.
    """
    path = folder / "plan.jsonl.gz"
    digest = hashlib.blake2b(digest_size=16)
    ordered = files if options.seed is None else _shuffled(files, options.seed, folder / "files.jsonl")
    shards, offset = [], 0
    with path.open("wb") as plan:
        for group in _groups(ordered, options.max_samples, options.max_bytes):
            # The absolute path is left out: the same corpus in another place is the same plan.
            digest.update(json.dumps([[*file[:2], *file[3:]] for file in group]).encode())
            length = plan.write(gzip.compress(b"".join(map(_line, group)), compresslevel=3, mtime=0))
            shards.append(PlannedShard(len(group), sum(map(_stored, group)), offset, length))
            offset += length
    kept = {name: value for name, value in options.model_dump(mode="json").items() if name not in _FREE_OPTIONS}
    if options.max_pixels == MAX_PIXELS:
        del kept["max_pixels"]  # which plans of earlier versions do not have
    if options.reencode is not None:
        kept["colors"] = "srgb"  # of earlier versions: whatever the numbers meant
    return ShardPlan(path, kept, digest.hexdigest(), tuple(shards))


def _line(file: SourceImage) -> bytes:
    return json.dumps(file, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> SourceImage:
    values = json.loads(line)
    if len(values) == len(SourceFile._fields):
        return SourceFile(*values)
    beside = tuple((suffix, offset, size) for suffix, offset, size in values.pop())
    return TarImage._make([*values, beside])


def _stored(file: SourceImage) -> int:
    """Bytes that it will take."""
    return file.size + (sum(size for _, _, size in file.beside) if isinstance(file, TarImage) else 0)


def _shuffled(files: Iterable[SourceImage], seed: int, spool: Path) -> Iterator[SourceImage]:
    """The files in the order of a hash of seed and source: the same in every version of every library.

    They lie on disk; about 30 bytes a file are held.
    """
    offsets, ranks = array("Q", [0]), array("Q")
    with spool.open("wb") as writer:
        for file in files:
            offsets.append(offsets[-1] + writer.write(_line(file)))
            text = f"{seed}/{file.source}".encode("utf-8", "surrogatepass")
            ranks.append(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
    if not ranks:
        return
    order = np.argsort(np.frombuffer(ranks, np.uint64), kind="stable")
    with spool.open("rb", buffering=0) as reader:
        for position in order:
            reader.seek(offsets[position])
            yield _parsed(reader.read(offsets[position + 1] - offsets[position]))
    spool.unlink()


def _groups(files: Iterable[SourceImage], max_samples: int, max_bytes: int) -> Iterator[list[SourceImage]]:
    """Consecutive files that fit into one shard."""
    group: list[SourceImage] = []
    total = 0
    for file in files:
        if group and (len(group) == max_samples or total + _stored(file) > max_bytes):
            yield group
            group, total = [], 0
        group.append(file)
        total += _stored(file)
    if group:
        yield group

"""What the jobs on a corpus have in common: each is of one unit, and most write a new shard for it."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthpipe.corpus.image_units import ShardUnit, Unit, printable
from synthpipe.errors import ShardError
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.unused_images import UnusedImages, unused_text

__all__ = ["UnitJob", "target_names", "unused_facts"]


#: Bytes of the name of a shard that is written: the notes on it beside the shard have a longer one, of 255 at most.
LONGEST_SHARD_NAME = 240


@dataclass(frozen=True, kw_only=True)
class UnitJob:
    """A job on one unit; it crosses process borders.

    Args:
        unit: what is read.
        output: where the result goes.
        scratch: folder for unfinished files; None for one of the job's own, where workers share no disk.
    """

    unit: Unit
    output: OutputFolder
    scratch: str | None

    @property
    def name(self) -> str:
        """The unit's label."""
        return self.unit.label

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A local folder for unfinished files."""
        if self.scratch is not None:
            yield Path(self.scratch)
            return
        with tempfile.TemporaryDirectory(prefix="synthpipe-") as temporary:
            yield Path(temporary)


def target_names(units: Sequence[Unit]) -> list[str]:
    """File name of each new shard: plain names, as an index wants them.

    Raises:
        ShardError: two shards would have one name, or one has a name too long for a file.
    """
    names = [unit.label.replace("/", "-").removesuffix(".tar").lstrip(".") + ".tar" for unit in units]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ShardError(f"two shards would both be written to {twice[0]!r}; rename one, or take them separately")
    longest = max(map(os.fsencode, names), key=len, default=b"")
    if len(longest) > LONGEST_SHARD_NAME:
        raise ShardError(
            f"a shard would be written to {os.fsdecode(longest[:60])!r}..., a name of {len(longest)} bytes, expected "
            f"at most {LONGEST_SHARD_NAME}; rename it, or the folders that it lies in"
        )
    return names


def unused_facts(found: UnusedImages, unit: Unit) -> dict[str, Any]:
    """What a result says of image files of a shard that no sample uses: ``beside`` and ``unused``; nothing of none."""
    if not found or not isinstance(unit, ShardUnit):
        return {}
    return {"beside": found.counts(), "unused": printable(unused_text(found, unit.url))}

"""New shards made one from each old one: their names, and which of them an earlier run has finished."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from synthpipe.corpus.image_units import Unit
from synthpipe.errors import ShardError
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.shard_index import STATE_FOLDER

__all__ = ["is_as_written", "state_name", "target_names"]

_BLOCK = 1 << 20


def target_names(units: Sequence[Unit]) -> list[str]:
    """File name of each new shard: plain names, as an index wants them.

    Raises:
        ShardError: two shards would have one name.
    """
    names = [unit.label.replace("/", "-").removesuffix(".tar").lstrip(".") + ".tar" for unit in units]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ShardError(f"two shards would both be written to {twice[0]!r}; rename one, or take them separately")
    return names


def state_name(target: str) -> str:
    """Where the result of a shard is kept; it is written after the shard."""
    return f"{STATE_FOLDER}/{target}.json"


def is_as_written(output: OutputFolder, target: str, size: int, sha256: str) -> bool:
    """Whether the new shard is there, with these bytes."""
    if output.size(target) != size:
        return False
    digest = hashlib.sha256()
    with output.open(target) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == sha256

"""What a run was begun with: left in the output folder by the first run, compared by every later one.

The same command with the same options over the same input goes on where an earlier run stopped; anything else is
refused before a byte is written.  In the output folder::

    _state/plan.json    format, version, the options, checksums of what is read
    _state/lock         held while a run is at work
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthpipe.errors import ShardError
from synthpipe.files.storage import LARGEST_WHOLE_FILE, OutputFolder
from synthpipe.json_text import parse_json
from synthpipe.shards.shard_index import INDEX_NAME, PLAN_NAME, STATE_FOLDER

__all__ = ["InputChecksum", "RunPlan", "differences", "open_run", "refuse_foreign_shards"]

_LOCK_NAME = f"{STATE_FOLDER}/lock"
_REMEDY = "name another output folder, or empty this one"


@dataclass(frozen=True)
class InputChecksum:
    """Stands for something that the run reads.

    Args:
        value: the checksum.
        difference: what to say where it differs; given the earlier plan as it was read.
        with_options: the options change it as well, so that it is compared only where they agree.
    """

    value: str
    difference: Callable[[Mapping[str, Any]], str]
    with_options: bool = False


@dataclass(frozen=True)
class RunPlan:
    """All that decides what a run writes.

    Args:
        format, version: name the command and the layout of its plan.
        section: what the options are called in the file.
        options: by name, values that JSON can hold; each that differs is named.
        checksums: of the input, by name.
        totals: noted for people, not compared.
    """

    format: str
    version: int
    section: str
    options: Mapping[str, Any]
    checksums: Mapping[str, InputChecksum] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``plan.json``; the same for the same plan on every machine."""
        head = {"format": self.format, "version": self.version, self.section: dict(self.options)}
        checksums = {name: checksum.value for name, checksum in self.checksums.items()}
        return json.dumps({**head, **checksums, **self.totals}, indent=1, sort_keys=True) + "\n"

    def begin(self, output: OutputFolder, scratch: Path, foreign: Sequence[str] = ()) -> None:
        """Leave the plan in a folder that holds none; go on in one that was begun with this plan.

        Args:
            output: of the run.
            scratch: for the unfinished file.
            foreign: see :func:`refuse_foreign_shards`.

        Raises:
            ShardError: begun with another plan (every difference is named), by another command or version; shards of
                another origin; a plan that cannot be read.
        """
        earlier = output.read(PLAN_NAME)
        if earlier is None:
            refuse_foreign_shards(output, foreign)
            output.publish_bytes(self.to_json().encode(), PLAN_NAME, scratch)
            return
        try:
            found = self._differences(parse_json(earlier, LARGEST_WHOLE_FILE), output.url)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ShardError(
                f"{output.url}/{PLAN_NAME}: damaged plan of an earlier run ({error!r}); {_REMEDY}"
            ) from error
        if found:
            raise ShardError(
                f"{output.url}: {'; '.join(found)}; go on with the options and the input of that run, or {_REMEDY}"
            )

    def _differences(self, before: dict[str, Any], url: str) -> list[str]:
        if (before["format"], before["version"]) != (self.format, self.version):
            raise ShardError(
                f"{url}: begun by another command or version of synthpipe: expected {self.format!r} version "
                f"{self.version}, found {before['format']!r} version {before['version']}; {_REMEDY}"
            )
        changed = differences(before[self.section], json.loads(self.to_json())[self.section])
        found = [f"begun with other options: {'; '.join(changed)}"] if changed else []
        for name, checksum in self.checksums.items():
            if before[name] != checksum.value and not (checksum.with_options and changed):
                found.append(checksum.difference(before))
        return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every value that is not the same, in words, by its dotted name; what one side lacks counts as None."""
    found = []
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(is_now, dict):
            found += [f"{name}.{text}" for text in differences(was, is_now)]
        elif isinstance(was, list) and isinstance(is_now, list) and was != is_now:
            found.append(f"{name} {_first_difference(was, is_now)}")
        elif was != is_now:
            found.append(f"{name} was {was!r}, is {is_now!r}")
    return found


def _first_difference(was: Sequence[Any], is_now: Sequence[Any]) -> str:
    """Lists may be long: how many entries they have, and where they part."""
    pairs = enumerate(zip(was, is_now, strict=False))
    place = next((number for number, (a, b) in pairs if a != b), min(len(was), len(is_now)))
    first, second = (repr(values[place]) if place < len(values) else "missing" for values in (was, is_now))
    return f"had {len(was)} entries, has {len(is_now)}; number {place} was {first}, is {second}"


def refuse_foreign_shards(output: OutputFolder, foreign: Sequence[str] = ()) -> None:
    """Leave alone what no run of ours began.

    Args:
        output: the folder.
        foreign: names of further files that only an earlier run may have left, besides shards and their index.

    Raises:
        ShardError: shards in the folder, and no plan.
    """
    names = output.names()
    strange = [name for name in names if name.endswith(".tar") or name in (INDEX_NAME, *foreign)]
    if strange and output.size(PLAN_NAME) is None:
        raise ShardError(f"{output.url}: already holds {strange[0]!r} of another origin; name an empty folder")


@contextmanager
def open_run(output: OutputFolder) -> Iterator[Path]:
    """Hold the folder against a second run; gives a local folder for unfinished files.

    Raises:
        ShardError: another run holds it.
    """
    with output.lock(_LOCK_NAME), output.scratch(STATE_FOLDER) as scratch:
        yield scratch

"""What became of one shard, kept beside it, so that the next run need not do it again.

A job writes its shard, then its result; both appear whole or not at all.  The shard counts as finished only while the
result can be read, is of the same source, and the shard is still what was written::

    SHARD.tar
    _state/SHARD.tar.json    a :class:`JobResult`
    report.json              of the whole run: counts, and the images that were left out, read back from the results
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from synthpipe.files.given_up import NAMED_EXAMPLES
from synthpipe.files.storage import LARGEST_WHOLE_FILE, OutputFolder
from synthpipe.json_text import parse_json
from synthpipe.shards.shard_index import STATE_FOLDER
from synthpipe.shards.tar_sink import HashingFile

__all__ = [
    "REPORT_NAME",
    "CountedResult",
    "JobResult",
    "broken_images",
    "finished_earlier",
    "publish_report",
    "publish_result",
    "read_result",
]

REPORT_NAME = "report.json"

Result = TypeVar("Result", bound="JobResult")


@dataclass
class JobResult:
    """What became of one shard: 0 ``samples`` means that nothing is left of it, and there is no file.

    ``bytes`` and ``sha256`` are of the shard's file.  ``source`` is the fingerprint of what was read; None where the
    run's plan stands for it.
    """

    name: str
    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    source: str | None = field(default=None, kw_only=True)


@dataclass
class CountedResult(JobResult):
    """``counts`` are images left out, by reason; ``broken`` lists them as ``[path, reason, message]``.

    ``given_up`` counts by reason what images that were used hold beside 8-bit sRGB, and ``examples`` are the first few
    of each reason.
    """

    counts: dict[str, int] = field(default_factory=dict)
    broken: list[list[str]] = field(default_factory=list)
    given_up: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str | None = None, message: str = "") -> None:
        """Count an image; list it where a ``path`` is given."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if path is not None:
            self.broken.append([path, reason, message])

    def give_up(self, reason: str, path: str, count: int = 1) -> None:
        """Count what an image that is used has lost; the first few of each reason are named."""
        self.given_up[reason] = self.given_up.get(reason, 0) + count
        named = self.examples.setdefault(reason, [])
        if len(named) < NAMED_EXAMPLES:
            named.append(path)


def publish_result(
    result: JobResult, target: str, output: OutputFolder, scratch: Path, shard: HashingFile | None = None
) -> None:
    """Bring a finished shard and what became of it to the output folder.

    Args:
        result: ``bytes`` and ``sha256`` are filled in.
        target: the shard's file name.
        output: where it goes.
        scratch: for the unfinished file of the result.
        shard: closed; removed where it has no samples.  None where the job writes no shard.

    Raises:
        ShardError: a disk that cannot be written.
    """
    if shard is not None and result.samples:
        result.bytes, result.sha256 = shard.bytes, shard.sha256
        output.publish(shard.path, target)
    elif shard is not None:
        shard.path.unlink()
    about = asdict(result)
    if result.source is None:
        del about["source"]
    # Of a shard of plain images, the same bytes as before there were such counts.
    for name in ("given_up", "examples"):
        if not about.get(name, True):
            del about[name]
    # Written last: a shard counts as finished only with this beside it.
    output.publish_bytes(json.dumps(about, sort_keys=True).encode(), _state_name(target), scratch)


def read_result(kind: type[Result], target: str, output: OutputFolder) -> Result | None:
    """What an earlier run left about a shard; None where that is missing, damaged or of another version.

    Args:
        kind: the class of the result.
        target: the shard's file name.
        output: where it lies.
    """
    data = output.read(_state_name(target))
    if data is None:
        return None
    try:
        result = kind(**parse_json(data, LARGEST_WHOLE_FILE))
    except (ValueError, TypeError):
        return None
    return result if _is_sound(result) else None


def _is_sound(result: JobResult) -> bool:
    """Whether its parts have the types that they were written with: they are added up and printed."""
    empty = type(result)("")
    parts = [part.name for part in fields(result) if part.name != "source"]
    if not all(type(getattr(result, part)) is type(getattr(empty, part)) for part in parts) or result.samples < 0:
        return False
    if not isinstance(result, CountedResult):
        return True
    listed = all(isinstance(line, list) and list(map(type, line)) == [str, str, str] for line in result.broken)
    return listed and all(type(count) is int for count in result.counts.values())


def finished_earlier(
    kind: type[Result],
    name: str,
    target: str,
    output: OutputFolder,
    *,
    source: str | None = None,
    verify: Literal["sha256", "size"] | None = "sha256",
) -> Result | None:
    """The result of an earlier run, if it holds for this one: of this source, the shard there and as it was written.

    Args:
        kind: the class of the result.
        name: of the job.
        target: the shard's file name.
        output: where it lies.
        source: fingerprint of what the job reads, as it is now; None where the run's plan stands for it.
        verify: the file is read whole, or only its size is looked at; None of a job that writes no file.
    """
    result = read_result(kind, target, output)
    if result is None or (result.name, result.source) != (name, source):
        return None
    if result.samples == 0 or verify is None:
        return result
    if output.size(target) != result.bytes:
        return None
    return result if verify == "size" or output.sha256(target) == result.sha256 else None


def broken_images(
    kind: type[CountedResult], targets: Iterable[str], output: OutputFolder
) -> Iterator[tuple[str, str, str, str]]:
    """``(shard, path, reason, message)`` of each image that was left out, read back shard by shard."""
    for target in targets:
        result = read_result(kind, target, output)
        for path, reason, message in result.broken if result is not None else ():
            yield target, path, reason, message


def publish_report(
    head: Mapping[str, Any], broken: Iterable[Mapping[str, str]], output: OutputFolder, scratch: Path
) -> None:
    """Write ``report.json``: the counts, then one line for each image that was left out; one is held at a time."""
    path = scratch / REPORT_NAME
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=1)[:-2] + ',\n "broken": [')
        separator = "\n  "
        for image in broken:
            file.write(separator + json.dumps(image))
            separator = ",\n  "
        file.write("\n ]\n}\n")
    output.publish(path, REPORT_NAME)


def _state_name(target: str) -> str:
    return f"{STATE_FOLDER}/{target}.json"

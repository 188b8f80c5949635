"""A corpus of shards with every image edited: one job for each shard, on any engine.

A run that was killed goes on where it stopped and ends with the same bytes.  In the output folder::

    SHARD.tar, index.json    as `synthpipe shard` leaves them; the index is there when all is done
    report.json              counts, and the images that could not be edited, with reasons
    _state/                  the edit and checks, for resuming
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from synthpipe.corpus.image_units import ShardUnit
from synthpipe.corpus.shard_edit import EditJob, ImageEdit, UnitEdited, edit_shard, read_result
from synthpipe.corpus.shard_result import target_names
from synthpipe.errors import ShardError
from synthpipe.files.storage import OutputFolder, is_local
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.shard_index import INDEX_NAME, STATE_FOLDER, ShardIndex, ShardInfo

__all__ = ["REPORT_NAME", "EditReport", "edit_corpus"]

REPORT_NAME = "report.json"

_PLAN_NAME = f"{STATE_FOLDER}/plan.json"
_LOCK_NAME = f"{STATE_FOLDER}/lock"
_FORMAT = "synthpipe-edit-plan"
_VERSION = 1


@dataclass(frozen=True)
class EditReport:
    """What came of a run: images ``edited``, those that were not by reason, and the ``index`` of the new shards."""

    edited: int
    broken: dict[str, int]
    index: ShardIndex

    @property
    def images(self) -> int:
        """Images met, whatever became of them."""
        return self.edited + sum(self.broken.values())


def edit_corpus(
    units: Sequence[ShardUnit],
    edit: ImageEdit,
    output_url: str,
    *,
    broken: Literal["skip", "copy"] = "skip",
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    cuda: bool = False,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> EditReport:
    """Edit every image of the shards, or finish what an earlier run began.

    Args:
        units: of :func:`synthpipe.corpus.image_units.find_units`.
        edit: what is done to each image.
        output_url: folder for the new shards, of the same names; local or an fsspec URL.
        broken: samples whose image cannot be edited are left out, or taken over as they are.
        engine, workers, cuda: see :func:`synthpipe.shards.engine.run_jobs`.
        on_progress: called in this process with (shards done, shards in all, images so far).

    Raises:
        ShardError: a folder that holds other shards or was begun with another edit or other shards, a disk that cannot
            be read or written, two runs in one folder, no image at all.
    """
    output = OutputFolder(os.path.abspath(output_url) if is_local(output_url) else output_url)
    targets = target_names(units)
    with output.lock(_LOCK_NAME), output.scratch(STATE_FOLDER) as scratch:
        _agree(edit.identity() | {"broken": broken, "shards": targets}, output, scratch)
        place = str(scratch) if output.local else None
        jobs = (EditJob(unit, target, edit, broken, output, place) for unit, target in zip(units, targets, strict=True))
        results: dict[str, UnitEdited] = {}
        images = 0
        for result in run_jobs(edit_shard, jobs, engine=engine, workers=min(workers, len(units)), cuda=cuda):
            results[result.name] = result
            images += result.edited + sum(result.counts.values())
            if on_progress is not None:
                on_progress(len(results), len(units), images)
        report = _report([results[unit.label] for unit in units], targets, output)
        _publish_report(report, targets, output, scratch)
        if not report.index.samples:
            raise ShardError(f"none of {images} images could be used ({report.broken}); see {output.url}/{REPORT_NAME}")
        # The last: with it the folder is a corpus.
        output.publish_bytes(report.index.to_json().encode(), INDEX_NAME, scratch)
    return report


def _agree(identity: dict[str, Any], output: OutputFolder, scratch: Path) -> None:
    """Leave what is done; refuse to go on with something else."""
    plan = {"format": _FORMAT, "version": _VERSION, "edit": identity}
    earlier = output.read(_PLAN_NAME)
    if earlier is None:
        foreign = [name for name in output.names() if name.endswith(".tar") or name == INDEX_NAME]
        if foreign:
            raise ShardError(f"{output.url}: already holds {foreign[0]!r} of another origin; name an empty folder")
        output.publish_bytes(json.dumps(plan, indent=1, sort_keys=True).encode(), _PLAN_NAME, scratch)
        return
    remedy = "name another output folder, or empty this one"
    try:
        before = json.loads(earlier)
        if (before["format"], before["version"]) != (_FORMAT, _VERSION):
            raise ShardError(f"{output.url}: begun by another command or version; {remedy}")
        was = dict(before["edit"])
    except (ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{output.url}: damaged plan of an earlier run ({error!r}); {remedy}") from error
    changed = [
        f"{name} was {was.get(name)!r}, is {identity.get(name)!r}"
        for name in sorted({**was, **identity})
        if was.get(name) != identity.get(name)
    ]
    if changed:
        raise ShardError(f"{output.url}: begun otherwise: {'; '.join(changed)}; go on with that, or {remedy}")


def _report(results: Sequence[UnitEdited], targets: Sequence[str], output: OutputFolder) -> EditReport:
    broken: Counter[str] = Counter()
    for result in results:
        broken.update(result.counts)
    shards = tuple(
        ShardInfo(target, result.samples, result.bytes, result.sha256)
        for target, result in zip(targets, results, strict=True)
        if result.samples
    )
    edited = sum(result.edited for result in results)
    return EditReport(edited, dict(sorted(broken.items())), ShardIndex(shards, output.url.rstrip("/")))


def _publish_report(report: EditReport, targets: Sequence[str], output: OutputFolder, scratch: Path) -> None:
    listed = []
    for target in targets:
        result = read_result(output, target)
        for path, reason, message in result.broken if result is not None else ():
            listed.append({"shard": target, "image": path, "reason": reason, "message": message})
    text = {"edited": report.edited, "not_edited": report.broken, "samples": report.index.samples, "broken": listed}
    output.publish_bytes((json.dumps(text, indent=1) + "\n").encode(), REPORT_NAME, scratch)

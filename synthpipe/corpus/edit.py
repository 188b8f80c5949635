"""A corpus of shards with every image edited: one job for each shard, on any engine.

A run that was killed goes on where it stopped and ends with the same bytes.  In the output folder::

    SHARD.tar, index.json    as `synthpipe shard` leaves them; the index is there when all is done
    report.json              counts, and the images that could not be edited, with reasons
    _state/                  the edit and checks, for resuming
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthpipe.corpus.image_units import ShardUnit
from synthpipe.corpus.shard_edit import EditJob, ImageEdit, ImageReading, UnitEdited, edit_shard
from synthpipe.corpus.unit_job import target_names
from synthpipe.errors import ShardError, counted
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.given_up import first_named
from synthpipe.files.skip_advice import skip_advice
from synthpipe.files.storage import OutputFolder, absolute_url
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.job_result import REPORT_NAME, broken_images, publish_report
from synthpipe.shards.run_plan import RunPlan, open_run
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo

__all__ = ["REPORT_NAME", "EditReport", "edit_corpus"]

_FORMAT = "synthpipe-edit-plan"
_VERSION = 1
_USUAL = ImageReading()


@dataclass(frozen=True)
class EditReport:
    """What came of a run: images ``edited``, those that were not by reason, and the ``index`` of the new shards.

    ``further`` image files beside the samples' own were taken over as they are.  ``given_up`` counts by reason what the
    edited images had and have no more; ``examples`` names the first few of each.
    """

    edited: int
    broken: dict[str, int]
    index: ShardIndex
    further: int = 0
    given_up: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

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
    reading: ImageReading = _USUAL,
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
        reading: how images are read.
        engine, workers, cuda: see :func:`synthpipe.shards.engine.run_jobs`.
        on_progress: called in this process with (shards done, shards in all, images so far).

    Raises:
        ShardError: a folder that holds other shards or was begun with another edit or other shards, a disk that cannot
            be read or written, two runs in one folder, no image at all.
    """
    output = OutputFolder(absolute_url(output_url))
    targets = target_names(units)
    with open_run(output) as scratch:
        options = edit.identity() | reading.identity() | {"broken": broken, "shards": targets}
        RunPlan(_FORMAT, _VERSION, "edit", options).begin(output, scratch)
        place = str(scratch) if output.local else None
        jobs = (
            EditJob(unit=unit, output=output, scratch=place, target=target, edit=edit, broken=broken, reading=reading)
            for unit, target in zip(units, targets, strict=True)
        )
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
            raise ShardError(
                f"none of {counted(images, 'image')} could be used ({passed_over_text(report.broken)}); "
                f"see {output.url}/{REPORT_NAME}{skip_advice(report.broken, start='; ')}"
            )
        # The last: with it the folder is a corpus.
        output.publish_bytes(report.index.to_json().encode(), INDEX_NAME, scratch)
    return report


def _report(results: Sequence[UnitEdited], targets: Sequence[str], output: OutputFolder) -> EditReport:
    broken: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    for result in results:
        broken.update(result.counts)
        given_up.update(result.given_up)
    shards = tuple(
        ShardInfo(target, result.samples, result.bytes, result.sha256)
        for target, result in zip(targets, results, strict=True)
        if result.samples
    )
    edited = sum(result.edited for result in results)
    further = sum(result.further for result in results)
    index = ShardIndex(shards, output.url.rstrip("/"))
    examples = first_named(result.examples for result in results)
    return EditReport(edited, dict(sorted(broken.items())), index, further, dict(sorted(given_up.items())), examples)


def _publish_report(report: EditReport, targets: Sequence[str], output: OutputFolder, scratch: Path) -> None:
    head: dict[str, Any] = {"edited": report.edited, "not_edited": report.broken, "samples": report.index.samples}
    if report.given_up:
        head |= {"given_up": report.given_up, "examples": report.examples}
    broken = (
        {"shard": shard, "image": path, "reason": reason, "message": message}
        for shard, path, reason, message in broken_images(UnitEdited, targets, output)
    )
    publish_report(head, broken, output, scratch)

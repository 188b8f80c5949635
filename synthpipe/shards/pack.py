"""Images of folders and tars to WebDataset shards: planned first, then written by processes, each whole shards.

A run that was killed goes on where it stopped, and its shards are byte for byte those of a run that was not: the
plan is made anew and compared, finished shards are verified, unfinished ones begun again.

Beside the shards::

    index.json              what :func:`synthpipe.shards.shard_index.read_index` reads; present when all is done
    report.json             images that could not be used, with reasons; counts of all that was passed over or given up
    _state/plan.json        options and a digest of the input, against changes between runs
    _state/SHARD.tar.json   one for each finished shard: its checksum, and the images in it that were left out
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import ShardError, counted
from synthpipe.files.folder_walk import expected_images, passed_over_text
from synthpipe.files.given_up import NAMED_EXAMPLES
from synthpipe.files.output_place import local_output
from synthpipe.files.skip_advice import skip_advice
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.image_sources import ImageSources
from synthpipe.shards.job_result import REPORT_NAME, CountedResult, broken_images, publish_report
from synthpipe.shards.run_plan import open_run, refuse_foreign_shards
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo
from synthpipe.shards.shard_plan import ShardPlan, make_plan
from synthpipe.shards.shard_writer import WRONG_SUFFIX, ShardJob, write_shard

__all__ = ["REPORT_NAME", "ShardReport", "write_shards"]


_CURES = {"too_small": "lower min_size"}


@dataclass(frozen=True)
class ShardReport:
    """What came of a run: ``images`` found, the ``index`` of shards, and counts of what was left out.

    ``left_out`` counts images by reason; ``ignored`` counts what was not taken for images, by suffix or reason;
    ``empty_shards`` are planned shards none of whose images could be used, so that their number is missing.
    ``given_up`` counts what the images in the shards hold and readers will not see
    (:data:`synthpipe.files.decode.GIVEN_UP`), ``wrong_suffix`` files whose name says another format than they have;
    ``examples`` are the first few of each of these.
    """

    images: int
    index: ShardIndex
    left_out: dict[str, int]
    ignored: dict[str, int]
    empty_shards: tuple[str, ...]
    given_up: dict[str, int] = field(default_factory=dict)
    wrong_suffix: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)


def write_shards(options: ShardOptions, on_progress: Callable[[int, int], None] | None = None) -> ShardReport:
    """Write the shards, the index and the report; or finish what an earlier run began.

    Two runs over the same images with the same options write the same bytes, whatever the number of workers.

    Args:
        options: what to read, where to write, and how.
        on_progress: called in this process with (images done, images in all), at the start and after each shard.

    Raises:
        OptionError: an input that is neither folder nor tar, or that the output is or lies inside.
        ShardError: no images, no usable image, input or options changed since an earlier run, a folder that holds
            other shards, a second run in the same folder, a disk that cannot be read or written.
    """
    sources = ImageSources(options.inputs, local_output(options.output))
    output = OutputFolder(options.output)
    with open_run(output) as scratch:
        # Also before a long walk over the folders.
        refuse_foreign_shards(output)
        plan = make_plan(sources, options, scratch)
        ignored = dict(sorted(sources.ignored.items(), key=lambda kind: (-kind[1], kind[0])))
        if not plan.shards:
            raise ShardError(f"no images in {', '.join(options.inputs)}: {expected_images(sources.ignored)}")
        plan.for_resuming().begin(output, scratch)
        infos, totals = _write_all(plan, options, output, scratch, on_progress or (lambda done, total: None))
        empty = tuple(name for name in map(plan.name, range(len(plan.shards))) if name not in infos)
        index = ShardIndex(tuple(infos[name] for name in sorted(infos)), options.output.rstrip("/"))
        wrong = totals.given_up.pop(WRONG_SUFFIX, 0)
        left_out, given_up = dict(sorted(totals.left_out.items())), dict(sorted(totals.given_up.items()))
        report = ShardReport(plan.samples, index, left_out, ignored, empty, given_up, wrong, totals.examples())
        _publish_report(report, plan, output, scratch)
        if not index.samples:
            raise ShardError(
                f"none of {counted(plan.samples, 'image')} could be used ({passed_over_text(report.left_out)}); "
                f"see {options.output}/{REPORT_NAME}{skip_advice(report.left_out, _CURES, start='; ')}"
            )
        output.publish_bytes(index.to_json().encode(), INDEX_NAME, scratch)
    return report


class _Totals:
    """Counts of all shards; the same whatever the order in which they are done."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.given_up: Counter[str] = Counter()
        self._named: dict[str, list[tuple[str, int, str]]] = {}

    def add(self, result: CountedResult) -> None:
        """Count what became of one shard."""
        self.left_out.update(result.counts)
        self.given_up.update(result.given_up)
        for reason, paths in result.examples.items():
            more = [(result.name, place, path) for place, path in enumerate(paths)]
            self._named[reason] = sorted(self._named.get(reason, []) + more)[:NAMED_EXAMPLES]

    def examples(self) -> dict[str, list[str]]:
        """The first of each reason, in the order of the shards."""
        return {reason: [path for _, _, path in self._named[reason]] for reason in sorted(self._named)}


def _write_all(
    plan: ShardPlan, options: ShardOptions, output: OutputFolder, scratch: Path, on_progress: Callable[[int, int], None]
) -> tuple[dict[str, ShardInfo], _Totals]:
    """Shards that came out, by name, and counts of all."""
    jobs = (
        ShardJob(plan.name(number), tuple(plan.entries(number)), options, output, scratch)
        for number in range(len(plan.shards))
    )
    infos: dict[str, ShardInfo] = {}
    totals = _Totals()
    done = 0
    on_progress(done, plan.samples)
    for result in run_jobs(write_shard, jobs, workers=min(options.workers, len(plan.shards))):
        totals.add(result)
        if result.samples:
            infos[result.name] = ShardInfo(result.name, result.samples, result.bytes, result.sha256)
        done += result.samples + sum(result.counts.values())
        on_progress(done, plan.samples)
    return infos, totals


def _publish_report(report: ShardReport, plan: ShardPlan, output: OutputFolder, scratch: Path) -> None:
    head = {
        "images": report.images,
        "written": report.index.samples,
        "left_out": report.left_out,
        "given_up": report.given_up,
        "wrong_suffix": report.wrong_suffix,
        "examples": report.examples,
        "ignored_files": report.ignored,
        "empty_shards": report.empty_shards,
    }
    broken = (
        {"source": source, "reason": reason, "message": message}
        for _, source, reason, message in broken_images(CountedResult, map(plan.name, range(len(plan.shards))), output)
    )
    publish_report(head, broken, output, scratch)

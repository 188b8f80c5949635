"""Images of folders and tars to WebDataset shards: planned first, then written by processes, each whole shards.

A run that was killed goes on where it stopped, and its shards are byte for byte those of a run that was not: the
plan is made anew and compared, finished shards are verified, unfinished ones begun again.

Beside the shards::

    index.json              what :func:`synthpipe.shards.shard_index.read_index` reads; present when all is done
    report.json             images that could not be used, with reasons, and counts of everything passed over
    _state/plan.json        options and a digest of the input, against changes between runs
    _state/SHARD.tar.json   one for each finished shard: its checksum, and the images in it that were left out
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synthpipe.config.shard import ShardOptions
from synthpipe.errors import ShardError
from synthpipe.files.folder_walk import expected_images, passed_over_text
from synthpipe.files.output_place import local_output
from synthpipe.files.storage import OutputFolder
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.image_sources import ImageSources
from synthpipe.shards.job_result import REPORT_NAME, CountedResult, broken_images, publish_report
from synthpipe.shards.run_plan import open_run, refuse_foreign_shards
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo
from synthpipe.shards.shard_plan import ShardPlan, make_plan
from synthpipe.shards.shard_writer import ShardJob, write_shard

__all__ = ["REPORT_NAME", "ShardReport", "write_shards"]


@dataclass(frozen=True)
class ShardReport:
    """What came of a run: ``images`` found, the ``index`` of shards, and counts of what was left out.

    ``left_out`` counts images by reason; ``ignored`` counts what was not taken for images, by suffix or reason;
    ``empty_shards`` are planned shards none of whose images could be used, so that their number is missing.
    """

    images: int
    index: ShardIndex
    left_out: dict[str, int]
    ignored: dict[str, int]
    empty_shards: tuple[str, ...]


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
        infos, left_out = _write_all(plan, options, output, scratch, on_progress or (lambda done, total: None))
        empty = tuple(name for name in map(plan.name, range(len(plan.shards))) if name not in infos)
        index = ShardIndex(tuple(infos[name] for name in sorted(infos)), options.output.rstrip("/"))
        report = ShardReport(plan.samples, index, dict(sorted(left_out.items())), ignored, empty)
        _publish_report(report, plan, output, scratch)
        if not index.samples:
            raise ShardError(
                f"none of {plan.samples} images could be used ({passed_over_text(report.left_out)}); "
                f"{'lower min_size, or ' if options.min_size and 'too_small' in report.left_out else ''}"
                f"see {options.output}/{REPORT_NAME}"
            )
        output.publish_bytes(index.to_json().encode(), INDEX_NAME, scratch)
    return report


def _write_all(
    plan: ShardPlan, options: ShardOptions, output: OutputFolder, scratch: Path, on_progress: Callable[[int, int], None]
) -> tuple[dict[str, ShardInfo], Counter[str]]:
    """Shards that came out, by name, and images left out, by reason."""
    jobs = (
        ShardJob(plan.name(number), tuple(plan.entries(number)), options, output, scratch)
        for number in range(len(plan.shards))
    )
    infos: dict[str, ShardInfo] = {}
    left_out: Counter[str] = Counter()
    done = 0
    on_progress(done, plan.samples)
    for result in run_jobs(write_shard, jobs, workers=min(options.workers, len(plan.shards))):
        left_out.update(result.counts)
        if result.samples:
            infos[result.name] = ShardInfo(result.name, result.samples, result.bytes, result.sha256)
        done += result.samples + sum(result.counts.values())
        on_progress(done, plan.samples)
    return infos, left_out


def _publish_report(report: ShardReport, plan: ShardPlan, output: OutputFolder, scratch: Path) -> None:
    head = {
        "images": report.images,
        "written": report.index.samples,
        "left_out": report.left_out,
        "ignored_files": report.ignored,
        "empty_shards": report.empty_shards,
    }
    broken = (
        {"source": source, "reason": reason, "message": message}
        for _, source, reason, message in broken_images(CountedResult, map(plan.name, range(len(plan.shards))), output)
    )
    publish_report(head, broken, output, scratch)

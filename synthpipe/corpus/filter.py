"""The kept part of a scored corpus: one job for each shard, on any engine.

A run that was killed goes on where it stopped and ends with the same bytes.  In the output folder, for shards::

    SHARD.tar, index.json    as `synthpipe shard` leaves them; the index is there when all is done
    report.json              the rule, and counts of what was kept and left out
    report.html              the same for people, with pictures
    _state/                  options and checks, for resuming

For a folder of images ``kept.txt`` lists the kept files, one a line, and ``images/`` holds links or copies on request.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus.image_units import FolderUnit, ShardUnit, Unit, find_units, is_image_folder, printable
from synthpipe.corpus.keep_rule import Decisions, Gallery, State, choose_gallery, decide
from synthpipe.corpus.score_table import ScoreTable, open_scores, require_pyarrow
from synthpipe.corpus.shard_filter import FilterJob, Shown, filter_unit
from synthpipe.corpus.unit_job import target_names
from synthpipe.errors import OptionError, ShardError, counted
from synthpipe.files.output_place import local_output
from synthpipe.files.storage import OutputFolder, absolute_url, sha256_of
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.job_result import REPORT_NAME
from synthpipe.shards.run_plan import InputChecksum, RunPlan, open_run
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo

__all__ = ["HTML_NAME", "KEPT_LIST", "REPORT_NAME", "FilterOutcome", "filter_corpus"]

KEPT_LIST = "kept.txt"
HTML_NAME = "report.html"

_FORMAT = "synthpipe-filter-plan"
_VERSION = 1


@dataclass(frozen=True)
class FilterOutcome:
    """What came of a run.

    ``pictures`` are by row of the table, ``names`` the shard (None for files) and key of the same rows.  ``index`` has
    no shards where nothing was kept or the source was a folder.  ``passed_over`` counts what lay in folders beside the
    images, by suffix or reason, and in shards what no sample uses, of which ``unused`` says more.
    """

    options: CorpusFilterOptions
    about: dict[str, Any]
    decisions: Decisions
    gallery: Gallery
    pictures: dict[int, Shown]
    names: dict[int, tuple[str | None, str]]
    index: ShardIndex
    passed_over: dict[str, int]
    unused: str = ""

    @property
    def images(self) -> int:
        """Rows of the table."""
        return len(self.decisions.states)

    @property
    def kept(self) -> int:
        """Images kept."""
        return self.decisions.count(State.KEPT)


def filter_corpus(
    options: CorpusFilterOptions,
    on_progress: Callable[[int, int], None] | None = None,
    render: Callable[[FilterOutcome, ScoreTable], str] | None = None,
) -> FilterOutcome:
    """Keep what the rule keeps, or finish what an earlier run began.

    Args:
        options: the corpus, its scores, the rule, and where to.
        on_progress: called in this process with (images done, images in all).
        render: makes the text of ``report.html``; see :func:`synthpipe.filter_report.render_report`.

    Raises:
        OptionError: no such column, links to where there can be none.
        ShardError: no image with a score, scores of another corpus, a folder that holds other shards or was begun with
            another rule, a disk that cannot be read or written, two runs in one folder.
    """
    require_pyarrow()
    # Before it is made; a list of files is no image.
    place = None if options.files == "list" and is_image_folder(options.source[0]) else local_output(options.output)
    output = OutputFolder(absolute_url(options.output))
    if options.files != "list" and not output.local:
        raise OptionError(f"files: {options.files!r} needs an output folder on this machine, got {options.output!r}")
    passed_over: Counter[str] = Counter()
    units = find_units(options.source, allow_pipe=options.allow_pipe, passed_over=passed_over, output=place)
    _check_names(units)
    with open_scores(options.scores) as table, open_run(output) as scratch:
        sizes = _match(units, table)
        decisions = decide(table, options)
        _plan(options).begin(output, scratch, foreign=[KEPT_LIST])
        gallery = choose_gallery(decisions, options.seed)
        run = _Run(options, units, sizes, decisions, gallery, output, scratch)
        run.do(table, on_progress or (lambda done, total: None))
        passed = dict(passed_over + run.beside)
        outcome = FilterOutcome(
            options, table.about, decisions, gallery, run.pictures, run.names, run.index(), passed, run.unused
        )
        run.finish()
        if render is not None:
            output.publish_bytes(printable(render(outcome, table)).encode(), HTML_NAME, scratch)
        if outcome.index.shards:
            # The last: with it the folder is a corpus.
            output.publish_bytes(outcome.index.to_json().encode(), INDEX_NAME, scratch)
    return outcome


class _Run:
    """One run over the shards: jobs out, results in."""

    def __init__(
        self,
        options: CorpusFilterOptions,
        units: Sequence[Unit],
        sizes: Sequence[int],
        decisions: Decisions,
        gallery: Gallery,
        output: OutputFolder,
        scratch: Path,
    ) -> None:
        self._options = options
        self._units, self._sizes = units, sizes
        self._begins = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()
        self._decisions = decisions
        self._wanted = np.array(gallery.rows(), np.int64)
        self._output, self._scratch = output, scratch
        self._targets = target_names(units)
        self._kept: dict[str, ShardInfo] = {}
        self.pictures: dict[int, Shown] = {}
        self.names: dict[int, tuple[str | None, str]] = {}
        self.beside: Counter[str] = Counter()
        self.unused = ""

    def do(self, table: ScoreTable, progress: Callable[[int, int], None]) -> None:
        """All jobs; afterwards ``pictures`` and ``names`` are complete."""
        numbers = {unit.label: number for number, unit in enumerate(self._units)}
        workers = min(self._options.workers, len(self._units))
        done = 0
        progress(done, len(table))
        for result in run_jobs(filter_unit, self._jobs(table), engine=self._options.engine, workers=workers):
            number = numbers[result.name]
            if result.samples and isinstance(self._units[number], ShardUnit):
                name = self._targets[number]
                self._kept[name] = ShardInfo(name, result.samples, result.bytes, result.sha256)
            for place, pictures in result.pictures.items():
                small, piece = map(base64.b64decode, pictures)
                self.pictures[self._begins[number] + int(place)] = Shown(small, piece)
            self.beside.update(result.beside)
            self.unused = self.unused or result.unused
            done += self._sizes[number]
            progress(done, len(table))

    def index(self) -> ShardIndex:
        """The kept shards, in the order of the source."""
        shards = tuple(self._kept[name] for name in self._targets if name in self._kept)
        return ShardIndex(shards, self._output.url.rstrip("/"))

    def finish(self) -> None:
        """Write what stands beside the shards."""
        text = json.dumps(_summary(self._options, self._decisions), indent=1, sort_keys=True) + "\n"
        self._output.publish_bytes(text.encode(), REPORT_NAME, self._scratch)
        if isinstance(self._units[0], FolderUnit):
            self._output.publish_bytes(self._list_of_files(), KEPT_LIST, self._scratch)

    def _jobs(self, table: ScoreTable) -> Iterator[FilterJob]:
        scratch = str(self._scratch) if self._output.local else None
        groups = table.rows(("key", "sha256"), self._sizes)
        for unit, target, begin, group in zip(self._units, self._targets, self._begins, groups, strict=False):
            keys = tuple(group["key"])
            end = begin + len(keys)
            wanted = self._wanted[(begin <= self._wanted) & (self._wanted < end)].tolist()
            label = printable(unit.label) if isinstance(unit, ShardUnit) else None
            self.names |= {row: (label, keys[row - begin]) for row in wanted}
            yield FilterJob(
                unit=unit,
                output=self._output,
                scratch=scratch,
                target=target,
                keys=keys,
                sha256=tuple(group["sha256"]),
                states=self._decisions.states[begin:end].tobytes(),
                shown=tuple(row - begin for row in wanted),
                files=self._options.files,
            )

    def _list_of_files(self) -> bytes:
        lines = []
        for unit, begin in zip(self._units, self._begins, strict=False):
            assert isinstance(unit, FolderUnit)
            for entry, state in zip(unit.entries, self._decisions.states[begin:], strict=False):
                if state == State.KEPT:
                    lines.append(os.fsencode(entry.source) + b"\n")
        return b"".join(lines)


def _check_names(units: Sequence[Unit]) -> None:
    """Before the work, not when the list of kept files is written.

    Raises:
        ShardError: a name that a list cannot hold.
    """
    for unit in units:
        for entry in unit.entries if isinstance(unit, FolderUnit) else ():
            if "\n" in entry.source or "\r" in entry.source:
                raise ShardError(f"{entry.path!r}: a name with a line break cannot stand in a list; rename it")


def _match(units: Sequence[Unit], table: ScoreTable) -> list[int]:
    """Rows of each unit.

    Raises:
        ShardError: the table is of other shards, or of another number of files.
    """
    remedy = "score the source again with `synthpipe score` (a cache makes that quick), or name what was scored"
    kind = "shards" if isinstance(units[0], ShardUnit) else "folder"
    table.require_facts("kind", "weights", "scorer", "tiles")
    if table.about["kind"] != kind:
        raise ShardError(f"{table.url}: scores of {table.about['kind']}, but the source is {kind}; {remedy}")
    if kind == "folder":
        sizes = [len(unit.entries) for unit in units if isinstance(unit, FolderUnit)]
        if sum(sizes) != len(table):
            raise ShardError(
                f"{table.url}: scores of {counted(len(table), 'file')}, but the source holds "
                f"{counted(sum(sizes), 'image')}; {remedy}"
            )
        return sizes
    codes, labels = table.codes("shard")
    begins = np.flatnonzero(np.diff(codes, prepend=-1))
    lengths = np.diff(begins, append=len(codes)).tolist()
    found = [labels[code] for code in codes[begins]]
    expected = [printable(unit.label) for unit in units]
    rows = dict(zip(found, lengths, strict=True))
    # A shard without any sample has no rows.
    if found != [label for label in expected if label in rows]:
        strange = next((label for label in found if label not in expected), None)
        what = f"shard {strange!r}, which the source lacks" if strange else "the same shards in another order"
        raise ShardError(f"{table.url}: holds scores of {what}; {remedy}")
    return [rows.get(label, 0) for label in expected]


def _plan(options: CorpusFilterOptions) -> RunPlan:
    """The rule and the scores; the images are compared with these one by one."""
    rule = _rule(options) | options.model_dump(include={"files", "seed"})
    scores = InputChecksum(sha256_of(options.scores), lambda before: f"begun with other scores than {options.scores}")
    return RunPlan(_FORMAT, _VERSION, "rule", rule, {"scores": scores})


def _rule(options: CorpusFilterOptions) -> dict[str, Any]:
    """What decides; kinds stand in it only where they do, so that runs from before them can be finished."""
    kinds = {"kinds": options.kind_limits} if options.reject_kinds is not None else {}
    return options.model_dump(include={"reject", "max_logit", "by", "per_source"}) | kinds


def _summary(options: CorpusFilterOptions, decisions: Decisions) -> dict[str, Any]:
    return {
        "images": len(decisions.states),
        "kept": decisions.count(State.KEPT),
        "rejected": decisions.count(State.REJECTED),
        "not_finite": decisions.count(State.NOT_FINITE),
        "without_score": decisions.without_score,
        "rule": _rule(options),
        **({"rejected_by_kind": decisions.rejected_by_kind()} if decisions.kinds else {}),
        "thresholds": {"all" if source is None else source: value for source, value in decisions.thresholds.items()},
    }

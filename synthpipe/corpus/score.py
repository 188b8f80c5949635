"""A corpus to a table of scores: one job for each shard, each with one file, merged in the order of the shards.

A run that was killed goes on where it stopped, and its table is byte for byte that of a run that was not, on any
engine with any number of workers: images are scored one at a time on one thread, and a finished file is used again
only for the same shard, scorer and settings.

Beside ``OUT.parquet``::

    OUT.parts/SHARD.parquet   one for each shard; may be removed when all is done
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from synthpipe import checkpoints
from synthpipe._version import __version__
from synthpipe.config.score import ScoreOptions
from synthpipe.corpus.image_units import (
    FolderUnit,
    ShardUnit,
    StoredImage,
    Unit,
    find_units,
    is_image_folder,
    printable,
)
from synthpipe.corpus.score_cache import CachedScore, ScoreCache
from synthpipe.corpus.score_table import ScoreRow, merge_parts, read_part, require_pyarrow, write_part
from synthpipe.corpus.threads import one_thread
from synthpipe.corpus.unit_job import UnitJob, unused_facts
from synthpipe.density.kinds.scorer import KindScorer, worst_kind
from synthpipe.device import resolve_device
from synthpipe.errors import CheckpointError, ImageError, ShardError
from synthpipe.files.decode import decode_image
from synthpipe.files.given_up import GivenUpCounts, first_named
from synthpipe.files.output_place import local_output
from synthpipe.files.storage import OutputFolder, absolute_url, local_path
from synthpipe.pixel_limit import MAX_PIXELS
from synthpipe.shards.engine import run_jobs
from synthpipe.shards.run_plan import differences
from synthpipe.shards.unused_images import NO_IMAGES
from synthpipe.transforms.density import load_scorer, score_image

if TYPE_CHECKING:
    from synthpipe.transforms.density import Scorer

__all__ = ["ScoreJob", "ScoreReport", "UnitScores", "score_corpus", "score_unit"]

#: Images scored between two transactions of the cache.
_CACHED_AT_ONCE = 64


@dataclass(frozen=True)
class ScoreSettings:
    """What decides the numbers."""

    weights: str
    scorer: str
    tiles: int
    device: Literal["cpu", "cuda"]
    max_pixels: int = MAX_PIXELS

    def identity(self) -> dict[str, Any]:
        """What a number is only comparable within; parts and caches from before profiles were applied lack colours."""
        return {
            "scorer": self.scorer,
            "tiles": self.tiles,
            "device": self.device,
            "colors": "srgb",
            "max_pixels": self.max_pixels,
            "synthpipe": __version__,
        }


@dataclass(frozen=True, kw_only=True)
class ScoreJob(UnitJob):
    """All that :func:`score_unit` needs.

    Args:
        unit, output, scratch: see :class:`UnitJob`.
        settings: what decides the numbers.
        cache: folder of scores by content, None for none.
    """

    settings: ScoreSettings
    cache: str | None


@dataclass(frozen=True)
class UnitScores:
    """What became of one shard; ``errors`` are images without a score, by reason.

    ``hits`` were found in the cache, ``misses`` computed; both are 0 where an earlier run had done the shard.
    ``beside`` counts image files that no sample uses, by reason, and ``unused`` says which and why.  ``given_up``
    counts what images with a score held beside 8-bit sRGB, by reason, and ``examples`` are the first few of each.
    """

    name: str
    images: int
    errors: dict[str, int]
    hits: int = 0
    misses: int = 0
    reused: bool = False
    beside: dict[str, int] = field(default_factory=dict)
    unused: str = ""
    given_up: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreReport:
    """What came of a run: the table's URL, images in it, images without a score by reason, and who did the work.

    ``passed_over`` counts what lay in folders beside the images, by suffix or reason, and in shards what no sample
    uses, of which ``unused`` says more.  ``given_up`` and ``examples`` are as those of :class:`UnitScores`.
    """

    output: str
    units: int
    images: int
    errors: dict[str, int]
    hits: int
    misses: int
    reused_units: int
    passed_over: dict[str, int]
    unused: str = ""
    given_up: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        """Images with a score."""
        return self.images - sum(self.errors.values())


def score_corpus(options: ScoreOptions, on_progress: Callable[[int, int, int], None] | None = None) -> ScoreReport:
    """Score all images of a corpus, or finish what an earlier run began.

    Args:
        options: what, by what, and where to.
        on_progress: called in this process with (shards done, shards in all, images done).

    Raises:
        CheckpointError: no such weights, or none of a scorer.
        OptionError: a source that is no corpus, a device that is not there, Ray that is not installed.
        ShardError: no images, a shard that does not exist, a disk that cannot be read or written, two runs at once.
    """
    require_pyarrow()
    device = cast(Literal["cpu", "cuda"], resolve_device(options.device))
    weights = str(checkpoints.resolve(options.weights).absolute())
    scorer = _load(weights)
    columns = table_columns(scorer)
    settings = ScoreSettings(weights, checkpoints.fingerprint_of(scorer), options.tiles, device, options.max_pixels)
    passed_over: Counter[str] = Counter()
    output = local_output(os.path.dirname(options.output) or ".") if is_image_folder(options.source[0]) else None
    units = find_units(options.source, allow_pipe=options.allow_pipe, passed_over=passed_over, output=output)
    target, parts_name = _place(options.output)
    if target.local and Path(local_path(options.output)).is_dir():
        raise ShardError(f"cannot write {options.output!r}: there is a folder of that name; move it, or name another")
    parts = OutputFolder(f"{target.url.rstrip('/')}/{parts_name}.parts")
    done: list[UnitScores] = []
    images = 0
    progress = on_progress or (lambda units_done, units_total, images: None)
    with parts.lock("lock"), parts.scratch("unfinished") as scratch:
        shared = str(scratch) if parts.local else None
        cache = os.path.abspath(options.cache) if options.cache else None
        jobs = (ScoreJob(unit=unit, output=parts, scratch=shared, settings=settings, cache=cache) for unit in units)
        progress(0, len(units), 0)
        workers = min(options.workers, len(units))
        cuda = device == "cuda"
        for result in run_jobs(score_unit, jobs, engine=options.engine, workers=workers, cuda=cuda):
            done.append(result)
            images += result.images
            progress(len(done), len(units), images)
        merged = scratch / "merged.parquet"
        about = settings.identity() | {
            "columns": list(columns),
            "images": images,
            "kind": "shards" if isinstance(units[0], ShardUnit) else "folder",
            "weights": Path(weights).name,
            **_kinds_of(scorer),
        }
        merge_parts(merged, _parts_of(units, parts), columns, about)
        target.publish(merged, f"{parts_name}.parquet")
    return _report(options.output, done, passed_over)


def score_unit(job: ScoreJob) -> UnitScores:
    """Score one shard, unless an earlier run has; a plain function, so that any engine can run it.

    Raises:
        ShardError: the shard cannot be read, or the file not written.
        CheckpointError: other weights than the run was begun with.
    """
    settings = job.settings
    # Before a byte is read: a shard that changes meanwhile must not pass for one that was scored.
    about = settings.identity() | {"fingerprint": job.unit.fingerprint()}
    finished = _finished_earlier(job, about)
    if finished is not None:
        return finished
    with one_thread(), job.scratch_folder() as scratch, job.unit.open() as (_, images):
        scorer = _scorer(settings.weights, settings.scorer, settings.device)
        scoring = _Scoring(scorer, settings, job.cache)
        rows, unused = [], NO_IMAGES
        for image in images:
            rows.append(scoring.row(image))
            unused += image.unused
        scoring.flush()
        errors = dict(sorted(Counter(row.error for row in rows if row.error).items()))
        name = _part_name(job.unit)
        more = unused_facts(unused, job.unit) | scoring.given_up.facts()
        about["counts"] = {"images": len(rows), "errors": errors, **more}
        write_part(scratch / name, rows, table_columns(scorer), about | _kinds_of(scorer))
        job.output.publish(scratch / name, name)
    return UnitScores(job.name, len(rows), errors, scoring.hits, scoring.misses, **more)


def table_columns(scorer: Scorer) -> tuple[str, ...]:
    """Names of the numbers in the table."""
    first = scorer.columns[0]
    return (*scorer.columns, f"{first}_q10", f"{first}_q90")


def _kinds_of(scorer: Scorer) -> dict[str, list[str]]:
    """For the metadata of tables with reasons."""
    return {"kinds": list(scorer.kinds)} if isinstance(scorer, KindScorer) else {}


class _Scoring:
    """Images of one shard to rows, by the cache where it knows them."""

    def __init__(self, scorer: Scorer, settings: ScoreSettings, cache: str | None) -> None:
        self._scorer = scorer
        self._settings = settings
        self._columns = table_columns(scorer)
        text = json.dumps(settings.identity() | {"columns": self._columns}, sort_keys=True)
        identity = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._cache = None if cache is None else ScoreCache(cache, identity)
        self._fresh: dict[str, CachedScore] = {}
        self.hits = self.misses = 0
        self.given_up = GivenUpCounts()

    def row(self, image: StoredImage) -> ScoreRow:
        """The image's row of the table, with the reason where it has no score."""
        row = ScoreRow(printable(image.key), printable(image.path), printable(_first_folder(image.origin)))
        if image.problem is not None:
            row.error = image.problem
            return row
        row.bytes, row.sha256 = len(image.data), hashlib.sha256(image.data).hexdigest()
        score = self._known(row.sha256) or self._compute(row.sha256, image)
        row.width, row.height, row.tiles, row.error = score.width, score.height, score.tiles, score.error
        row.numbers = score.numbers
        if row.numbers is not None and not math.isfinite(row.numbers[0]):
            # Weights that are damaged, or a density where it has no numbers left: not a score.
            row.numbers, row.tiles, row.error = None, None, "not_finite"
        if row.numbers is not None and isinstance(self._scorer, KindScorer):
            kinds = self._scorer.kinds
            row.reason = worst_kind(kinds, row.numbers[1 : 1 + len(kinds)])
        if score.given_up and row.error is None:
            row.given_up = " ".join(sorted(score.given_up))
            self.given_up.add(image.path, score.given_up)
        return row

    def flush(self) -> None:
        """Bring what is new to the cache."""
        if self._cache is not None:
            self._cache.put(self._fresh)
        self._fresh = {}

    def _known(self, sha256: str) -> CachedScore | None:
        if self._cache is None:
            return None
        score = self._fresh.get(sha256) or self._cache.get(sha256)
        self.hits += score is not None
        return score

    def _compute(self, sha256: str, image: StoredImage) -> CachedScore:
        score = self._score(image)
        self.misses += 1
        if self._cache is not None:
            self._fresh[sha256] = score
            if len(self._fresh) >= _CACHED_AT_ONCE:
                self.flush()
        return score

    def _score(self, image: StoredImage) -> CachedScore:
        width = height = None
        try:
            pixels, given_up = decode_image(image.data, image.path, max_pixels=self._settings.max_pixels)
            height, width = pixels.shape[:2]
            found = score_image(self._scorer, torch.from_numpy(pixels).permute(2, 0, 1), self._settings.tiles)
        except ImageError as error:
            return CachedScore(width, height, None, None, error.reason)
        numbers = tuple(found[name] for name in self._columns)
        return CachedScore(width, height, numbers, int(found["tiles"]), None, dict(given_up))


def _first_folder(path: str) -> str:
    head, slash, _ = path.partition("/")
    return head if slash else ""


@functools.lru_cache(maxsize=1)
def _scorer(weights: str, fingerprint: str, device: str) -> Scorer:
    """The scorer of this process, loaded once."""
    scorer = _load(weights)
    found = checkpoints.fingerprint_of(scorer)
    if found != fingerprint:
        raise CheckpointError(
            f"{weights}: not the weights that this run was begun with (fingerprint {found}, expected {fingerprint}); "
            "all machines need the same file"
        )
    return scorer.to(device)


def _load(weights: str) -> Scorer:
    return load_scorer(weights).requires_grad_(False)


def _place(output: str) -> tuple[OutputFolder, str]:
    """The folder that the table goes to, and the table's name without its suffix."""
    folder, _, name = absolute_url(output).rpartition("/")
    return OutputFolder(folder or "/"), name.removesuffix(".parquet")


def _part_name(unit: Unit) -> str:
    place = unit.url if isinstance(unit, ShardUnit) else unit.label
    mark = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    # A cut in the middle of a character is written as a name may be that is no UTF-8.
    name = os.fsencode(unit.label.rsplit("/", 1)[-1].removesuffix(".tar")[:100])[:200]
    return f"{os.fsdecode(name)}-{mark}.parquet"


def _read_part(unit: Unit, output: OutputFolder) -> tuple[dict[str, Any], Any] | None:
    data = output.read(_part_name(unit))
    return None if data is None else read_part(data)


def _finished_earlier(job: ScoreJob, about: dict[str, Any]) -> UnitScores | None:
    """What an earlier run counted, if its part is of this shard as it is now, by this scorer with these settings."""
    found = _read_part(job.unit, job.output)
    if found is None or about["fingerprint"] is None:
        return None
    before = found[0]
    if differences({name: before.get(name) for name in about}, about):
        return None
    try:
        return UnitScores(job.name, **before["counts"], reused=True)
    except (KeyError, TypeError):
        return None


def _parts_of(units: list[ShardUnit] | list[FolderUnit], output: OutputFolder) -> Iterator[tuple[str | None, Any]]:
    for unit in units:
        found = _read_part(unit, output)
        if found is None:
            raise ShardError(f"{output.url}/{_part_name(unit)}: has vanished or was damaged during the run; run again")
        yield (printable(unit.label) if isinstance(unit, ShardUnit) else None), found[1]


def _report(output: str, done: list[UnitScores], passed_over: Counter[str]) -> ScoreReport:
    errors: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    for scores in done:
        errors.update(scores.errors)
        given_up.update(scores.given_up)
        passed_over.update(scores.beside)
    return ScoreReport(
        output,
        len(done),
        sum(scores.images for scores in done),
        dict(sorted(errors.items())),
        sum(scores.hits for scores in done),
        sum(scores.misses for scores in done),
        sum(scores.reused for scores in done),
        dict(passed_over),
        next((scores.unused for scores in done if scores.unused), ""),
        dict(sorted(given_up.items())),
        first_named(scores.examples for scores in sorted(done, key=lambda scores: scores.name)),
    )

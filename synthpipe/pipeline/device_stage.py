"""The stage of a stream on the device: tiles in, patches out.

On a CUDA device all of it is one captured graph: uint8 tiles in, patches and one code for each row out, and the codes
are read when the pool has to know them.  Where it cannot be captured, and on a CPU, the same functions run one after
the other, and what is dropped is taken out before the degradation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthpipe.errors import OptionError, ShapeError
from synthpipe.images import quantize_8bit, to_float
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.patches import BROKEN, DROPPED, JUDGED, KEPT, NOT_FINITE, REFUSED, Patches, RowFates
from synthpipe.pipeline.source import FILTERED, Record
from synthpipe.pipeline.tally import Tally
from synthpipe.transforms.base import BatchTransform, DeviceTransform, check_rows
from synthpipe.transforms.batch import Batch, batch_length, repeated, select_samples
from synthpipe.transforms.captured import CapturedFunction

__all__ = ["DeviceStage", "StageSteps"]


@dataclass(frozen=True)
class StageSteps:
    """What tiles go through, in this order.

    Args:
        denoise: cleans the tiles.
        border: pixels on each side of a tile that only the denoiser sees.
        transforms: applied to the clean tiles, in order; each may drop samples.
        judges: score the clean tiles and drop by the score, in order.
        degrade: adds ``lq``; None leaves clean patches.

    Raises:
        OptionError: anything but ``degrade`` that makes several of each tile.
    """

    denoise: BatchTransform | None = None
    border: int = 0
    transforms: Sequence[BatchTransform] = ()
    judges: Sequence[BatchTransform] = ()
    degrade: BatchTransform | None = None

    def __post_init__(self) -> None:
        for step in (self.denoise, *self.transforms, *self.judges):
            if step is not None and step.samples != 1:
                raise OptionError(
                    f"{type(step).__name__}: samples is {step.samples}; only a degradation makes several of each tile"
                )

    def to(self, device: torch.device) -> StageSteps:
        """The same on ``device``."""
        return StageSteps(
            None if self.denoise is None else self.denoise.to(device),
            self.border,
            [transform.to(device) for transform in self.transforms],
            [judge.to(device) for judge in self.judges],
            None if self.degrade is None else self.degrade.to(device),
        )

    @property
    def capturable(self) -> bool:
        """Whether all of it is tensor operations alone."""
        steps = [self.denoise, *self.transforms, *self.judges, self.degrade]
        return all(step is None or isinstance(step, DeviceTransform) for step in steps)


class DeviceStage:
    """Tiles to patches on the device: float, denoiser, transforms, filter, degradation, 8 bits, finite, cut.

    Args:
        device: where to work.
        steps: what to do.
        cut: which patches; None where nothing degrades: tiles are patches.
        rows: tiles of a record, at most; shorter ones are filled up where the stage is captured.
        capture: makes the captured function, from a function and ``rows``; None: only on CUDA, and where it can be.
        compile: by ``torch.compile``, before it is captured.

    Raises:
        OptionError: ``compile`` of what is not captured.
    """

    def __init__(
        self,
        device: torch.device,
        steps: StageSteps,
        cut: PatchCut | None,
        rows: int,
        capture: Callable[[Callable[..., tuple[Tensor, ...]], int], CapturedFunction] | None = None,
        *,
        compile: bool = False,
    ) -> None:
        self._device = device
        self._steps = steps.to(device)
        self._cut = cut
        self._wants_seen = cut is not None and steps.degrade is not None and steps.degrade.needs_seen
        if capture is None and device.type == "cuda" and steps.capturable:
            capture = CapturedFunction
        if compile and capture is None:
            reason = "transforms that are tensor operations alone" if device.type == "cuda" else "a CUDA device"
            raise OptionError(f"compile: needs {reason}; leave it out")
        function = torch.compile(self.compute, dynamic=False) if compile else self.compute
        self._whole = None if capture is None else capture(function, rows)

    @torch.no_grad()
    def __call__(self, record: Record, tally: Tally) -> Patches:
        """Patches of one record: ``gt``, ``lq``, ``lq_path``, ``gt_path``, or without degradation ``gt``, ``key``,
        ``seed``, ``gt_path``.  What is lost on the way is counted in ``tally``, now or when it is settled."""
        if self._steps.degrade is not None and self._steps.degrade.has_choices:
            seeds, seen = (torch.from_numpy(record[key]) for key in ("seed", "seen"))
            tally.note_ways(self._steps.degrade.ways(seeds, seen))
        if self._whole is None:
            return self._one_after_the_other(record, tally)
        seed = torch.from_numpy(record["seed"])
        places = [seed] if self._cut is None else [seed, torch.from_numpy(record["corner"])]
        if self._wants_seen:
            places.append(torch.from_numpy(record["seen"]))
        if self._device.type == "cuda":
            places = [value.pin_memory() for value in places]
        *patches, codes = self._whole(record["tile"].to(self._device, non_blocking=True), *places)
        samples = 1 if self._cut is None else self._cut.samples
        fates = RowFates(codes, samples, bool(self._steps.judges))
        return self._patches(patches, record["key"], repeated(record["path"], samples), seed, fates)

    def compute(
        self, tile: Tensor, seed: Tensor, corner: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """All of it in tensor operations alone, dropping nothing.

        Args:
            tile: ``(B, 3, S, S)`` uint8.
            seed: ``(B,)`` int64.
            corner: of :meth:`PatchCut.corners`, where the stage degrades.
            seen: images that the stream had read before, where the degradation asks for them.

        Returns:
            LR patches (where it degrades), HR patches, and one code for each row, uint8, of
            :mod:`synthpipe.pipeline.patches`.
        """
        steps = self._steps
        batch = {"gt": to_float(tile), "seed": seed}
        codes = torch.zeros(len(tile), dtype=torch.uint8, device=tile.device)
        if steps.denoise is not None:
            batch = _computed(steps.denoise, batch)
            batch["gt"] = _without_border(batch["gt"], steps.border)
            codes = _marked(codes, _finite(batch["gt"]), NOT_FINITE)
        for transform in steps.transforms:
            batch = _computed(transform, batch)
            codes = _marked(codes, batch.pop("keep", None), DROPPED)
        if steps.transforms:
            codes = _marked(codes, _finite(batch["gt"]), NOT_FINITE)
        for judge in steps.judges:
            batch = _computed(judge, batch)
            codes = _marked(codes, batch.pop("keep", None), JUDGED)
        if self._cut is None or steps.degrade is None or corner is None:
            return batch["gt"], codes
        batch = _computed(steps.degrade, batch if seen is None else {**batch, "seen": seen})
        codes = codes.repeat_interleave(self._cut.samples, output_size=len(codes) * self._cut.samples)
        codes = _marked(codes, batch.pop("keep", None), REFUSED)
        codes = _marked(codes, _finite(batch["lq"]), BROKEN)
        return *self._cut.cut(quantize_8bit(batch["lq"].float()), batch["gt"], corner), codes

    def _one_after_the_other(self, record: Record, tally: Tally) -> Patches:
        batch = self.clean_tiles(record, tally)
        if not batch["key"]:
            return Patches()
        if self._cut is None or self._steps.degrade is None:
            return self._patches([batch["gt"]], batch["key"], batch["gt_path"], batch["seed"], None)
        batch = self._degraded(batch, record, tally)
        if not batch["key"]:
            return Patches()
        corners = batch["corner"].to(self._device)
        patches = self._cut.cut(quantize_8bit(batch["lq"].float()), batch["gt"].float(), corners)
        return self._patches(patches, batch["key"], batch["gt_path"], batch["seed"], None)

    def clean_tiles(self, record: Record, tally: Tally) -> Batch:
        """What is degraded: ``gt``, ``key``, ``seed`` and ``gt_path`` of the tiles that pass denoiser, transforms and
        filter.  What is lost is counted in ``tally``."""
        steps = self._steps
        batch: Batch = {
            "gt": to_float(record["tile"].to(self._device, non_blocking=True)),
            "key": record["key"],
            "seed": torch.from_numpy(record["seed"]),
            "gt_path": record["path"],
        }
        if self._wants_seen:
            batch["seen"] = torch.from_numpy(record["seen"])
        if steps.denoise is not None and batch["key"]:
            batch = steps.denoise(batch)
            batch = _drop_not_finite({**batch, "gt": _without_border(batch["gt"], steps.border)}, "gt", tally)
        for transform in steps.transforms:
            batch = _transformed(transform, batch, tally)
        if steps.transforms:
            batch = _drop_not_finite(batch, "gt", tally)
        if steps.judges and batch["key"]:
            before = len(batch["key"])
            for judge in steps.judges:
                batch = judge(batch)
            tally.judge(len(batch["key"]), before - len(batch["key"]))
        return batch

    def _degraded(self, batch: Batch, record: Record, tally: Tally) -> Batch:
        """One row for each degradation that came to something, with the ``corner`` of its patches."""
        degrade, cut = self._steps.degrade, self._cut
        assert degrade is not None
        assert cut is not None
        most = len(batch["key"]) * cut.samples
        if self._wants_seen and "seen" not in batch:
            batch = {**batch, "seen": _seen_again(batch, record)}
        # What comes here is finite; a look at it again would cost a pass over the tiles.
        keep: Tensor | None = None
        if isinstance(degrade, DeviceTransform):
            batch = degrade.all_rows(batch)
            keep = batch.pop("keep", None)
        else:
            batch = degrade(batch)
        if not _rows(degrade, batch, most, ("lq",)):
            tally.lose(most, FILTERED)
            return batch
        batch = {**batch, "corner": self._corners(batch, record)}  # of a sample, whichever others of its tile are left
        if keep is not None and not bool(keep.all()):
            batch = select_samples(batch, keep.nonzero()[:, 0])
        tally.lose(most - len(batch["key"]), FILTERED)
        return _drop_not_finite(batch, "lq", tally)

    def _corners(self, batch: Batch, record: Record) -> Tensor:
        """``(rows, count, 2)``: the reader's, unless a transform changed the size of tiles."""
        cut = self._cut
        assert cut is not None
        seeds, sides = batch["seed"].tolist(), tuple(batch["lq"].shape[-2:])
        # A transform may have dropped or moved rows: a tile is known by its seed.
        known = dict(zip(record["seed"].tolist(), record["corner"], strict=True))
        if sides != (cut.tile, cut.tile) or not known.keys() >= set(seeds):
            known = dict(zip(seeds, cut.corners(seeds, sides), strict=True))
        if cut.samples == 1:
            return torch.from_numpy(np.stack([known[seed] for seed in seeds]))
        met: Counter[int] = Counter()
        rows = []
        for seed in seeds:
            first = met[seed] % cut.samples * cut.count
            met[seed] += 1
            rows.append(known[seed][first : first + cut.count])
        return torch.from_numpy(np.stack(rows))

    def _patches(
        self,
        patches: Sequence[Tensor],
        keys: Sequence[str],
        paths: Sequence[str],
        seed: Tensor,
        fates: RowFates | None,
    ) -> Patches:
        if self._cut is None:
            return Patches({"gt": patches[0], "seed": seed}, {"key": keys, "gt_path": paths}, 1, fates)
        lists = {"lq_path": paths, "gt_path": paths}
        return Patches({"lq": patches[0], "gt": patches[1]}, lists, self._cut.count, fates)


def _computed(step: BatchTransform, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    assert isinstance(step, DeviceTransform)
    made = step.computed(batch)
    return {**made, "gt": made["gt"].float()}


def _transformed(transform: BatchTransform, batch: Batch, tally: Tally) -> Batch:
    """What a user's transform makes of a batch; what it drops is counted."""
    before = len(batch["key"])
    if not before:
        return batch
    batch = transform(batch)
    tally.lose(before - _rows(transform, batch, before), FILTERED)
    return {**batch, "gt": batch["gt"].float()}


def _seen_again(batch: Batch, record: Record) -> Tensor:
    """``seen`` of samples whose transforms have not handed it on, by their seeds.

    Raises:
        ShapeError: the seeds are not those of the record.
    """
    at = dict(zip(record["seed"].tolist(), record["seen"].tolist(), strict=True))
    seeds = batch["seed"].tolist()
    if not at.keys() >= set(seeds):
        raise ShapeError("a transform changed seeds and left out 'seen', by which a schedule goes; hand it on")
    return torch.tensor([at[seed] for seed in seeds], dtype=torch.int64)


def _rows(transform: BatchTransform, batch: Batch, most: int, more: tuple[str, ...] = ()) -> int:
    """How many samples a transform has left.

    Raises:
        ShapeError: they are more than ``most``, or not all of a sample is there.
    """
    name = type(transform).__name__
    if missing := [key for key in ("gt", "key", "seed", "gt_path", *more) if key not in batch]:
        raise ShapeError(f"{name}: gave {sorted(batch)} without {missing}; hand on what the batch holds")
    rows = len(batch["key"])
    check_rows(name, batch, rows)
    if rows > most:
        raise ShapeError(f"{name}: {rows} samples came out where at most {most} may")
    return rows


def _without_border(x: Tensor, border: int) -> Tensor:
    inner = slice(border, -border or None)
    return x[..., inner, inner].contiguous()


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).flatten(1).all(1)


def _marked(codes: Tensor, keep: Tensor | None, code: int) -> Tensor:
    """Codes of rows that were kept so far and are not kept now become ``code``."""
    if keep is None:
        return codes
    return torch.where((codes == KEPT) & ~keep, torch.full_like(codes, code), codes)


def _drop_not_finite(batch: Batch, key: str, tally: Tally) -> Batch:
    finite = _finite(batch[key]).cpu()
    if bool(finite.all()):
        return batch
    kept = finite.nonzero().flatten()
    tally.lose(batch_length(batch) - len(kept), "not_finite")
    return select_samples(batch, kept)

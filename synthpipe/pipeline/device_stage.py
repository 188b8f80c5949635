"""The stage of a stream on the device: tiles in, patches out.

On a CUDA device all of it is one captured graph: uint8 tiles in, patches and one code for each row out, and the codes
are read when the pool has to know them.  Where it cannot be captured, and on a CPU, the same functions run one after
the other, and what is dropped is taken out before the degradation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthpipe.errors import OptionError
from synthpipe.images import quantize_8bit, to_float
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.patches import BROKEN, DROPPED, JUDGED, KEPT, NOT_FINITE, Patches, RowFates
from synthpipe.pipeline.source import FILTERED, Record
from synthpipe.pipeline.tally import Tally
from synthpipe.transforms.base import BatchTransform, DeviceTransform
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
    """

    denoise: BatchTransform | None = None
    border: int = 0
    transforms: Sequence[BatchTransform] = ()
    judges: Sequence[BatchTransform] = ()
    degrade: BatchTransform | None = None

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
        if self._whole is None:
            return self._one_after_the_other(record, tally)
        seed = torch.from_numpy(record["seed"])
        places = [seed] if self._cut is None else [seed, torch.from_numpy(record["corner"])]
        if self._device.type == "cuda":
            places = [value.pin_memory() for value in places]
        *patches, codes = self._whole(record["tile"].to(self._device, non_blocking=True), *places)
        samples = 1 if self._cut is None else self._cut.samples
        fates = RowFates(codes, samples, bool(self._steps.judges))
        return self._patches(patches, record["key"], record["path"], seed, fates)

    def compute(self, tile: Tensor, seed: Tensor, corner: Tensor | None = None) -> tuple[Tensor, ...]:
        """All of it in tensor operations alone, dropping nothing.

        Args:
            tile: ``(B, 3, S, S)`` uint8.
            seed: ``(B,)`` int64.
            corner: of :meth:`PatchCut.corners`, where the stage degrades.

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
        batch = _computed(steps.degrade, batch)
        codes = codes.repeat_interleave(self._cut.samples, output_size=len(codes) * self._cut.samples)
        codes = _marked(codes, _finite(batch["lq"]), BROKEN)
        return *self._cut.cut(quantize_8bit(batch["lq"]), batch["gt"], corner), codes

    def _one_after_the_other(self, record: Record, tally: Tally) -> Patches:
        batch = self._clean_tiles(record, tally)
        if not batch["key"]:
            return Patches()
        if self._cut is None or self._steps.degrade is None:
            return self._patches([batch["gt"]], batch["key"], batch["gt_path"], batch["seed"], None)
        batch = _degraded(self._steps.degrade, batch, self._cut.samples)
        batch = _drop_not_finite({**batch, "corner": self._corners(batch)}, "lq", tally)
        patches = self._cut.cut(quantize_8bit(batch["lq"]), batch["gt"], batch["corner"].to(self._device))
        return self._patches(patches, batch["key"], batch["gt_path"], batch["seed"], None, repeat=1)

    def _clean_tiles(self, record: Record, tally: Tally) -> Batch:
        """Up to the filter."""
        steps = self._steps
        batch: Batch = {
            "gt": to_float(record["tile"].to(self._device, non_blocking=True)),
            "key": record["key"],
            "seed": torch.from_numpy(record["seed"]),
            "gt_path": record["path"],
        }
        if self._cut is not None:
            batch["corner"] = torch.from_numpy(record["corner"])
        if steps.denoise is not None and batch["key"]:
            batch = steps.denoise(batch)
            batch = _drop_not_finite({**batch, "gt": _without_border(batch["gt"], steps.border)}, "gt", tally)
        for transform in steps.transforms:
            before = len(batch["key"])
            batch = transform(batch)
            tally.lose(before - len(batch["key"]), FILTERED)
        if steps.transforms:
            batch = _drop_not_finite(batch, "gt", tally)
        if steps.judges and batch["key"]:
            before = len(batch["key"])
            for judge in steps.judges:
                batch = judge(batch)
            tally.judge(len(batch["key"]), before - len(batch["key"]))
        return batch

    def _corners(self, batch: Batch) -> Tensor:
        """``(rows, count, 2)``: the reader's, unless a transform left them out or changed the size of tiles."""
        cut = self._cut
        assert cut is not None
        sides = tuple(batch["lq"].shape[-2:])
        corners: Tensor | None = batch.get("corner")
        if corners is None or sides != (cut.tile, cut.tile):
            # Rows of one tile stand together; none has been dropped yet.
            places = cut.corners(batch["seed"][:: cut.samples].tolist(), sides)
            corners = torch.from_numpy(places.reshape(len(batch["seed"]), cut.count, 2))
        return corners

    def _patches(
        self,
        patches: Sequence[Tensor],
        keys: Sequence[str],
        paths: Sequence[str],
        seed: Tensor,
        fates: RowFates | None,
        repeat: int | None = None,
    ) -> Patches:
        if self._cut is None:
            return Patches({"gt": patches[0], "seed": seed}, {"key": keys, "gt_path": paths}, 1, fates)
        repeat = self._cut.samples if repeat is None else repeat
        rows = repeated(paths, repeat)
        lists = {"lq_path": rows, "gt_path": rows}
        return Patches({"lq": patches[0], "gt": patches[1]}, lists, self._cut.count, fates)


def _computed(step: BatchTransform, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    assert isinstance(step, DeviceTransform)
    return step.compute(batch)


def _degraded(degrade: BatchTransform, batch: Batch, samples: int) -> Batch:
    """One row for each degradation, corners and lists included."""
    if not isinstance(degrade, DeviceTransform):
        return degrade(batch)
    # What comes here is finite; a look at it again would cost a pass over the tiles.
    tensors = degrade.compute({"gt": batch["gt"], "seed": batch["seed"].to(batch["gt"].device)})
    rows = {key: repeated(batch[key], samples) for key in ("key", "gt_path", "seed")}
    if "corner" in batch:
        rows["corner"] = batch["corner"].unflatten(1, (samples, -1)).flatten(0, 1)
    return {**rows, "gt": tensors["gt"], "lq": tensors["lq"]}


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

"""The stage of a stream on the device: tiles in, patches out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from synthpipe.images import quantize_8bit, to_float
from synthpipe.pipeline.pair import cut_pairs
from synthpipe.pipeline.source import FILTERED, Record
from synthpipe.pipeline.tally import Tally
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch, select_samples

__all__ = ["DeviceStage"]


class DeviceStage:
    """Tiles to patches on the device: float, denoiser, transforms, filter, degradation, 8 bits, finite, cut.

    Args:
        device: where to work.
        denoise: cleans the tiles.
        border: pixels on each side of a tile that only the denoiser sees.
        transforms: applied to the clean tiles, in order; each may drop samples.
        judges: score the clean tiles and drop by the score, in order.
        degrade: adds ``lq``; None leaves clean patches.
        scale, lq_size, margin, count: see :func:`synthpipe.pipeline.pair.cut_pairs`.
    """

    def __init__(
        self,
        device: torch.device,
        denoise: BatchTransform | None,
        border: int,
        transforms: Sequence[BatchTransform],
        judges: Sequence[BatchTransform],
        degrade: BatchTransform | None,
        *,
        scale: int,
        lq_size: int,
        margin: int,
        count: int,
    ) -> None:
        self._device = device
        self._denoise = denoise
        self._border = border
        self._transforms = transforms
        self._judges = judges
        self._degrade = degrade
        self._cut = {"scale": scale, "lq_size": lq_size, "margin": margin, "count": count}

    @torch.no_grad()
    def __call__(self, record: Record, tally: Tally) -> Batch:
        """Patches of one record: ``gt``, ``lq``, ``lq_path``, ``gt_path``, or without degradation ``gt``, ``key``,
        ``seed``, ``gt_path``; nothing where all was lost.  What is lost on the way is counted in ``tally``."""
        tiles = to_float(record["tile"].to(self._device, non_blocking=True))
        batch: Batch = {"gt": tiles, "key": record["key"], "seed": record["seed"], "gt_path": record["path"]}
        if self._denoise is not None and batch["key"]:
            batch = self._clean(self._denoise, batch, tally)
        for transform in self._transforms:
            before = len(batch["key"])
            batch = transform(batch)
            tally.lose(before - len(batch["key"]), FILTERED)
        if self._transforms:
            batch = _drop_not_finite(batch, "gt", tally)
        if self._judges and batch["key"]:
            before = len(batch["key"])
            for judge in self._judges:
                batch = judge(batch)
            tally.judge(len(batch["key"]), before - len(batch["key"]))
        if not batch["key"]:
            return {}
        if self._degrade is None:
            return {key: batch[key] for key in ("gt", "key", "seed", "gt_path")}
        batch = _drop_not_finite(self._degrade(batch), "lq", tally)
        batch = cut_pairs({**batch, "lq": quantize_8bit(batch["lq"])}, **self._cut)
        return {"lq": batch["lq"], "gt": batch["gt"], "lq_path": list(batch["gt_path"]), "gt_path": batch["gt_path"]}

    def _clean(self, denoise: BatchTransform, batch: Batch, tally: Tally) -> Batch:
        batch = denoise(batch)
        inner = slice(self._border, -self._border or None)
        return _drop_not_finite({**batch, "gt": batch["gt"][..., inner, inner].contiguous()}, "gt", tally)


def _drop_not_finite(batch: Batch, key: str, tally: Tally) -> Batch:
    finite = torch.isfinite(batch[key]).flatten(1).all(1).cpu()
    if bool(finite.all()):
        return batch
    kept = finite.nonzero().flatten()
    tally.lose(len(finite) - len(kept), "not_finite")
    return select_samples(batch, kept)

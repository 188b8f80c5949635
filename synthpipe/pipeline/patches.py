"""Patches of one record on their way from the stage to the pool, and what became of their tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from synthpipe.pipeline.source import FILTERED
from synthpipe.pipeline.tally import Tally

__all__ = ["BROKEN", "DROPPED", "JUDGED", "KEPT", "NOT_FINITE", "REFUSED", "Patches", "RowFates"]

#: What became of a tile on the device: it is used; it came to NaN or infinity before the filter; a transform dropped
#: it; the filter did; it came to NaN or infinity in the degradation; the degradation dropped it.
KEPT, NOT_FINITE, DROPPED, JUDGED, BROKEN, REFUSED = range(6)


class RowFates:
    """What became of each row of a batch, on its way from the device: nobody waits until somebody must know.

    Args:
        codes: ``(rows,)`` uint8 on the device.
        samples: rows that come from each tile.
        judged: whether a filter has decided about the tiles.
    """

    def __init__(self, codes: Tensor, samples: int, judged: bool) -> None:
        self._samples, self._judged = samples, judged
        self._ready: torch.cuda.Event | None = None
        if codes.is_cuda:
            self._codes = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
            self._codes.copy_(codes, non_blocking=True)
            self._ready = torch.cuda.current_stream(codes.device).record_event()
        else:
            self._codes = codes.clone()

    def settle(self, tally: Tally) -> list[int]:
        """Wait for the device, count what was lost, and return the rows that are used.

        Raises:
            StreamError: too much is lost.
        """
        if self._ready is not None:
            self._ready.synchronize()
        codes = self._codes.tolist()
        tiles = {code: codes.count(code) // self._samples for code in (NOT_FINITE, DROPPED, JUDGED)}
        tally.lose(tiles[DROPPED] + codes.count(REFUSED), FILTERED)
        tally.lose(tiles[NOT_FINITE] + codes.count(BROKEN), "not_finite")
        if self._judged:
            tally.judge(len(codes) // self._samples - sum(tiles.values()), tiles[JUDGED])
        return [row for row, code in enumerate(codes) if code == KEPT]


@dataclass(frozen=True)
class Patches:
    """Patches in order, row after row.

    Args:
        tensors: ``(rows * per_row, ...)`` each.
        lists: what belongs to each row, by key; patches gather it when they are emitted.
        per_row: patches of each row.
        fates: which rows are used; None: all are.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    per_row: int = 1
    fates: RowFates | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values()))) if self.tensors else 0

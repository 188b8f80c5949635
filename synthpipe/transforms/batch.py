"""Batches of samples: their length, joining them, and selecting from them.

A batch is a dictionary whose values are tensors ``(B, ...)`` and lists of B items; see
:mod:`synthpipe.transforms.base` for the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Batch", "batch_length", "join_batches", "repeated", "select_samples", "slice_samples"]

Batch = dict[str, Any]


def batch_length(batch: Batch) -> int:
    """The number of samples B; 0 for a batch without keys."""
    return len(next(iter(batch.values()))) if batch else 0


def join_batches(parts: Sequence[Batch]) -> Batch:
    """One batch of all samples in order; every part has the keys of the first.  A single part comes back as it is."""
    if len(parts) <= 1:
        return parts[0] if parts else {}
    return {
        key: torch.cat([part[key] for part in parts])
        if isinstance(value, Tensor)
        else [item for part in parts for item in part[key]]
        for key, value in parts[0].items()
    }


def repeated(value: Any, times: int) -> Any:
    """A tensor ``(B, ...)`` or a list of B items with each of them ``times`` times, one after the other."""
    if times == 1:
        return value
    if isinstance(value, Tensor):
        return value.repeat_interleave(times, 0)
    return [item for item in value for _ in range(times)]


def select_samples(batch: Batch, positions: Tensor) -> Batch:
    """The samples at ``positions`` ``(N,)`` int64, in that order, as copies; positions may lie on any device."""
    places = positions.tolist()
    return {
        key: value[positions.to(value.device)] if isinstance(value, Tensor) else [value[place] for place in places]
        for key, value in batch.items()
    }


def slice_samples(batch: Batch, begin: int, end: int) -> Batch:
    """The samples ``begin`` to ``end`` as copies, which share no memory with ``batch``."""
    return {
        key: value[begin:end].clone() if isinstance(value, Tensor) else value[begin:end] for key, value in batch.items()
    }

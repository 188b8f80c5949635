"""What the processes of a run tell each other; with one process nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["from_all", "mean_over_processes", "over_processes"]


def mean_over_processes(fabric: Fabric, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each number (a scalar) over the processes, by one collective call."""
    if fabric.world_size == 1:
        return numbers
    means = over_processes(fabric, torch.stack(list(numbers.values())), "mean")
    return dict(zip(numbers, means.unbind(), strict=True))


def over_processes(fabric: Fabric, values: Tensor, reduction: str) -> Tensor:
    """``values``, any shape, reduced over the processes: ``"sum"`` or ``"mean"``."""
    reduced = fabric.all_reduce(values, reduce_op=reduction)
    assert isinstance(reduced, Tensor), "a tensor reduces to a tensor"
    return reduced


def from_all(fabric: Fabric, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The ``state`` of every process, in the order of the ranks."""
    if fabric.world_size == 1:
        return [state]
    states: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(states, state)
    return states

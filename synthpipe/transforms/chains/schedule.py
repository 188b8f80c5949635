"""Numbers that change with the samples that a stream has read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Schedule"]


class Schedule(nn.Module):
    """Straight lines between knots ``(samples seen, value)``, level before the first and behind the last.

    The knots are numbers of the host, so that draws of a few samples can be made on any device.
    """

    def __init__(self, knots: Sequence[tuple[int, float]]) -> None:
        super().__init__()
        self._knots = tuple(knots)

    @property
    def changes(self) -> bool:
        """Whether the number of samples seen matters."""
        return len({value for _, value in self._knots}) > 1

    @property
    def always_one(self) -> bool:
        """Whether it is 1 at all times."""
        return all(value == 1 for _, value in self._knots)

    def forward(self, seen: Tensor) -> Tensor:
        """Values ``(B,)`` float64 for ``seen`` ``(B,)`` float64."""
        value = torch.full_like(seen, self._knots[0][1])
        for (early, low), (late, high) in itertools.pairwise(self._knots):
            value = value + ((seen - early) / (late - early)).clamp(0, 1) * (high - low)
        return value

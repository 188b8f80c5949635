"""Numbers that change with the samples that a stream has read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Schedule"]


class Schedule(nn.Module):
    """Straight lines between knots ``(samples seen, value)``, level before the first and behind the last."""

    times: Tensor
    values: Tensor

    def __init__(self, knots: Sequence[tuple[int, float]]) -> None:
        super().__init__()
        self._knots = tuple(knots)
        self.register_buffer("times", torch.tensor([time for time, _ in knots], dtype=torch.float64), persistent=False)
        values = torch.tensor([value for _, value in knots], dtype=torch.float64)
        self.register_buffer("values", values, persistent=False)

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
        value = self.values[:1].expand_as(seen)
        for knot in range(len(self._knots) - 1):
            early, late = self.times[knot], self.times[knot + 1]
            share = ((seen - early) / (late - early)).clamp(0, 1)
            value = value + share * (self.values[knot + 1] - self.values[knot])
        return value

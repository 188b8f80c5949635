"""Is a probability true?  A reliability diagram whose bins each rest on enough groups of samples.

Degraded copies of one picture are no independent samples.  A bin that few pictures fall into says nothing of the
probability, so it is merged with a neighbour, and each bin says how much other pictures would have moved it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["ReliabilityBin", "largest_bias", "reliability_bins"]

#: Of the draws that say how much chance there is in a bin, and the share of them between its limits.
_DRAWS, _SEED, _INSIDE = 1000, 0, 0.9


class ReliabilityBin(NamedTuple):
    """Samples of like probability, and what is true of them; degraded and clean ones count alike in all.

    Attributes:
        low, high: limits of the probability.
        samples: how many there are.
        groups: how many groups they are of, effectively: ``(sum w)**2 / sum w**2`` of the groups' weights.
        probability: their mean probability.
        share: of them that are degraded.
        interval: 5 and 95 % of ``probability - share`` where groups are drawn anew (bootstrap, 1000 draws).
    """

    low: float
    high: float
    samples: int
    groups: float
    probability: float
    share: float
    interval: tuple[float, float]

    @property
    def bias(self) -> float:
        """How much the probability is too high."""
        return self.probability - self.share


class _Part(NamedTuple):
    """Part of the diagram; ``rows (G, 4)`` has what :func:`_table` gives."""

    low: float
    high: float
    rows: Tensor

    @property
    def groups(self) -> float:
        weight = self.rows[:, 0]
        return float(weight.sum().square() / weight.square().sum()) if bool((weight > 0).any()) else 0.0


def reliability_bins(
    probabilities: Tensor, degraded: Tensor, groups: Tensor, bins: int = 5, least_groups: float = 0.0
) -> list[ReliabilityBin]:
    """The reliability diagram at even odds: 0.5 means "as likely as not" where both sides are as frequent.

    Args:
        probabilities: ``(N,)`` in [0, 1] that a sample is degraded.
        degraded: ``(N,)``, whether it is; both must occur.
        groups: ``(N,)`` int, which samples belong together (copies of one picture).
        bins: of equal width to begin with.
        least_groups: while a bin has fewer effective groups, the bin with the fewest is merged with the neighbour that
            has fewer; 0: bins are left as they are, without the empty ones.

    Raises:
        ShapeError: lengths that differ, one side alone, NaN or no probabilities.
    """
    there = degraded.bool()
    if not probabilities.shape == there.shape == groups.shape or probabilities.ndim != 1:
        raise ShapeError(
            f"reliability_bins: expected flat tensors of one length, got {tuple(probabilities.shape)}, "
            f"{tuple(degraded.shape)} and {tuple(groups.shape)}"
        )
    if not bool(there.any()) or bool(there.all()):
        raise ShapeError(f"reliability_bins: expected samples of both sides, got {int(there.sum())} of {len(there)}")
    values = probabilities.double()
    if not bool(((values >= 0) & (values <= 1)).all()):  # NaN is not, either
        raise ShapeError("reliability_bins: expected probabilities, got numbers outside [0, 1] or NaN")
    parts = [
        _Part(place / bins, (place + 1) / bins, rows) for place, rows in enumerate(_table(values, there, groups, bins))
    ]
    parts = _merged(parts, least_groups) if least_groups else [part for part in parts if part.groups]
    return [_described(part) for part in parts]


def largest_bias(bins: Sequence[ReliabilityBin], least_samples: int = 1) -> float:
    """The largest difference between probability and truth of a bin with at least so many samples; 0 without one."""
    return max((abs(one.bias) for one in bins if one.samples >= least_samples), default=0.0)


def _table(values: Tensor, there: Tensor, groups: Tensor, bins: int) -> list[Tensor]:
    """For each bin, by group: weight, weight times probability, weight of the degraded, samples; ``(G, 4)``."""
    weight = torch.where(there, 0.5 / there.sum(), 0.5 / (~there).sum()).double()
    names, owners = torch.unique(groups, return_inverse=True)
    columns = torch.stack([weight, weight * values, weight * there, torch.ones_like(weight)], 1)
    place = (values * bins).long().clamp_max(bins - 1)
    every = values.new_zeros(bins * len(names), 4).index_add_(0, place * len(names) + owners, columns)
    return list(every.reshape(bins, len(names), 4))


def _merged(parts: list[_Part], least: float) -> list[_Part]:
    """The weakest part and its weaker neighbour become one until none is too weak."""
    parts = [*parts]
    while len(parts) > 1:
        weakest = min(range(len(parts)), key=lambda place: parts[place].groups)
        if parts[weakest].groups >= least:
            break
        beside = [place for place in (weakest - 1, weakest + 1) if 0 <= place < len(parts)]
        first = min(weakest, min(beside, key=lambda place: parts[place].groups))
        one, other = parts[first : first + 2]
        parts[first : first + 2] = [_Part(one.low, other.high, one.rows + other.rows)]
    return parts


def _described(part: _Part) -> ReliabilityBin:
    rows = part.rows
    weight, mean, share, samples = rows.sum(0).tolist()
    count = len(rows)
    drawn = torch.randint(count, (_DRAWS, count), generator=torch.Generator().manual_seed(_SEED))
    times = torch.zeros(_DRAWS, count, dtype=rows.dtype).scatter_add_(
        1, drawn, torch.ones_like(drawn, dtype=rows.dtype)
    )
    sums = times @ rows
    bias = ((sums[:, 1] - sums[:, 2]) / sums[:, 0])[sums[:, 0] > 0]
    below, above = bias.quantile(bias.new_tensor([0.5 - _INSIDE / 2, 0.5 + _INSIDE / 2])).tolist()
    return ReliabilityBin(
        part.low, part.high, round(samples), part.groups, mean / weight, share / weight, (below, above)
    )

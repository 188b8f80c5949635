"""Reliability bins against brute force, merging, and intervals of the right width."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from synthpipe.density.reliability import largest_bias, reliability_bins
from synthpipe.errors import ShapeError


def drawn(count: int, pictures: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """True probabilities, what happened, and whose the samples are."""
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(count, generator=generator, dtype=torch.float64)
    there = torch.rand(count, generator=generator, dtype=torch.float64) < chances
    return chances, there, torch.arange(count) % pictures


def test_bins_are_what_brute_force_counts_at_even_odds() -> None:
    chances, there, owners = drawn(300, 12)
    there &= torch.arange(300) % 3 == 0  # fewer degraded than clean ones
    p, y = chances.numpy(), there.numpy()
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    found = reliability_bins(chances, there, owners)
    assert len(found) == 5
    for place, one in enumerate(found):
        members = (p >= place / 5) & (p < (place + 1) / 5)
        assert (one.low, one.high, one.samples) == (place / 5, (place + 1) / 5, members.sum())
        assert one.probability == pytest.approx(np.average(p[members], weights=weight[members]))
        assert one.share == pytest.approx(np.average(y[members], weights=weight[members]))
        each = np.array([weight[members & (owners.numpy() == owner)].sum() for owner in range(12)])
        assert one.groups == pytest.approx(each.sum() ** 2 / (each**2).sum())
    assert largest_bias(found) == pytest.approx(max(abs(one.probability - one.share) for one in found))
    few = min(one.samples for one in found)
    assert largest_bias(found, few + 1) == max(abs(one.bias) for one in found if one.samples > few)


def test_bins_of_few_pictures_are_merged_and_nothing_is_lost() -> None:
    # 40 pictures at both ends, and two of them in the middle.
    chances = torch.tensor([0.05] * 40 + [0.95] * 40 + [0.5, 0.5], dtype=torch.float64)
    there = torch.tensor([0.0] * 40 + [1.0] * 40 + [1.0, 1.0])
    owners = torch.cat([torch.arange(40), torch.arange(40), torch.arange(2)])
    equal = reliability_bins(chances, there, owners)
    assert [one.samples for one in equal] == [40, 2, 40]  # without the empty ones
    assert largest_bias(equal) == pytest.approx(0.5)
    merged = reliability_bins(chances, there, owners, least_groups=20)
    assert all(one.groups >= 20 for one in merged)
    assert sum(one.samples for one in merged) == 82
    assert (merged[0].low, merged[-1].high) == (0, 1)
    assert all(one.high == other.low for one, other in pairwise(merged))
    only = reliability_bins(chances, there, owners, least_groups=1000)
    assert [(one.low, one.high, one.samples) for one in only] == [(0, 1, 82)]


def test_intervals_hold_chance_and_pictures_that_are_wrong_all_over() -> None:
    inside = 0
    for seed in range(40):
        for one in reliability_bins(*drawn(1500, 50, seed)):
            # Even odds move a true probability; at as many of both sides by little.
            inside += one.interval[0] - 0.02 < 0 < one.interval[1] + 0.02
    assert inside > 0.85 * 200
    # Copies that share their picture's fate say less: the interval is wider than that of as many single samples.
    generator = torch.Generator().manual_seed(1)
    fates = torch.rand(40, generator=generator) < 0.5
    owners = torch.arange(40).repeat_interleave(25)
    chances = torch.full((1000,), 0.5)
    (shared,) = reliability_bins(chances, fates[owners], owners, least_groups=1)
    (single,) = reliability_bins(chances, fates[owners], torch.arange(1000), least_groups=1)
    assert shared.interval[1] - shared.interval[0] > 3 * (single.interval[1] - single.interval[0])


def test_a_probability_that_is_too_sure_is_found() -> None:
    chances, there, owners = drawn(4000, 80)
    sure = torch.sigmoid(2.5 * torch.logit(chances, eps=1e-6))
    assert largest_bias(reliability_bins(chances, there, owners, least_groups=20)) < 0.06
    assert largest_bias(reliability_bins(sure, there, owners, least_groups=20)) > 0.1


def test_refusals() -> None:
    chances, there, owners = drawn(30, 3)
    with pytest.raises(ShapeError, match="of one length"):
        reliability_bins(chances[:5], there, owners)
    with pytest.raises(ShapeError, match="both sides, got 0 of 30"):
        reliability_bins(chances, torch.zeros(30), owners)
    for wrong in (torch.nan, 1.5, -0.1):
        with pytest.raises(ShapeError, match="NaN"):
            reliability_bins(torch.where(owners == 0, wrong, chances), there, owners)

"""Detection figures against scikit-learn and brute force, ties included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.density.detection import auroc, caught_share, pair_accuracy
from synthpipe.errors import ShapeError

# Few different values: ties are common.
VALUES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@given(VALUES, VALUES)
def test_auroc_is_that_of_scikit_learn(clean: list[float], degraded: list[float]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels = [0] * len(clean) + [1] * len(degraded)
    expected = metrics.roc_auc_score(labels, clean + degraded)
    assert auroc(torch.tensor(clean), torch.tensor(degraded)) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=30))
def test_pair_accuracy_counts_ties_half(pairs: list[tuple[int, int]]) -> None:
    expected = sum((b > a) + 0.5 * (b == a) for a, b in pairs) / len(pairs)
    clean, degraded = torch.tensor(pairs).T
    assert pair_accuracy(clean, degraded) == pytest.approx(expected, abs=1e-12)


@given(VALUES, VALUES, st.floats(0, 0.99))
def test_the_share_caught_is_the_best_threshold_allows(clean: list[float], degraded: list[float], share: float) -> None:
    def rejects(threshold: float) -> float:
        return sum(value > threshold for value in clean) / len(clean)

    allowed = [threshold for threshold in [*clean, *degraded, -9.0] if rejects(threshold) <= share]
    expected = max(sum(value > threshold for value in degraded) for threshold in allowed) / len(degraded)
    assert caught_share(torch.tensor(clean), torch.tensor(degraded), share) == pytest.approx(expected, abs=1e-12)


def test_large_samples_of_known_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, degraded = torch.randn(2, 20000, generator=generator)
    # P(b + 1 > a) of two standard normal numbers: Phi(1 / sqrt 2).
    assert auroc(clean, degraded + 1) == pytest.approx(0.76025, abs=0.01)
    assert pair_accuracy(clean, degraded + 1) == pytest.approx(0.76025, abs=0.015)
    # P(b + 1 > 1.64485), the 95 % point.
    assert caught_share(clean, degraded + 1, 0.05) == pytest.approx(0.25951, abs=0.02)
    assert auroc(degraded + 1, clean) == pytest.approx(1 - auroc(clean, degraded + 1), abs=1e-12)


def test_refusals() -> None:
    one, none = torch.zeros(1), torch.zeros(0)
    with pytest.raises(ShapeError, match=r"auroc: expected a flat tensor with at least one number, got shape \(0,\)"):
        auroc(one, none)
    with pytest.raises(ShapeError, match="1 of 2 numbers are NaN"):
        auroc(one, torch.tensor([0.0, torch.nan]))
    with pytest.raises(ShapeError, match="copy of each sample, got 1 and 2"):
        pair_accuracy(one, torch.zeros(2))
    with pytest.raises(ShapeError, match=r"false_rejects in \[0, 1\), got 1"):
        caught_share(one, one, 1)

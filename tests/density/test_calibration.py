"""The quadratic logistic regression, against scikit-learn and against a case with a closed form."""

from __future__ import annotations

import pytest
import torch

from synthpipe.density.calibration import Calibration, fit_calibration
from synthpipe.density.detection import auroc
from synthpipe.errors import ShapeError, TrainingError


def two_classes(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(n, 3, generator=generator)
    degraded = 0.8 * torch.randn(2 * n, 3, generator=generator) + torch.tensor([0.7, -0.2, 0.0])
    return clean, degraded


def test_the_fit_is_that_of_a_peer_library() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the peer")
    clean, degraded = two_classes()
    weight = torch.linspace(0.5, 2, len(degraded))
    ours = fit_calibration(clean, degraded, weight, ridge=1e-2)
    features = ours.expand(torch.cat([clean, degraded])).numpy()
    shares = torch.cat([torch.full((len(clean),), 0.5 / len(clean)), 0.5 * weight / weight.sum()]).numpy()
    labels = [0] * len(clean) + [1] * len(degraded)
    peer = linear_model.LogisticRegression(C=1 / 1e-2, tol=1e-8, max_iter=5000)
    peer.fit(features, labels, sample_weight=shares)
    torch.testing.assert_close(ours.weight, torch.tensor(peer.coef_[0]).float(), atol=2e-3, rtol=0)
    assert float(ours.bias) == pytest.approx(float(peer.intercept_[0]), abs=2e-3)


def test_gaussian_classes_of_equal_odds_give_their_exact_log_odds() -> None:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(20_000, 1, generator=generator)
    degraded = 1 + 0.7 * torch.randn(20_000, 1, generator=generator)
    model = fit_calibration(clean, degraded, ridge=1e-6)
    x = torch.linspace(-2, 2, 9)[:, None]
    log = torch.distributions.Normal
    exact = log(1.0, 0.7).log_prob(x) - log(0.0, 1.0).log_prob(x)
    torch.testing.assert_close(model(x), exact[:, 0], atol=0.15, rtol=0)


def test_far_from_everything_seen_the_log_odds_stay_bounded() -> None:
    model = fit_calibration(*two_classes())
    far = model(torch.tensor([[1e6, -1e6, 1e6]]))
    edge = model(model.mean + 4 * model.std * torch.tensor([[1.0, -1.0, 1.0]]))
    torch.testing.assert_close(far, edge)


def test_families_of_unequal_size_count_by_their_weights() -> None:
    clean, _ = two_classes()
    generator = torch.Generator().manual_seed(2)
    many = torch.randn(900, 3, generator=generator) + torch.tensor([3.0, 0.0, 0.0])
    few = torch.randn(30, 3, generator=generator) + torch.tensor([0.0, 3.0, 0.0])
    both = torch.cat([many, few])
    alike = torch.cat([torch.full((900,), 1 / 900), torch.full((30,), 1 / 30)])
    weighted, plain = fit_calibration(clean, both, alike), fit_calibration(clean, both)
    assert weighted(few).mean() > plain(few).mean() + 0.5
    assert auroc(weighted(clean), weighted(few)) > 0.9


def test_ignored_parts_do_not_count() -> None:
    clean, degraded = two_classes()
    model = fit_calibration(clean, degraded, ignored=(1,))
    without = fit_calibration(clean[:, [0, 2]], degraded[:, [0, 2]])
    torch.testing.assert_close(model(degraded), without(degraded[:, [0, 2]]), atol=1e-3, rtol=1e-3)
    changed = degraded + torch.tensor([0.0, 100.0, 0.0])
    assert torch.equal(model(degraded), model(changed))


def test_refusals_name_the_cause() -> None:
    clean, degraded = two_classes()
    with pytest.raises(TrainingError, match="2 clean"):
        fit_calibration(clean[:2], degraded)
    spoilt = degraded.clone()
    spoilt[5, 1] = float("nan")
    with pytest.raises(TrainingError, match="part 1 is not finite"):
        fit_calibration(clean, spoilt)
    with pytest.raises(ShapeError, match=r"expected parts \(N, 3\)"):
        Calibration(3)(torch.zeros(4, 2))

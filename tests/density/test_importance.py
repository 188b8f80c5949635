"""log Z of densities whose log Z is known, and refusals where it cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import multivariate_t
from torch import Tensor
from torch.testing import assert_close

from synthpipe.density.annealing import annealed_log_normalizer
from synthpipe.density.importance import (
    LogDensity,
    StudentT,
    at_level,
    from_log_weights,
    log_normalizer,
)
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import EffectiveSampleError, ShapeError


def spectrum(d: int, ratio: float) -> Tensor:
    values = ratio ** torch.arange(d, dtype=torch.float64)
    return values * d / values.sum()


def gaussian(variances: Tensor, log_z: float = 0.0) -> LogDensity:
    constant = log_z - 0.5 * float((2 * math.pi * variances).log().sum())
    return lambda y: constant - 0.5 * (y.square() / variances).sum(1)


def unit(d: int, dof: int = 8) -> StudentT:
    return StudentT(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), dof)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def two_peaks(y: Tensor) -> Tensor:
    """Normalised: independent coordinates, each near 1 or -1; 2^d modes."""
    log_peak = [-0.5 * ((y - centre) / 0.3).square() for centre in (1, -1)]
    return (torch.logaddexp(*log_peak) - math.log(2 * 0.3 * math.sqrt(2 * math.pi))).sum(1)


def draws_of_two_peaks(n: int, d: int) -> Tensor:
    g = generator()
    signs = 2.0 * torch.randint(0, 2, (n, d), generator=g) - 1
    return (signs + 0.3 * torch.randn(n, d, generator=g)).double()


@pytest.mark.parametrize(
    ("d", "ratio", "tolerance"),
    [(6, 1.0, 0.05), (8, 1.0, 0.05), (21, 1.0, 0.05), (43, 1.0, 0.05), (21, 0.8, 0.5), (43, 0.8, 0.5)],
)
def test_log_z_of_a_gaussian(d: int, ratio: float, tolerance: float) -> None:
    """Check 7 of the reference, whose own code is off by -1.8, -2.5, -7.0 and -14.5 in these dimensions."""
    variances = spectrum(d, ratio)
    data = variances.sqrt() * torch.randn(2000, d, dtype=torch.float64, generator=generator())
    found = log_normalizer(gaussian(variances, 3.25), StudentT.fit(data), generator())
    assert abs(found.log_z - 3.25) < tolerance
    assert abs(found.log_z - 3.25) < 4 * found.standard_error
    assert found.effective_draws > 10_000
    assert found.draws == 51_200


def test_the_references_proposal_is_refused_where_it_means_nothing() -> None:
    """N(0, I) for the spectrum 0.8^k in 43 dimensions: one effective draw (section 4 of the reference)."""
    with pytest.raises(EffectiveSampleError, match=r"rests on 1\.\d effective ones.*annealed"):
        log_normalizer(gaussian(spectrum(43, 0.8)), unit(43, dof=60), generator())


def test_a_density_that_cannot_be_integrated_is_refused() -> None:
    with pytest.raises(EffectiveSampleError, match="effective"):
        log_normalizer(lambda y: y.square().sum(1), unit(3), generator(), draws=20_000)
    with pytest.raises(EffectiveSampleError, match="nan effective"):
        log_normalizer(lambda y: y[:, 0] * float("nan"), unit(2), generator(), draws=100)
    with pytest.raises(EffectiveSampleError, match=r"of 1 after 20 stages"):
        annealed_log_normalizer(lambda y: y.square().sum(1), unit(3), generator(), max_stages=20)


def test_annealing_reaches_a_narrow_gaussian_from_a_round_start() -> None:
    found = annealed_log_normalizer(gaussian(spectrum(21, 0.8), -1.5), unit(21), generator())
    assert abs(found.log_z + 1.5) < min(0.2, 4 * found.standard_error)


def test_annealing_where_one_proposal_fails() -> None:
    """2^15 modes, log Z 0: a fitted proposal leaves a hundredth of the share that the path does."""
    proposal = StudentT.fit(draws_of_two_peaks(2000, 15))
    with pytest.raises(EffectiveSampleError):
        log_normalizer(two_peaks, proposal, generator())
    found = annealed_log_normalizer(two_peaks, proposal, generator(), particles=1024, pilot=512, min_effective=40)
    assert abs(found.log_z) < min(0.5, 4 * found.standard_error)


def test_an_estimators_log_z_is_that_of_the_grid() -> None:
    torch.manual_seed(1)
    model = VectorDDE(2, width=8, depth=2, spread=1.0)
    axis = torch.linspace(-12, 12, 241)
    y = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        exact = torch.logsumexp(model.log_density(y, torch.full((len(y),), 0.2)).double(), 0) + 2 * math.log(0.1)
    proposal = StudentT(torch.zeros(2), 1.5 * torch.eye(2))
    plain = log_normalizer(at_level(model, 0.2), proposal, generator())
    assert abs(plain.log_z - float(exact)) < 4 * plain.standard_error + 1e-3
    annealed = annealed_log_normalizer(at_level(model, 0.2), proposal, generator(), particles=512, pilot=128)
    assert abs(annealed.log_z - float(exact)) < 4 * annealed.standard_error + 1e-3


@pytest.mark.parametrize("dof", [1, 4, 30])
def test_student_t_against_scipy(dof: int) -> None:
    scale = torch.tensor([[1.0, 0.0], [-0.7, 0.4]], dtype=torch.float64)
    proposal = StudentT(torch.tensor([0.3, -1.0], dtype=torch.float64), scale, dof)
    peer = multivariate_t([0.3, -1.0], (scale @ scale.T).numpy(), df=dof)
    y = 3 * torch.randn(20, 2, dtype=torch.float64)
    assert_close(proposal.log_prob(y), torch.from_numpy(peer.logpdf(y.numpy())))
    # The draws follow it: an expectation under the law of bounded y, by draws and by importance from a wider law.
    draws = proposal.sample(50_000, generator())
    assert_close(draws.median(0).values, proposal.location, atol=0.04, rtol=0)
    wide = StudentT(proposal.location, 2 * scale, 1)
    other = wide.sample(50_000, generator())
    weight = (proposal.log_prob(other) - wide.log_prob(other)).exp()
    for statistic in (lambda v: (-v.square().sum(1)).exp(), lambda v: (v[:, 0] * v[:, 1]).tanh()):
        assert float(statistic(draws).mean()) == pytest.approx(float((weight * statistic(other)).mean()), abs=0.015)


def test_effective_draws_and_error_by_hand() -> None:
    weights = torch.tensor([1.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    found = from_log_weights(weights.log(), 1.0, "")
    assert found.log_z == pytest.approx(math.log(2))
    assert found.effective_draws == pytest.approx(64 / 22)
    # sd of the mean over the mean: sqrt(var / 4) / 2 with var = 22/4 - 4
    assert found.standard_error == pytest.approx(math.sqrt(1.5 / 4) / 2)
    even = from_log_weights(torch.zeros(7), 1.0, "")
    assert (even.effective_draws, even.standard_error) == (pytest.approx(7), pytest.approx(0, abs=1e-3))


def test_refusals_name_what_came() -> None:
    with pytest.raises(ShapeError, match=r"N > d, got \(3, 3\)"):
        StudentT.fit(torch.randn(3, 3))
    with pytest.raises(ShapeError, match="singular"):
        StudentT.fit(torch.ones(9, 2))
    with pytest.raises(ShapeError, match=r"\(3, 2\)"):
        StudentT(torch.zeros(3), torch.zeros(3, 2))

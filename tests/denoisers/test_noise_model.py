"""Likelihoods against torch.distributions and scipy, posteriors against integration on a grid and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from synthpipe.denoisers.noise_model import (
    GaussianNoise,
    ImpulseNoise,
    NoiseModel,
    PoissonNoise,
    SignalDependentNoise,
    noise_of,
)
from synthpipe.denoisers.pixel_covariance import (
    covariance_from_factor,
    factor_size,
    marginal_std,
    plus_diagonal,
    solve,
    subtract_diagonal,
)


def random_case(channels: int, seed: int, spread: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy image, mean and covariance of a prior, 2 images of 3x4 pixels, away from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, channels, 3, 4)
    mu = 0.3 + 0.4 * torch.rand(shape, generator=generator, dtype=torch.float64)
    y = mu + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    factor = torch.randn(2, factor_size(channels), 3, 4, generator=generator, dtype=torch.float64) * spread
    return y, mu, covariance_from_factor(factor, channels)


def last(x: Tensor) -> Tensor:
    """Channels last, as distributions take them."""
    return x.movedim(1, -1)


def matrices(covariance: Tensor) -> Tensor:
    return covariance.permute(0, 3, 4, 1, 2)


def diagonal(variance: Tensor) -> Tensor:
    return torch.diag_embed(last(variance))


SIGMA = torch.tensor([0.05, 0.2], dtype=torch.float64)
ADDITIVE = [
    (GaussianNoise(SIGMA), lambda mu: SIGMA[:, None, None, None].square().expand_as(mu)),
    (PoissonNoise(torch.tensor([30.0, 200.0])), lambda mu: mu / torch.tensor([30.0, 200.0])[:, None, None, None]),
    (
        SignalDependentNoise(torch.tensor([0.02, 0.1]), torch.tensor([0.001, 0.003])),
        lambda mu: (
            mu * torch.tensor([0.02, 0.1])[:, None, None, None] + torch.tensor([0.001, 0.003])[:, None, None, None]
        ),
    ),
]


def test_the_factor_is_upper_triangular_row_by_row() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 5.0], [0.0, 0.0, 6.0]])
    factor = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).view(1, 6, 1, 1)
    assert_close(covariance_from_factor(factor, 3)[0, :, :, 0, 0], a.T @ a)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("case", range(len(ADDITIVE)))
def test_additive_likelihood_is_that_of_the_normal_distribution(channels: int, case: int) -> None:
    noise, variance = ADDITIVE[case]
    y, mu, prior = random_case(channels, seed=case)
    expected = -MultivariateNormal(last(mu), matrices(prior) + diagonal(variance(mu).double())).log_prob(last(y))
    assert_close(noise.nll(y, mu, prior), expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("case", range(len(ADDITIVE)))
def test_grey_posterior_is_the_integral(case: int) -> None:
    noise, variance = ADDITIVE[case]
    y, mu, prior = random_case(1, seed=10 + case)
    got = noise.posterior_mean(y, mu, prior)
    for place in [(0, 0, 0), (1, 2, 3), (1, 1, 1)]:
        b, i, j = place
        m, s = float(mu[b, 0, i, j]), math.sqrt(float(prior[b, 0, 0, i, j]))
        v, seen = math.sqrt(float(variance(mu)[b, 0, i, j])), float(y[b, 0, i, j])
        grid = np.linspace(m - 12 * s, m + 12 * s, 20001)
        weight = stats.norm.pdf(grid, m, s) * stats.norm.pdf(seen, grid, v)
        expected = integrate.simpson(weight * grid, x=grid) / integrate.simpson(weight, x=grid)
        assert float(got[b, 0, i, j]) == pytest.approx(expected, abs=1e-6)


def test_colour_posterior_is_the_integral() -> None:
    """Three dimensions on a grid, with correlated channels."""
    _, mu, prior = random_case(3, seed=3, spread=0.15)
    y = mu + 0.1
    got = GaussianNoise(SIGMA).posterior_mean(y, mu, prior)[1, :, 0, 0]
    m, s = mu[1, :, 0, 0], prior[1, :, :, 0, 0]
    span = 7 * torch.diagonal(s).sqrt()
    axes = [torch.linspace(float(c - r), float(c + r), 121, dtype=torch.float64) for c, r in zip(m, span, strict=True)]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    weight = (MultivariateNormal(m, s).log_prob(x) + Normal(x, SIGMA[1]).log_prob(y[1, :, 0, 0]).sum(-1)).exp()
    expected = (weight[..., None] * x).sum((0, 1, 2)) / weight.sum()
    assert_close(got, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_limits(channels: int) -> None:
    y, mu, prior = random_case(channels, seed=1, spread=0.3)
    noise = GaussianNoise(SIGMA)
    assert_close(noise.posterior_mean(y, mu, 0 * prior), mu)
    assert_close(noise.posterior_mean(y, mu, 1e8 * plus_diagonal(0 * prior, torch.ones_like(mu))), y, atol=1e-6, rtol=0)
    certain = plus_diagonal(prior, torch.full_like(mu, 0.01))
    assert_close(GaussianNoise(0 * SIGMA).posterior_mean(y, mu, certain), y, atol=1e-9, rtol=0)
    assert_close(GaussianNoise(1e4 + SIGMA).posterior_mean(y, mu, prior), mu, atol=1e-6, rtol=0)


def test_a_diagonal_prior_is_three_grey_problems() -> None:
    y, mu, _ = random_case(3, seed=2)
    variance = torch.rand_like(mu) * 0.02
    prior = plus_diagonal(torch.zeros(2, 3, 3, 3, 4, dtype=torch.float64), variance)
    for noise, _ in ADDITIVE:
        planes = [slice(c, c + 1) for c in range(3)]
        grey = [(y[:, p], mu[:, p], variance[:, None, p]) for p in planes]
        assert_close(noise.posterior_mean(y, mu, prior), torch.cat([noise.posterior_mean(*g) for g in grey], 1))
        assert_close(noise.nll(y, mu, prior), sum(noise.nll(*g) for g in grey))


def test_impulse_moments_are_those_of_the_mixture() -> None:
    """The likelihood is a normal distribution with the mean and covariance of simulated pixels."""
    alpha, generator = 0.3, np.random.default_rng(0)
    mean = np.array([0.2, 0.5, 0.8])
    root = np.array([[0.1, 0.05, 0.0], [0.0, 0.1, -0.04], [0.0, 0.0, 0.05]])
    clean = mean + generator.standard_normal((400_000, 3)) @ root
    hit = generator.random((len(clean), 1)) < alpha
    seen = np.where(hit, generator.random(clean.shape), clean)
    mu = torch.from_numpy(mean).view(1, 3, 1, 1)
    prior = torch.from_numpy(root.T @ root).view(1, 3, 3, 1, 1)
    y = torch.tensor([0.4, 0.1, 0.9], dtype=torch.float64).view(1, 3, 1, 1)
    expected = -stats.multivariate_normal(seen.mean(0), np.cov(seen.T)).logpdf(y.flatten().numpy())
    got = ImpulseNoise(torch.tensor([alpha])).nll(y, mu, prior)
    assert float(got) == pytest.approx(expected, abs=0.02)


def test_impulse_posterior_is_that_of_the_mixture() -> None:
    alpha = torch.tensor([0.4, 0.05], dtype=torch.float64)
    y, mu, prior = random_case(3, seed=4, spread=0.2)
    density = MultivariateNormal(last(mu), matrices(prior) + 1e-12 * torch.eye(3)).log_prob(last(y)).exp()[:, None]
    a = alpha[:, None, None, None]
    expected = (a * mu + (1 - a) * density * y) / (a + (1 - a) * density)
    assert_close(ImpulseNoise(alpha).posterior_mean(y, mu, prior), expected, atol=1e-6, rtol=0)


def test_saturated_values_are_expected_beyond_the_border() -> None:
    """What a pixel at 1 tells is what all noisy values above 1 tell on average: by simulation."""
    generator = torch.Generator().manual_seed(0)
    mu, spread, sigma = 0.93, 0.05, 0.1
    clean = mu + spread * torch.randn(2_000_000, generator=generator, dtype=torch.float64)
    seen = clean + sigma * torch.randn(len(clean), generator=generator, dtype=torch.float64)
    for end, over in ((1.0, seen >= 1), (0.0, 1 - seen <= 0)):
        side = mu if end == 1 else 1 - mu
        expected = clean[over].mean() if end == 1 else 1 - clean[over].mean()
        noise = GaussianNoise(torch.tensor([sigma], dtype=torch.float64))
        y, m = torch.full((1, 1, 1, 1), end, dtype=torch.float64), torch.full((1, 1, 1, 1), side, dtype=torch.float64)
        prior = torch.full((1, 1, 1, 1, 1), spread**2, dtype=torch.float64)
        assert float(noise.posterior_mean(y, m, prior)) == pytest.approx(float(expected), abs=5e-4)
        share = float(over.double().mean())
        assert float(noise.nll(y, m, prior)) == pytest.approx(-math.log(share), abs=5e-3)


def test_only_ends_of_the_range_count_as_saturated() -> None:
    y = torch.tensor([0.0, 1.0, 0.5, 1.2]).view(1, 1, 1, 4)
    mu, prior = torch.full_like(y, 0.9), torch.full((1, 1, 1, 1, 4), 0.01)
    counts = PoissonNoise(torch.tensor([90.0])).posterior_mean(y, mu, prior)
    plain = GaussianNoise(torch.tensor([0.1]), saturates=False).posterior_mean(y, mu, prior)
    assert_close(counts, plain)  # 0.9 / 90 = 0.1^2: the same variance, and counts of zero are counts
    cut = GaussianNoise(torch.tensor([0.1])).posterior_mean(y, mu, prior)
    assert (cut == plain).flatten().tolist() == [False, False, True, True]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.floats(0.0, 0.2))
def test_what_is_left_after_the_noise_is_a_covariance(seed: int, channels: int, sigma: float) -> None:
    _, mu, covariance = random_case(channels, seed)
    variance = torch.full_like(mu, sigma**2)
    left = subtract_diagonal(covariance, variance)
    eigenvalues = torch.linalg.eigvalsh(matrices(left))
    assert float(eigenvalues.min()) >= -1e-9
    wanted = (torch.diagonal(covariance, dim1=1, dim2=2).movedim(-1, 1) - variance).clamp(min=0)
    assert_close(marginal_std(left).square(), wanted, atol=1e-9, rtol=0)
    back = subtract_diagonal(plus_diagonal(covariance, variance + 1e-4), variance)
    assert_close(back, plus_diagonal(covariance, torch.full_like(mu, 1e-4)), atol=1e-9, rtol=1e-7)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.floats(1 / 255, 0.3))
def test_single_precision_is_near_double(seed: int, channels: int, sigma: float) -> None:
    y, mu, prior = random_case(channels, seed)
    noise = GaussianNoise(torch.full((2,), sigma, dtype=torch.float64))
    single = noise.posterior_mean(y.float(), mu.float(), prior.float()).double()
    assert_close(single, noise.posterior_mean(y, mu, prior), atol=2e-4, rtol=0)


def test_a_parameter_for_each_channel_is_three_grey_problems() -> None:
    y, mu, _ = random_case(3, seed=5)
    prior = plus_diagonal(torch.zeros(2, 3, 3, 3, 4, dtype=torch.float64), torch.full_like(mu, 0.01))
    sigma = torch.rand(2, 3, dtype=torch.float64) * 0.2
    got = GaussianNoise(sigma).posterior_mean(y, mu, prior)
    line = SignalDependentNoise(0 * sigma, sigma.square()).posterior_mean(y, mu, prior)
    for c in range(3):
        p = slice(c, c + 1)
        grey = GaussianNoise(sigma[:, c]).posterior_mean(y[:, p], mu[:, p], prior[:, p, p])
        assert_close(got[:, p], grey)
        assert_close(line[:, p], grey, atol=1e-4, rtol=0)  # its variance is at least 0.001^2


def test_solve_against_a_library() -> None:
    y, _, prior = random_case(3, seed=7)
    covariance = plus_diagonal(prior, torch.full_like(y, 0.01))
    expected = torch.linalg.solve(matrices(covariance), last(y)[..., None])[..., 0]
    assert_close(last(solve(covariance, y)), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ({"sigma": 0.1}, GaussianNoise),
        ({"sigma": 0.1, "lam": 30.0}, PoissonNoise),
        ({"sigma": 0.1, "a": 0.1, "b": 0.01}, SignalDependentNoise),
        ({"sigma": 0.1, "alpha": 0.3}, ImpulseNoise),
    ],
)
def test_the_model_of_noise_follows_from_its_parameters(truth: dict[str, float], kind: type[NoiseModel]) -> None:
    noise = noise_of({name: torch.tensor([value]) for name, value in truth.items()})
    assert type(noise) is kind

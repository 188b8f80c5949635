"""Normalised likelihood against closed forms and exact densities."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.density.base import DensityEstimator
from synthpipe.density.normalizer import (
    Denoiser,
    GaussianLaw,
    Likelihood,
    log_normalizer_from_likelihood,
    negative_log_likelihood,
)
from synthpipe.density.point_sets import POINT_SETS
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import ShapeError

EIGHT = POINT_SETS["eight_gaussians"]


class ExactEight(DensityEstimator):
    """The exact density of the eight Gaussians, plus a constant to be found."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {}

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return EIGHT.log_smoothed_density(y, sigma) + 3.7


def spectrum(d: int, ratio: float) -> Tensor:
    values = ratio ** torch.arange(d, dtype=torch.float64)
    return values * d / values.sum()


def wiener(variances: Tensor) -> Denoiser:
    return lambda y, sigma: y * variances / (variances + sigma[:, None] ** 2)


def gaussian_nll(x: Tensor, variances: Tensor) -> Tensor:
    return 0.5 * (x.square() / variances + (2 * math.pi * variances).log()).sum(1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("d", "ratio"), [(1, 1.0), (6, 1.0), (21, 0.8), (43, 1.0)])
def test_gaussian_within_one_percent_of_its_closed_form(d: int, ratio: float) -> None:
    """With a reference law that is wrong (unit variances), so that the integral has all the work to do."""
    variances = 1.5 * spectrum(d, ratio)
    x = variances.sqrt() * torch.randn(400, d, dtype=torch.float64)
    law = GaussianLaw(torch.full((d,), 0.2), torch.ones(d))
    found = negative_log_likelihood(
        wiener(variances), x, law, (1e-3, 100.0), generator(), levels=24, draws=2, common_noise=False
    )
    assert found.mean[0] == pytest.approx(float(gaussian_nll(x, variances).mean()), rel=0.01)


def test_a_gaussian_of_the_laws_own_covariance_costs_no_variance() -> None:
    mixing = torch.randn(3, 3, dtype=torch.float64)
    x = torch.randn(300, 3, dtype=torch.float64) @ mixing + 2.0
    law = GaussianLaw.fit(x)
    covariance, mean = torch.cov(x.T), x.mean(0)

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        total = covariance + sigma[0] ** 2 * torch.eye(3, dtype=y.dtype)
        return mean + (y - mean) @ torch.linalg.solve(total, covariance)

    found = negative_log_likelihood(denoise, x, law, (1e-4, 30.0), generator(), levels=3, draws=2)
    peer = torch.distributions.MultivariateNormal(mean, covariance)
    assert_close(found.nats, -peer.log_prob(x), atol=1e-5, rtol=1e-5)
    assert float(found.standard_error.max()) < 1e-9


def test_exact_denoiser_of_a_mixture_gives_its_smoothed_likelihood_with_an_honest_error() -> None:
    """Truth: ``-E_e log p(x + 0.1 e)`` from the exact density, over noise that is nearly exhausted."""
    x = EIGHT.sample(200, generator()).double()
    found = negative_log_likelihood(
        ExactEight(), x, GaussianLaw.fit(x), (0.1, 40.0), generator(), levels=20, draws=6, common_noise=False
    )
    e = torch.randn(800, 1, 2, dtype=torch.float64)
    e = torch.cat([e, -e])
    truth = -EIGHT.log_smoothed_density((x + 0.1 * e).flatten(0, 1), 0.1).unflatten(0, (len(e), -1)).mean(0)
    value, error = found.mean
    assert error < 0.05
    assert abs(value - float(truth.mean())) < 4 * error + 0.01
    deviation = (found.nats - truth) / found.standard_error
    assert 0.7 < float(deviation.square().median().sqrt()) / 0.7271 < 1.4  # median |t| with 5 degrees of freedom


def test_common_noise_sharpens_differences() -> None:
    x = EIGHT.sample(100, generator()).double()
    truth = -EIGHT.log_smoothed_density(x, 0.1)
    spread = []
    for common in (True, False):
        found = negative_log_likelihood(
            ExactEight(), x, GaussianLaw.fit(x), (0.1, 40.0), generator(), draws=3, common_noise=common
        )
        spread.append(float((found.nats - truth).std()))
    assert spread[0] < 0.7 * spread[1]


def test_a_worse_denoiser_never_looks_better_on_average() -> None:
    variances = torch.ones(4, dtype=torch.float64)
    x = torch.randn(500, 4, dtype=torch.float64)
    law = GaussianLaw.fit(x)
    values = [
        negative_log_likelihood(wiener(v * variances), x, law, (0.01, 20.0), generator(), common_noise=False).mean[0]
        for v in (1.0, 0.5, 3.0)
    ]
    assert values[0] < values[1]
    assert values[0] < values[2]


def test_log_z_of_an_estimator_from_the_likelihood() -> None:
    x = EIGHT.sample(1000, generator()).double()
    model, law = ExactEight(), GaussianLaw.fit(x)
    likelihood = negative_log_likelihood(
        model, x, law, (0.2, 40.0), generator(), levels=20, draws=4, common_noise=False
    )
    log_z, error = log_normalizer_from_likelihood(model, x, likelihood, generator())
    assert error < 0.05
    assert abs(log_z - 3.7) < 4 * error + 0.01


def test_images_batches_and_callables_agree() -> None:
    """Any shape of sample, any batch size, an estimator or its denoiser: one result."""
    x = torch.randn(7, 1, 2, 3, dtype=torch.float64)

    class Image(DensityEstimator):
        config: ClassVar[dict[str, object]] = {}

        def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
            return -y.flatten(1).square().sum(1) / (2 * (2 + sigma.square()))

    law = GaussianLaw.fit(x, diagonal=True)
    whole = negative_log_likelihood(Image(), x, law, (0.1, 5.0), generator(), levels=4)
    parts = negative_log_likelihood(Image().denoise, x, law, (0.1, 5.0), generator(), levels=4, batch=3)
    flat = negative_log_likelihood(wiener(torch.full((6,), 2.0)), x.flatten(1), law, (0.1, 5.0), generator(), levels=4)
    assert_close(whole.nats, parts.nats)
    assert_close(whole.nats, flat.nats)
    assert whole.dim == 6


def test_bits_of_uniform_bytes() -> None:
    """A uniform law on [0, 1] has density 1: 0 nats, and 8 bits a dimension in steps of 1/256."""
    likelihood = Likelihood(torch.zeros(2, 3, dtype=torch.float64), 10, 0.1, 1.0)
    assert_close(likelihood.bits_per_dim(1 / 256), torch.full((3,), 8.0, dtype=torch.float64))
    shifted = Likelihood(torch.full((2, 1), 10 * math.log(2), dtype=torch.float64), 10, 0.1, 1.0)
    assert_close(shifted.bits_per_dim(), torch.ones(1, dtype=torch.float64))


def test_fitted_law_is_the_sample_covariance() -> None:
    x = torch.randn(50, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    law = GaussianLaw.fit(x)
    assert law.axes is not None
    assert_close(law.axes @ law.variances.diag() @ law.axes.T, torch.cov(x.T))
    assert_close(GaussianLaw.fit(x, diagonal=True).variances, torch.cov(x.T).diagonal())


def test_refusals_name_what_came() -> None:
    x = torch.randn(5, 2)
    law = GaussianLaw.fit(x)
    with pytest.raises(ShapeError, match=r"draws=1"):
        negative_log_likelihood(wiener(torch.ones(2)), x, law, (0.1, 1.0), generator(), draws=1)
    model = VectorDDE(2, width=4, depth=1, sigma_range=(0.1, 2.0))
    with pytest.raises(ShapeError, match=r"leaves the levels \[0.1, 2.0\]"):
        negative_log_likelihood(model, x, law, (0.1, 3.0), generator())
    with pytest.raises(ShapeError, match="5 of 5 results are not finite"):
        negative_log_likelihood(lambda y, s: y * float("nan"), x, law, (0.1, 1.0), generator())
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        GaussianLaw(torch.zeros(2), torch.ones(3))
    with pytest.raises(ShapeError, match="got -1"):
        GaussianLaw(torch.zeros(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ShapeError, match="got 1"):
        GaussianLaw.fit(x[:1])

"""The domain shift against scipy's normal density, sampled moments and textbook Gaussian conditioning."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.flows.prior import (
    ColourShift,
    DiagonalShift,
    DomainShift,
    FullShift,
    _log_prob_by_elimination,
    standard_normal_log_prob,
)
from synthpipe.small_systems import inverse_and_log_det
from tests.contracts import perturbed

B, C, F, H, W = 2, 3, 5, 2, 2  # batch, channels of the latent, channels of the features, positions


def rank_one() -> FullShift:
    shift = FullShift(C)
    with torch.no_grad():
        shift.factor.copy_(torch.outer(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, 0.0, 1.0])))
    return perturbed(shift, std=0)


SHIFTS: dict[str, Callable[[], DomainShift]] = {
    "full": lambda: perturbed(FullShift(C), std=0.4),
    "full_singular": rank_one,
    "full_zero": lambda: perturbed(FullShift(C, init=0.0), std=0),
    "diagonal": lambda: perturbed(DiagonalShift(C, init=0.7), std=0.4),
    "colour": lambda: perturbed(ColourShift(C, F, hidden=4, components=1), std=0.4),
}


@pytest.fixture
def cond() -> Tensor:
    return torch.randn(B, F, H, W, dtype=torch.float64)


@pytest.fixture
def z() -> Tensor:
    return torch.randn(B, C, H, W, dtype=torch.float64)


def law_at(
    apply: Callable[[Tensor], Tensor], place: tuple[int, int, int], extra: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance, at one image and position, of a map that is affine in the C channels of standard normal
    eps; ``extra`` channels, which only pick a component, stay 0."""
    i, row, column = place
    zero = torch.zeros(B, C + extra, H, W, dtype=torch.float64)
    constant = apply(zero)[i, :, row, column]
    gain = []
    for channel in range(C):
        eps = zero.clone()
        eps[i, channel, row, column] = 1
        gain.append(apply(eps)[i, :, row, column] - constant)
    matrix = torch.stack(gain, 1).detach().numpy()
    return constant.detach().numpy(), matrix @ matrix.T


@pytest.mark.parametrize("name", SHIFTS)
def test_noisy_density_is_that_of_clean_plus_u(name: str, z: Tensor, cond: Tensor) -> None:
    shift = SHIFTS[name]()
    expected = np.zeros(B)
    for i, row, column in product(range(B), range(H), range(W)):
        mean, covariance = law_at(lambda eps: shift.shift(eps, cond), (i, row, column))
        _, clean = law_at(lambda eps: shift.draw_clean(eps, cond), (i, row, column), shift.extra_draws)
        law = multivariate_normal(mean, clean + covariance)
        expected[i] += law.logpdf(z[i, :, row, column].numpy())
    assert_close(shift.log_prob_noisy(z, cond), torch.from_numpy(expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", SHIFTS)
def test_removal_is_the_gaussian_posterior(name: str, z: Tensor, cond: Tensor) -> None:
    """Conditioning the joint law of (z_x, z_y) on z_y, by the Schur complement."""
    shift = SHIFTS[name]()
    for i, row, column in product(range(B), range(H), range(W)):
        mean_u, cov_u = law_at(lambda eps: shift.shift(eps, cond), (i, row, column))
        _, clean = law_at(lambda eps: shift.draw_clean(eps, cond), (i, row, column), shift.extra_draws)
        joint = np.block([[clean, clean], [clean, clean + cov_u]])
        regression = joint[:C, C:] @ np.linalg.inv(joint[C:, C:])
        expected_mean = regression @ (z[i, :, row, column].numpy() - mean_u)
        expected_cov = joint[:C, :C] - regression @ joint[C:, :C]
        mean, covariance = law_at(lambda eps: shift.remove(z, eps, cond), (i, row, column), shift.extra_draws)
        np.testing.assert_allclose(mean, expected_mean, atol=1e-9)
        np.testing.assert_allclose(covariance, expected_cov, atol=1e-9)


@pytest.mark.parametrize("name", SHIFTS)
def test_u_is_white_over_positions_and_independent_of_neighbours(name: str, cond: Tensor) -> None:
    shift = SHIFTS[name]()
    eps = torch.zeros(B, C, H, W, dtype=torch.float64)
    base = shift.shift(eps, cond)
    eps[1, 0, 1, 0] = 1
    change = shift.shift(eps, cond) - base
    change[1, :, 1, 0] = 0
    assert torch.equal(change, torch.zeros_like(change))


def test_sampled_moments_are_mu_and_s() -> None:
    shift = SHIFTS["full"]()
    count = 200
    eps = torch.randn(1, C, count, count, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    u = shift.shift(eps, eps).detach()[0].flatten(1)  # (C, count^2)
    factor = shift.factor.detach()
    covariance = factor @ factor.T
    # five standard errors of a sample mean and of a sample covariance
    mean_error = 5 * covariance.diagonal().max().sqrt() / count
    assert_close(u.mean(1), shift.mean.detach().flatten(), atol=mean_error.item(), rtol=0)
    assert_close(u.cov(), covariance, atol=5 * 2**0.5 * covariance.diagonal().max().item() / count, rtol=0)


def test_removing_what_was_added_gives_back_the_clean_law() -> None:
    """z_x ~ N(0, I), plus u, minus the posterior draw: again N(0, I), over many positions."""
    shift, count = SHIFTS["full"](), 150
    generator = torch.Generator().manual_seed(4)
    clean, eps, eps_back = torch.randn(3, 1, C, count, count, dtype=torch.float64, generator=generator)
    noisy = clean + shift.shift(eps, clean)
    back = shift.remove(noisy, eps_back, clean).detach()[0].flatten(1)
    assert_close(back.mean(1), torch.zeros(C, dtype=torch.float64), atol=5 / count, rtol=0)
    assert_close(back.cov(), torch.eye(C, dtype=torch.float64), atol=5 * 2**0.5 / count, rtol=0)


@pytest.mark.parametrize("name", SHIFTS)
def test_each_sample_gets_the_density_of_its_domain(name: str, z: Tensor, cond: Tensor) -> None:
    shift = SHIFTS[name]()
    mixed = shift.log_prob(z, torch.tensor([0, 1]), cond)
    ones = torch.ones(B, C + shift.extra_draws, H, W, dtype=torch.float64)
    spread = shift.draw_clean(ones, cond)[0].detach().numpy()  # diagonal in every shift
    assert mixed[0].item() == pytest.approx(norm.logpdf(z[0].numpy(), scale=spread).sum(), abs=1e-9)
    assert_close(mixed[1], shift.log_prob_noisy(z, cond)[1])


@pytest.mark.parametrize("channels", [1, 6, 24])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_density_by_elimination_is_scipys_and_its_gradient_that_of_the_cholesky_way(
    channels: int, scale: float
) -> None:
    """What devices that must not be asked use in place of a factorisation."""
    generator = torch.Generator().manual_seed(channels)
    factor = scale * torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    centred = torch.randn(B, channels, 5, generator=generator, dtype=torch.float64)
    covariance = torch.eye(channels, dtype=torch.float64) + factor @ factor.T
    inverse, log_det = inverse_and_log_det(covariance)
    assert_close(inverse, torch.linalg.inv(covariance), rtol=1e-9, atol=1e-9)
    assert_close(log_det, torch.linalg.slogdet(covariance).logabsdet, rtol=1e-10, atol=1e-10)

    shift = FullShift(channels).double()
    with torch.no_grad():
        shift.factor.copy_(factor)
    z, wanted = centred[..., None].clone().requires_grad_(), []
    for by_elimination in (True, False):
        shift.zero_grad()
        z.grad = None
        if by_elimination:
            covariance = torch.eye(channels, dtype=torch.float64) + shift.factor @ shift.factor.T
            found = _log_prob_by_elimination((z - shift.mean).flatten(2), covariance)
        else:
            found = shift.log_prob_noisy(z, z)
        (found * torch.tensor([1.0, 3.0])).sum().backward()
        wanted.append([found.detach(), z.grad, shift.mean.grad, shift.factor.grad])
    for ours, theirs in zip(*wanted, strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    law = multivariate_normal(np.zeros(channels), covariance.detach().numpy())
    assert_close(wanted[0][0], torch.tensor(np.atleast_2d(law.logpdf(centred.mT.numpy())).reshape(B, 5).sum(1)))


def test_elimination_in_float32_is_as_exact_as_the_cholesky_way() -> None:
    factor = torch.randn(96, 96, generator=torch.Generator().manual_seed(0)) / 4
    centred = torch.randn(4, 96, 50, generator=torch.Generator().manual_seed(1))
    covariance = torch.eye(96) + factor @ factor.T
    exact = _log_prob_by_elimination(centred.double(), torch.eye(96).double() + factor.double() @ factor.double().T)
    assert_close(_log_prob_by_elimination(centred, covariance).double(), exact, rtol=2e-6, atol=0)


def test_standard_normal_log_prob(z: Tensor) -> None:
    expected = norm.logpdf(z.numpy()).reshape(B, -1).sum(1)
    assert_close(standard_normal_log_prob(z), torch.from_numpy(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("init", "trains"), [(0.0, False), (0.1, True), (1.0, True)])
def test_covariance_trains_from_every_start_but_the_published_one(init: float, trains: bool) -> None:
    shift = FullShift(C, init=init).double()
    z = 1.5 * torch.randn(4, C, 6, 6, dtype=torch.float64)
    optimiser = torch.optim.Adam(shift.parameters(), lr=1e-3)
    before = shift.factor.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        (-shift.log_prob_noisy(z, z)).sum().backward()
        assert shift.mean.grad is not None
        assert shift.mean.grad.abs().max() > 0
        assert bool(shift.factor.grad.abs().max() > 0) is trains
        optimiser.step()
    assert bool((shift.factor - before).abs().max() > 1e-3) is trains


@pytest.mark.parametrize("make", [DiagonalShift, lambda c, init: ColourShift(c, F, init=init)])
def test_diagonal_shifts_start_at_the_asked_strength(make, cond: Tensor) -> None:
    shift = make(C, init=0.6).double()
    _, covariance = law_at(lambda eps: shift.shift(eps, cond), (0, 0, 0))
    np.testing.assert_allclose(covariance, 0.36 * np.eye(C), atol=1e-7)
    assert shift.norm() == pytest.approx(0.6, rel=1e-5)
    with pytest.raises(ShapeError, match="must be above 0, got 0"):
        make(C, init=0.0)


def test_norm_of_a_full_shift_is_the_rms_standard_deviation() -> None:
    shift = rank_one()
    _, covariance = law_at(lambda eps: shift.shift(eps, eps), (0, 0, 0))
    assert shift.norm() == pytest.approx(float(np.sqrt(np.trace(covariance) / C)), rel=1e-6)


def test_noise_follows_the_colour_and_clean_spread_the_texture(cond: Tensor) -> None:
    shift = SHIFTS["colour"]()
    colour, texture = cond.clone(), cond.clone()
    colour[:, :3] *= 3
    texture[:, 3:] *= 3
    eps, eps_clean = torch.ones(B, 2 * C + 1, H, W, dtype=torch.float64).split([C, C + 1], dim=1)
    assert (shift.shift(eps, colour) - shift.shift(eps, cond)).abs().max() > 1e-3
    assert torch.equal(shift.shift(eps, texture), shift.shift(eps, cond))
    assert (shift.draw_clean(eps_clean, texture) - shift.draw_clean(eps_clean, cond)).abs().max() > 1e-3


class TestMixture:
    """Three components at one position, repeated over many: densities by scipy, laws by Monte Carlo."""

    COUNT = 200

    def shift(self) -> ColourShift:
        return perturbed(ColourShift(C, F, hidden=4, components=3), std=0.3)

    def cond(self, count: int = 1) -> Tensor:
        """The same features at ``count`` x ``count`` positions, far enough apart for the 3x3 net to see no border."""
        one = torch.randn(1, F, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        return one.expand(1, F, count, count)

    def components(self, shift: ColourShift, cond: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Weights (K,) and standard deviations (K, C), found from draws: eps of ones, the last channel scanned."""
        uniform = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
        normal = torch.distributions.Normal(0, 1).icdf(uniform).reshape(-1, 1, 1, 1)
        eps = torch.cat([torch.ones(1000, C, 1, 1, dtype=torch.float64), normal], dim=1)
        drawn = shift.draw_clean(eps, cond.expand(1000, -1, -1, -1))[:, :, 0, 0].detach().numpy()
        spreads, counts = np.unique(drawn.round(12), axis=0, return_counts=True)
        return counts / 1000, spreads

    def test_densities(self) -> None:
        shift, cond = self.shift(), self.cond()
        weights, spreads = self.components(shift, cond)
        assert len(weights) == 3
        _, s = law_at_one(lambda eps: shift.shift(eps, cond))
        mean = shift.mean.detach().numpy().ravel()
        z = np.array([0.3, -0.8, 1.1])
        clean = sum(
            w * multivariate_normal(np.zeros(C), np.diag(v**2)).pdf(z) for w, v in zip(weights, spreads, strict=True)
        )
        noisy = sum(
            w * multivariate_normal(mean, np.diag(v**2) + s).pdf(z) for w, v in zip(weights, spreads, strict=True)
        )
        tensor = torch.from_numpy(z).reshape(1, C, 1, 1)
        # the weights were found to one part in a thousand
        assert shift.log_prob_clean(tensor, cond).exp().item() == pytest.approx(clean, rel=0.02)
        assert shift.log_prob_noisy(tensor, cond).exp().item() == pytest.approx(noisy, rel=0.02)

    def test_removing_what_was_added_gives_back_the_clean_law(self) -> None:
        shift, count = self.shift(), self.COUNT
        cond = self.cond(count)
        generator = torch.Generator().manual_seed(6)

        def eps(channels: int) -> Tensor:
            return torch.randn(1, channels, count, count, dtype=torch.float64, generator=generator)

        clean = shift.draw_clean(eps(C + 1), cond).detach()
        noisy = clean + shift.shift(eps(C), cond).detach()
        back = shift.remove(noisy, eps(C + 1), cond).detach()
        for power in (1, 2, 4):  # the fourth moment tells a mixture from a normal law of equal variance
            a, b = (v[0].flatten(1).pow(power) for v in (clean, back))
            error = 5 * (a.var(1) + b.var(1)).sqrt() / count
            assert bool(((a.mean(1) - b.mean(1)).abs() < error).all())


def law_at_one(apply: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """:func:`law_at` for one image of one position."""
    zero = torch.zeros(1, C, 1, 1, dtype=torch.float64)
    constant = apply(zero).flatten()
    matrix = torch.stack(
        [apply(torch.eye(C, dtype=torch.float64)[i].reshape(1, C, 1, 1)).flatten() - constant for i in range(C)], 1
    )
    return constant.detach().numpy(), (matrix @ matrix.T).detach().numpy()


@pytest.mark.parametrize("name", SHIFTS)
def test_float32_under_autocast(name: str, z: Tensor, cond: Tensor) -> None:
    shift = SHIFTS[name]()
    exact = shift.log_prob_noisy(z, cond)
    shift.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = shift.log_prob_noisy(z.float(), cond.float())
        moved = shift.shift(z.float(), cond.float())
        eps = torch.zeros(B, C + shift.extra_draws, H, W)
        removed = shift.remove(moved, eps, cond.float())
    assert log_prob.dtype == moved.dtype == removed.dtype == torch.float32
    assert_close(log_prob.double(), exact, atol=0.2, rtol=0.01)

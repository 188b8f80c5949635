"""The contract of estimators: gradients against finite differences, the loss against its floor in closed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.density.base import DensityEstimator, dde_loss
from synthpipe.density.dde import DDE
from synthpipe.density.point_sets import POINT_SETS, PointSet
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import ShapeError
from tests.contracts import perturbed


class ExactGaussian(DensityEstimator):
    """``log N(0, variance + sigma^2)`` of every coordinate, plus a constant."""

    def __init__(self, variance: float, constant: float = 0.0) -> None:
        super().__init__()
        self.variance, self.constant = variance, constant

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return self.constant - y.flatten(1).square().sum(1) / (2 * (self.variance + sigma.square()))


class ExactPoints(DensityEstimator):
    def __init__(self, points: PointSet) -> None:
        super().__init__()
        self.points = points

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return self.points.log_smoothed_density(y, sigma)


def image(domains: tuple[str, ...] = ("clean",)) -> DDE:
    return DDE(channels=1, width=3, depth=2, outputs=2, domains=domains)


#: Every estimator, with the shape of one sample; a new one joins here.
MEMBERS: dict[str, tuple[Callable[[], DensityEstimator], tuple[int, ...]]] = {
    "image": (image, (1, 3, 4)),
    "vector_one_level": (lambda: VectorDDE(3, width=5, depth=2), (3,)),
    "vector_range": (lambda: VectorDDE(3, width=5, depth=2, sigma_range=(0.05, 0.4)), (3,)),
}


@pytest.fixture(params=MEMBERS)
def member(request: pytest.FixtureRequest) -> tuple[DensityEstimator, Tensor, Tensor]:
    make, shape = MEMBERS[request.param]
    model = perturbed(make())
    assert isinstance(model, DensityEstimator)
    return model, torch.randn(3, *shape, dtype=torch.float64), torch.tensor([0.1, 0.2, 0.2], dtype=torch.float64)


def test_score_is_the_gradient_by_finite_differences(member: tuple[DensityEstimator, Tensor, Tensor]) -> None:
    model, y, sigma = member
    score = model.score(y, sigma)
    step = 1e-5
    for index in range(y[0].numel()):
        shift = torch.zeros(y[0].numel(), dtype=y.dtype)
        shift[index] = step
        shift = shift.reshape(y[0].shape)
        slope = (model.log_density(y + shift, sigma) - model.log_density(y - shift, sigma)) / (2 * step)
        assert_close(score.flatten(1)[:, index], slope, atol=1e-6, rtol=1e-6)


def test_density_is_twice_differentiable(member: tuple[DensityEstimator, Tensor, Tensor]) -> None:
    model, y, sigma = member
    assert torch.autograd.gradgradcheck(lambda v: model.log_density(v, sigma), y.requires_grad_(True))


def test_loss_trains_every_parameter_by_its_true_gradient(member: tuple[DensityEstimator, Tensor, Tensor]) -> None:
    model, x, sigma = member
    e = torch.randn_like(x)
    dde_loss(model, x, sigma, e).sum().backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(dde_loss(model, x, sigma, e).sum().detach())
            with torch.no_grad():
                parameter -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        if parameter.grad is None:  # biases of the last layer: they do not change the gradient of S
            assert_close(slope, torch.zeros_like(slope), atol=1e-8, rtol=0)
        else:
            assert_close((parameter.grad * direction).sum(), slope, atol=1e-6, rtol=1e-5, msg=name)


def test_samples_do_not_see_each_other(member: tuple[DensityEstimator, Tensor, Tensor]) -> None:
    model, y, sigma = member
    together = model.log_density(y, sigma)
    alone = torch.cat([model.log_density(y[i : i + 1], sigma[i : i + 1]) for i in range(len(y))])
    assert together.shape == (len(y),)
    assert_close(together, alone, atol=1e-12, rtol=1e-12)


def test_score_leaves_no_graph_and_works_without_gradients(member: tuple[DensityEstimator, Tensor, Tensor]) -> None:
    model, y, sigma = member
    with torch.no_grad():
        score = model.score(y, sigma)
    assert not score.requires_grad
    assert not y.requires_grad
    assert_close(model.denoise(y, sigma), y + sigma.reshape(-1, *[1] * (y.ndim - 1)) ** 2 * score)


def test_domains_are_heads_of_their_own() -> None:
    model = perturbed(image(("clean", "degraded")))
    assert isinstance(model, DDE)
    y, sigma = torch.rand(2, 1, 5, 5, dtype=torch.float64), torch.full((2,), 0.1, dtype=torch.float64)
    clean, degraded = (model.log_density(y, sigma, torch.full((2,), i)) for i in range(2))
    assert_close(clean, model.log_density(y, sigma))
    assert_close(model.log_density(y, sigma, torch.tensor([1, 0])), torch.stack([degraded[0], clean[1]]))
    assert bool((clean != degraded).all())


def test_denoiser_of_a_gaussian_is_wieners() -> None:
    y, sigma = torch.randn(4, 2, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.1
    expected = y * (3 / (3 + sigma.square()))[:, None]
    assert_close(ExactGaussian(3.0).denoise(y, sigma), expected)


@pytest.mark.parametrize(("variance", "sigma", "dim"), [(1.0, 0.5, 1), (0.1, 0.3, 2), (2.0, 4.0, 5)])
def test_loss_of_the_exact_gaussian_is_its_floor(variance: float, sigma: float, dim: int) -> None:
    """``J* = MMSE / (d sigma^2) = variance / (variance + sigma^2)`` by textbook linear estimation."""
    x = variance**0.5 * torch.randn(100_000, dim, dtype=torch.float64)
    model, levels, e = ExactGaussian(variance), torch.full((len(x),), sigma, dtype=torch.float64), torch.randn_like(x)
    loss = dde_loss(model, x, levels, e).detach()
    error = float(loss.std()) / len(x) ** 0.5
    assert abs(float(loss.mean()) - variance / (variance + sigma**2)) < 4 * error
    wrong_scale = ExactGaussian(variance * 2 + sigma**2)  # half the slope
    assert dde_loss(wrong_scale, x, levels, e).mean() > loss.mean()


def test_loss_of_the_exact_eight_gaussians_is_the_published_floor() -> None:
    """0.779 at noise level 0.2: section 10 of the reference, by quadrature."""
    points = POINT_SETS["eight_gaussians"]
    x = points.sample(20_000, torch.Generator().manual_seed(0))
    e = torch.randn_like(x)
    loss = dde_loss(ExactPoints(points), x, torch.full((len(x),), 0.2), e).detach()
    control = loss - 0.779 * e.square().mean(1)  # the noise's own square, whose mean is 1, varies most
    assert abs(float(control.mean())) < 4 * float(control.std()) / len(x) ** 0.5 + 5e-4


def test_loss_of_a_constant_is_the_square_of_the_noise() -> None:
    x = torch.randn(5, 2)
    e = torch.randn(5, 2)
    flat = ExactGaussian(float("inf"))
    assert_close(dde_loss(flat, x, torch.full((5,), 0.3), e), e.square().mean(1))


def test_loss_names_wrong_shapes() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ShapeError, match=r"noise of shape \(4, 2\).*got \(4, 3\)"):
        dde_loss(ExactGaussian(1.0), x, torch.ones(4), torch.zeros(4, 3))
    with pytest.raises(ShapeError, match=r"sigma of shape \(4,\).*\(1,\)"):
        dde_loss(ExactGaussian(1.0), x, torch.ones(1), torch.zeros(4, 2))

"""Generators, the gradient of the divergence against closed forms, the scale of estimators, measures of samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.density import DDEGenerator, DensityEstimator
from synthpipe.density.dde import DDE
from synthpipe.density.dde_generator import kl_gradient, require_same_levels, slope
from synthpipe.density.point_sets import point_set
from synthpipe.density.pyramid import PyramidDDE
from synthpipe.density.sample_quality import histogram_divergence, mode_shares
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import ShapeError

SIZES = {
    "residual": {"shape": [3], "latent": 5},
    "dense": {"shape": [1, 6, 7], "latent": 4},
    "conv": {"shape": [3, 12, 9], "latent": 4},
}


class Gaussian(DensityEstimator):
    """The exact smoothed density of N(mean, variance I), its score multiplied by ``gain``."""

    def __init__(self, mean: float, variance: float, gain: float = 1.0, levels: tuple[float, float] = (0.1, 2)) -> None:
        super().__init__()
        self.config = {"sigma_range": list(levels)}
        self.mean = nn.Parameter(torch.tensor(mean))
        self.variance, self.gain = variance, gain

    def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
        return -self.gain * (y - self.mean).flatten(1).square().sum(1) / (2 * (self.variance + sigma**2))


def build(network: str, **changes: object) -> DDEGenerator:
    sizes = {"network": network, "width": 6, "depth": 2} | SIZES[network] | changes
    return DDEGenerator(**sizes)  # type: ignore[arg-type]


def perturbed(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("network", sorted(SIZES))
def test_samples_follow_the_generator_alone_and_survive_a_file(network: str, tmp_path: Path) -> None:
    model = perturbed(build(network))
    assert isinstance(model, DDEGenerator)
    drawn = model.sample(4, torch.Generator().manual_seed(7))
    assert drawn.shape == (4, *SIZES[network]["shape"])  # type: ignore[misc]
    assert not drawn.requires_grad
    torch.manual_seed(99)
    assert torch.equal(drawn, model.sample(4, torch.Generator().manual_seed(7)))
    assert not torch.equal(drawn, model.sample(4, torch.Generator().manual_seed(8)))
    loaded = checkpoints.load(checkpoints.save(tmp_path / "g.safetensors", model), "dde_generator")
    assert torch.equal(drawn, loaded.sample(4, torch.Generator().manual_seed(7)))  # type: ignore[operator]


@pytest.mark.parametrize("network", sorted(SIZES))
def test_a_sample_does_not_depend_on_its_neighbours(network: str) -> None:
    model = perturbed(build(network)).double()
    z = torch.randn(5, int(model.latent_size), dtype=torch.float64)  # type: ignore[arg-type]
    alone = torch.cat([model(row[None]) for row in z])
    torch.testing.assert_close(model(z), alone, atol=1e-12, rtol=0)


def test_an_untrained_residual_generator_draws_from_its_spread() -> None:
    x = build("residual", spread=3.0).sample(20_000, torch.Generator().manual_seed(0))
    # The network adds a bias of at most 1 / sqrt(width) = 0.41, and a tenth of a layer.
    assert x.std(0).tolist() == pytest.approx([3.0] * 3, rel=0.05)
    assert x.mean(0).tolist() == pytest.approx([0.0] * 3, abs=0.5)


@settings(max_examples=15)
@given(height=st.integers(1, 41), width=st.integers(1, 41), channels=st.sampled_from([1, 3]))
def test_conv_generators_make_any_size_within_range(height: int, width: int, channels: int) -> None:
    model = perturbed(build("conv", shape=[channels, height, width], width=2))
    assert isinstance(model, DDEGenerator)
    x = model.sample(2, torch.Generator().manual_seed(0))
    assert x.shape == (2, channels, height, width)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1


def test_every_number_of_the_latent_matters() -> None:
    model = perturbed(build("conv")).double()
    z = torch.randn(1, int(model.latent_size), dtype=torch.float64, requires_grad=True)  # type: ignore[arg-type]
    model(z).square().sum().backward()
    assert z.grad is not None
    assert bool((z.grad != 0).all())


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": [2], "network": "flow", "latent": 2},
        {"shape": [4], "network": "residual", "latent": 3},
        {"shape": [1, 8, 8], "network": "residual", "latent": 64},
        {"shape": [64], "network": "conv"},
        {"shape": [2, 8, 8], "network": "conv"},
        {"shape": [], "network": "dense"},
        {"shape": [1, 8, 0], "network": "dense"},
        {"shape": [1, 8, 8], "network": "dense", "depth": 0},
        {"shape": [2], "network": "residual", "latent": 2, "spread": 0.0},
    ],
)
def test_settings_that_make_no_generator_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ShapeError, match=r"DDEGenerator: expected a network of .*got network="):
        DDEGenerator(**arguments)  # type: ignore[arg-type]


def test_a_latent_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected a latent \(B, 5\), got \(2, 4\)"):
        build("residual")(torch.zeros(2, 4))


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_gradient_is_that_of_the_divergence_in_closed_form(sigma: float) -> None:
    # x = a z + b gives q_s = N(b, a^2 + s^2); p = N(1, 0.3).
    a, b = torch.tensor(0.7, requires_grad=True), torch.tensor(-0.4, requires_grad=True)
    p_variance, q_variance = 0.3 + sigma**2, a**2 + sigma**2
    ratio = q_variance / p_variance
    divergence = 0.5 * (ratio + (b - 1) ** 2 / p_variance - 1 - ratio.log())
    expected = torch.autograd.grad(divergence, (a, b))

    generator = torch.Generator().manual_seed(1)
    z, e = torch.randn(2, 400_000, 1, generator=generator)
    x = a * z + b
    levels = torch.full((len(x),), sigma)
    gradient = kl_gradient(Gaussian(1.0, 0.3), Gaussian(-0.4, 0.49), x + sigma * e, levels)
    found = torch.autograd.grad((gradient * x).sum() / len(x), (a, b))
    # 400,000 draws: a standard error of 0.5 % of these gradients.
    assert [float(g) for g in found] == pytest.approx([float(g) for g in expected], rel=0.03)


def test_gradient_moves_neither_estimator_and_vanishes_where_they_agree() -> None:
    data, samples = Gaussian(0.0, 1.0), Gaussian(0.0, 1.0)
    x = torch.randn(8, 2, requires_grad=True)
    gradient = kl_gradient(data, samples, x, torch.full((8,), 0.5))
    assert not gradient.requires_grad
    assert torch.equal(gradient, torch.zeros(8, 2))
    assert data.mean.grad is None
    assert samples.mean.grad is None


def test_estimators_of_different_levels_are_refused() -> None:
    ours, other = VectorDDE(sigma_range=(0.2, 0.2)), VectorDDE(sigma_range=(0.5, 0.5))
    require_same_levels(ours, ours, (0.2, 0.2))
    require_same_levels(DDE(sigma_range=(0.1, 1.0)), DDE(sigma_range=(0.1, 1.0)), (0.2, 0.5))
    with pytest.raises(ShapeError, match=r"levels \[0.2, 0.2\], that of the samples of \[0.5, 0.5\]"):
        require_same_levels(ours, other, (0.2, 0.2))
    with pytest.raises(ShapeError, match=r"trained at noise levels \[0.5, 0.5\].*are of \[0.2, 0.2\]"):
        require_same_levels(ours, ours, (0.5, 0.5))
    nameless = Gaussian(0.0, 1.0)
    nameless.config = {}
    with pytest.raises(ShapeError, match=r"Gaussian: expected 'sigma_range'"):
        require_same_levels(nameless, nameless, (0.2, 0.2))


@pytest.mark.parametrize("gain", [1.0, 0.16, 2.0])
def test_slope_finds_the_scale_of_an_estimator(gain: float) -> None:
    # 0.16 = (0.2 / 0.5)^2: trained with one level, scaled by another (the released checkpoint of the two spirals).
    generator = torch.Generator().manual_seed(3)
    x = 1.0 + math.sqrt(0.3) * torch.randn(50_000, 2, generator=generator)
    e = torch.randn(50_000, 2, generator=generator)
    sigma = 0.1 * 20 ** torch.rand(50_000, generator=generator)
    assert float(slope(Gaussian(1.0, 0.3, gain), x, sigma, e)) == pytest.approx(1 / gain, rel=0.03)


def test_histogram_divergence_counts_by_hand_and_sees_the_outside() -> None:
    q = torch.tensor([[-4.9, -4.9]] * 3 + [[4.9, 4.9]] * 1)
    p = torch.tensor([[-4.9, -4.9]] * 2 + [[7.0, 0.0]] * 2)
    shares = [np.full(2501, 0.5), np.full(2501, 0.5)]
    for share, counts in zip(shares, ({0: 3, 2499: 1}, {0: 2, 2500: 2}), strict=True):
        for cell, count in counts.items():
            share[cell] += count
        share /= share.sum()
    forward = float((shares[0] * np.log(shares[0] / shares[1])).sum())
    backward = float((shares[1] * np.log(shares[1] / shares[0])).sum())
    assert histogram_divergence(q, p) == pytest.approx((forward, backward), rel=1e-9)
    assert histogram_divergence(q, q) == (0.0, 0.0)


def test_histogram_divergence_of_shifted_gaussians_nears_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(400_000, 2, generator=generator)
    q = torch.randn(400_000, 2, generator=generator) + torch.tensor([0.5, 0.0])
    # |shift|^2 / 2 = 0.125 between the laws; cells of 0.2 lose 0.5 %, finite sets add 0.003.
    assert histogram_divergence(q, p) == pytest.approx((0.125, 0.125), abs=0.006)


def test_two_exact_sets_differ_as_finite_sets_must() -> None:
    law, generator = point_set("eight_gaussians"), torch.Generator().manual_seed(0)
    some, others = law.sample(100_000, generator), law.sample(100_000, generator)
    # About a thousand cells in use, a half of 1/N each for both sets.
    assert 0.002 < histogram_divergence(some, others)[0] < 0.015


def test_mode_shares_are_those_of_the_nearest_centres() -> None:
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    samples = torch.tensor([[1.0, 0], [9, 1], [8, 0], [2, 11]])
    assert mode_shares(samples, centres).tolist() == [0.25, 0.5, 0.25]


def test_measures_refuse_what_they_cannot_measure() -> None:
    with pytest.raises(ShapeError, match=r"points \(N, 2\), got \(4, 3\)"):
        histogram_divergence(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match=r"got \(4, 3\), \(2, 2\)"):
        mode_shares(torch.zeros(4, 3), torch.zeros(2, 2))


@pytest.mark.parametrize("size", [(8, 8), (11, 6)])
def test_the_pyramids_score_is_the_slope_of_its_density(size: tuple[int, int]) -> None:
    model = perturbed(PyramidDDE(3, width=4, levels=3)).double()
    assert isinstance(model, PyramidDDE)
    y, direction = torch.rand(2, 3, *size).double(), torch.randn(2, 3, *size).double()
    sigma = torch.tensor([0.1, 0.7], dtype=torch.float64)
    h = 1e-5
    forward, backward = (model.log_density(y + sign * h * direction, sigma) for sign in (1, -1))
    along = (model.score(y, sigma) * direction).sum((1, 2, 3))
    torch.testing.assert_close(along, (forward - backward) / (2 * h), rtol=1e-6, atol=1e-6)
    both, alone = model.log_density(y, sigma), model.log_density(y[1:], sigma[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-12, atol=0)


def test_a_silent_pyramid_is_white_gaussian_pixels() -> None:
    model = PyramidDDE(1, width=4, levels=2)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)  # type: ignore[arg-type]
    y, sigma = torch.rand(3, 1, 8, 8), torch.tensor([0.05, 0.2, 1.0])
    expected = -(y - 0.5) / (sigma**2 + 0.25**2)[:, None, None, None]
    torch.testing.assert_close(model.score(y, sigma), expected)


def test_the_pyramid_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"got channels=2, width=32, levels=3"):
        PyramidDDE(2)
    with pytest.raises(ShapeError, match=r"expected images \(B, 1, H, W\).*got \(2, 3, 8, 8\)"):
        PyramidDDE(1).log_density(torch.zeros(2, 3, 8, 8), torch.ones(2))
    with pytest.raises(ShapeError, match=r"expected no domain, got \(2,\)"):
        PyramidDDE(1).log_density(torch.zeros(2, 1, 8, 8), torch.ones(2), torch.zeros(2, dtype=torch.long))

"""Exact smoothed densities against averages of kernels over samples, published entropies and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from synthpipe.density.point_sets import POINT_SETS, TwoSpirals, point_set
from synthpipe.errors import OptionError, ShapeError

#: Entropies, nats, that the reference's section 5 prints for the authors' samplers.
PUBLISHED = [
    ("two_spirals", 0.05, 2.738),
    ("two_spirals", 0.2, 3.317),
    ("two_spirals", 0.5, 3.726),
    ("eight_gaussians", 0.05, 2.851),
    ("eight_gaussians", 0.1, 2.906),
    ("eight_gaussians", 0.2, 3.094),
    ("checkerboard", 0.05, 3.554),
    ("checkerboard", 0.2, 3.799),
]


def grid(side: int = 111) -> tuple[Tensor, float]:
    axis = torch.linspace(-5.5, 5.5, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.mark.parametrize(("name", "sigma", "entropy"), PUBLISHED)
def test_entropies_are_the_published_ones(name: str, sigma: float, entropy: float) -> None:
    # The checkerboard has the sharpest edges, the spirals the costliest density.
    y, cell = grid(221 if name == "checkerboard" else 71)
    log_p = POINT_SETS[name].log_smoothed_density(y, sigma)
    mass = float(log_p.exp().sum()) * cell
    assert mass == pytest.approx(1, abs=2e-3)
    assert float(-(log_p.exp() * log_p).sum()) * cell == pytest.approx(entropy, abs=2e-3)


@pytest.mark.parametrize(("name", "floor"), [("two_spirals", 0.715), ("eight_gaussians", 0.779)])
def test_floors_of_the_loss_are_the_published_ones(name: str, floor: float) -> None:
    """``J* = 1 - sigma^2 E||grad log p_sigma||^2 / 2`` at 0.2, section 10 of the reference."""
    y, cell = grid(61)
    log_p = POINT_SETS[name].log_smoothed_density(y.requires_grad_(True), 0.2)
    (score,) = torch.autograd.grad(log_p.sum(), y)
    power = (log_p.detach().exp() * score.square().sum(1)).sum() * cell
    assert 1 - 0.2**2 * float(power) / 2 == pytest.approx(floor, abs=5e-3)


@pytest.mark.parametrize("name", POINT_SETS)
def test_density_is_the_average_of_kernels_over_samples(name: str) -> None:
    """The definition: p_sigma(y) = E_x N(y; x, sigma^2), by brute force at points that samples and noise reach."""
    generator = torch.Generator().manual_seed(0)
    points, sigma = POINT_SETS[name], 0.3
    y = points.sample(25, generator).double() + 0.5 * torch.randn(25, 2, generator=generator).double()
    x = points.sample(50_000, generator).double()
    kernels = (-(y[:, None] - x).square().sum(2) / (2 * sigma**2)).exp() / (2 * math.pi * sigma**2)
    error = kernels.std(1) / len(x) ** 0.5
    deviation = (kernels.mean(1) - points.log_smoothed_density(y, sigma).exp()) / error
    assert float(deviation.abs().max()) < 4.5


@pytest.mark.parametrize("name", POINT_SETS)
def test_smoothing_twice_is_smoothing_once_by_the_root_of_squares(name: str) -> None:
    """Noise of 0.15 then 0.2 is noise of 0.25: convolves the exact density numerically and compares."""
    y, cell = grid(61)
    points = POINT_SETS[name]
    first = points.log_smoothed_density(y, 0.15).exp()
    places = torch.tensor([[0.0, 0.0], [1.1, -0.4], [-2.5, 1.3], [3.1, 3.1]], dtype=torch.float64)
    kernel = (-(places[:, None] - y).square().sum(2) / (2 * 0.2**2)).exp() / (2 * math.pi * 0.2**2)
    assert_close((kernel * first).sum(1) * cell, points.log_smoothed_density(places, 0.25).exp(), atol=2e-5, rtol=1e-2)


@pytest.mark.parametrize("name", POINT_SETS)
def test_gradients_are_right_everywhere_and_finite_far_outside(name: str) -> None:
    y = torch.tensor([[0.0, 0.0], [0.7, -1.9], [2.0, 2.0], [-3.1, 0.2]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda v: POINT_SETS[name].log_smoothed_density(v, 0.2), y.requires_grad_(True), atol=1e-4
    )
    far = torch.tensor([[300.0, -200.0], [0.0, 50.0]], dtype=torch.float64, requires_grad=True)
    value = POINT_SETS[name].log_smoothed_density(far, 0.05)
    (gradient,) = torch.autograd.grad(value.sum(), far)
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert bool(((gradient * far).sum(1) < 0).all()), "the density must rise toward the data"


@pytest.mark.parametrize("name", POINT_SETS)
def test_one_level_for_all_is_a_level_for_each(name: str) -> None:
    y = torch.randn(600, 2)
    levels = torch.rand(600) + 0.1
    each = POINT_SETS[name].log_smoothed_density(y, levels)
    assert each.dtype == torch.float32
    for i in (0, 511, 512, 599):
        one = POINT_SETS[name].log_smoothed_density(y[i : i + 1], float(levels[i]))
        assert_close(each[i : i + 1], one, atol=1e-5, rtol=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(sorted(POINT_SETS)))
def test_the_generator_alone_decides(seed: int, name: str) -> None:
    one, two = (POINT_SETS[name].sample(6, torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (6, 2)
    assert bool((one.abs() < 5.5).all())


def test_quadrature_along_the_spirals_has_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    y = TwoSpirals().sample(100, torch.Generator().manual_seed(0)).double()
    coarse = TwoSpirals().log_smoothed_density(y, 0.0)
    monkeypatch.setattr(TwoSpirals, "_NODES", 900)
    assert_close(coarse, TwoSpirals().log_smoothed_density(y, 0.0), atol=1e-6, rtol=0)


def test_refusals_name_what_came() -> None:
    with pytest.raises(OptionError, match=r"'moons'.*checkerboard"):
        point_set("moons")
    assert point_set("rings").name == "rings"
    y = torch.zeros(3, 2)
    with pytest.raises(ShapeError, match=r"points \(B, 2\), got \(3, 1\)"):
        point_set("rings").log_smoothed_density(y[:, :1], 0.1)
    with pytest.raises(ShapeError, match=r"\(3,\), got \(2,\)"):
        point_set("rings").log_smoothed_density(y, torch.ones(2))
    with pytest.raises(ShapeError, match="above 0"):
        point_set("checkerboard").log_smoothed_density(y, 0.0)
    assert point_set("rings").log_smoothed_density(y[:0], 0.1).shape == (0,)

"""Trained estimators of points against exact densities; the recipe in little."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.density.base import dde_loss
from synthpipe.density.grid import compare_on_grid
from synthpipe.density.point_sets import POINT_SETS, EightGaussians
from synthpipe.density.vector import VectorDDE
from synthpipe.errors import ShapeError
from tests.density.test_base import ExactPoints

RECIPE = Path(__file__).parents[2] / "recipes" / "dde_toy" / "run.py"


def fit(model: VectorDDE, x_std: float, steps: int, sigma_range: tuple[float, float]) -> None:
    """Centred Gaussian data of one standard deviation; levels spread evenly in log sigma."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    low, high = sigma_range
    for _ in range(steps):
        x = x_std * torch.randn(256, model.dim, generator=generator).repeat(2, 1)
        e = torch.randn(256, model.dim, generator=generator)
        sigma = (low * (high / low) ** torch.rand(256, generator=generator)).repeat(2)
        loss = dde_loss(model, x, sigma, torch.cat([e, -e])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def errors(model: VectorDDE, std: float, sigma: float) -> tuple[float, float]:
    """Greatest error in nats within 2 standard deviations after the best constant, and the slope on the exact."""
    width = (std**2 + sigma**2) ** 0.5
    axis = torch.linspace(-2 * width, 2 * width, 41)
    y = torch.cartesian_prod(*[axis] * model.dim).reshape(-1, model.dim)
    y = y[y.norm(dim=1) <= 2 * width]
    exact = -y.square().sum(1) / (2 * width**2)
    with torch.no_grad():
        estimate = model.log_density(y, torch.full((len(y),), sigma))
    error = estimate - exact
    error = error - (error.max() + error.min()) / 2
    slope = np.polyfit(exact.double().numpy(), estimate.double().numpy(), 1)[0]
    return float(error.abs().max()), float(slope)


@pytest.mark.parametrize("dim", [1, 2])
def test_gaussian_is_learnt_to_the_nat_and_slope(dim: int) -> None:
    """Check 1 of the reference; the tail of the network (spread 2) is not the data's (0.7)."""
    model = VectorDDE(dim, width=32, depth=2, spread=2.0, sigma_range=(0.3, 0.3))
    fit(model, 0.7, 500, (0.3, 0.3))
    error, slope = errors(model, 0.7, 0.3)
    assert error < 0.05
    assert slope == pytest.approx(1, abs=0.02)


def test_one_network_serves_a_range_of_levels() -> None:
    model = VectorDDE(1, width=32, depth=2, spread=2.0, sigma_range=(0.2, 1.5))
    fit(model, 0.7, 600, (0.2, 1.5))
    for sigma in (0.25, 0.6, 1.3):
        error, slope = errors(model, 0.7, sigma)
        assert error < 0.1
        assert slope == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def recipe_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe on eight Gaussians, whose exact density is cheap, with a tenth of its work."""
    out = tmp_path_factory.mktemp("toy")
    argv, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["run.py", "--sets", "eight_gaussians", "--steps", "700", "--batch", "512", "--out", str(out)]
    try:
        runpy.run_path(str(RECIPE), run_name="__main__")
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)
    return out


def test_recipe_in_little(recipe_run: Path) -> None:
    """Checks 2, 4 and 5 at a tenth of the work; a constant has J 1, the wrong sign more, a scale of half slope 0.5."""
    row = json.loads((recipe_run / "s0.2_seed0.json").read_text())["rows"]["eight_gaussians"]
    assert row["J"] < 0.80
    assert row["kl"] < 0.12
    assert 0.85 < row["slope"] < 1.15
    assert row["entropy"] == pytest.approx(3.094, abs=1e-3)
    assert row["clean_log_likelihood"] > -3.0


def test_denoised_points_move_toward_the_data(recipe_run: Path) -> None:
    model = checkpoints.load(recipe_run / "eight_gaussians_s0.2.safetensors")
    assert isinstance(model, VectorDDE)
    generator = torch.Generator().manual_seed(5)
    x = POINT_SETS["eight_gaussians"].sample(4000, generator)
    y = x + 0.2 * torch.randn(x.shape, generator=generator)
    denoised = model.denoise(y, torch.full((len(y),), 0.2))
    assert (denoised - x).square().mean() < 0.85 * (y - x).square().mean()
    exact = ExactPoints(POINT_SETS["eight_gaussians"]).denoise(y[:200], torch.full((200,), 0.2))
    assert (denoised[:200] - exact).square().mean() < 0.1 * (y[:200] - exact).square().mean()


def test_grid_comparison_of_known_estimates() -> None:
    """The exact density is at distance 0; twice it has slope 2 and the divergence that direct sums give."""
    points = EightGaussians()

    class Scaled(ExactPoints):
        def __init__(self, factor: float) -> None:
            super().__init__(points)
            self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

        def log_density(self, y: Tensor, sigma: Tensor, domain: Tensor | None = None) -> Tensor:
            return self.factor * super().log_density(y, sigma) + 5

    exact = compare_on_grid(Scaled(1.0), points, 0.2)
    assert exact.kl == pytest.approx(0, abs=1e-9)
    assert (exact.slope, exact.correlation) == (pytest.approx(1), pytest.approx(1))
    assert exact.score_error == pytest.approx(0, abs=1e-12)
    assert exact.log_z == pytest.approx(5, abs=1e-4)
    twice = compare_on_grid(Scaled(2.0), points, 0.2)
    assert twice.slope == pytest.approx(2)
    assert twice.score_error == pytest.approx(1)
    assert twice.cross_entropy == pytest.approx(twice.entropy + twice.kl)
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    log_p = points.log_smoothed_density(torch.cartesian_prod(axis, axis), 0.2)
    p, q = torch.softmax(log_p, 0), torch.softmax(2 * log_p, 0)
    assert twice.kl == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


@pytest.mark.parametrize("sigma_range", [(0.2, 0.2), (0.1, 0.5)])
def test_checkpoint_brings_back_the_same_density(tmp_path: Path, sigma_range: tuple[float, float]) -> None:
    model = VectorDDE(3, width=7, depth=2, spread=1.3, sigma_range=sigma_range)
    loaded = checkpoints.load(checkpoints.save(tmp_path / "v.safetensors", model))
    assert isinstance(loaded, VectorDDE)
    y, sigma = torch.randn(4, 3), torch.full((4,), 0.2)
    assert torch.equal(loaded.log_density(y, sigma), model.log_density(y, sigma))


def test_density_falls_without_end() -> None:
    """The quadratic tail: whatever the network does, exp S can be integrated."""
    torch.manual_seed(0)
    model = VectorDDE(2, width=96, depth=3)
    y = torch.randn(100, 2)
    y = y / y.norm(dim=1, keepdim=True)
    near, far, farther = (model.log_density(r * y, torch.full((100,), 0.2)) for r in (100, 1000, 2000))
    assert bool((near > far).all())
    assert bool((far - farther > 0.9 * (2000**2 - 1000**2) / 16.1).all())


def test_refusals_name_what_came() -> None:
    with pytest.raises(ShapeError, match="width=0"):
        VectorDDE(2, width=0)
    with pytest.raises(ShapeError, match=r"sigma_range=\[0.5, 0.1\]"):
        VectorDDE(2, sigma_range=(0.5, 0.1))
    model = VectorDDE(2, width=4, depth=1)
    with pytest.raises(ShapeError, match=r"\(B, 2\).*got \(5, 3\)"):
        model.log_density(torch.zeros(5, 3), torch.ones(5))
    with pytest.raises(ShapeError, match=r"got \(5, 2\), \(5,\) and \(5,\)"):
        model.log_density(torch.zeros(5, 2), torch.ones(5), torch.zeros(5, dtype=torch.long))

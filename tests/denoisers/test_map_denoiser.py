"""The MAP denoiser against proximal operators known in closed form; levels, sizes, the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from synthpipe.denoisers import MapDenoiser
from synthpipe.denoisers.map_denoiser import dae_map_loss, dde_map_objective, step_mismatch
from synthpipe.errors import ShapeError
from tests.denoiser_contract import check_denoiser

SMALL = {"channels": 1, "width": 4, "depth": 3}
MEAN = torch.tensor([0.4, 0.6], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.03, 0.018], [0.018, 0.02]], dtype=torch.float64)


class Gaussian:
    """Clean points N(MEAN, COVARIANCE): all that the theory speaks of, in closed form."""

    def __init__(self, s: float) -> None:
        self.clean, self.smoothed = COVARIANCE, COVARIANCE + s**2 * torch.eye(2, dtype=torch.float64)

    def score(self, y: Tensor) -> Tensor:
        """Gradient of the logarithm of the smoothed density."""
        return -torch.linalg.solve(self.smoothed, (y - MEAN).T).T

    def log_density(self, y: Tensor) -> Tensor:
        return 0.5 * (self.score(y) * (y - MEAN)).sum(1)

    def autoencoder(self, y: Tensor) -> Tensor:
        """E[x | y], by conditioning the joint Gaussian, not by the score."""
        return MEAN + (self.clean @ torch.linalg.solve(self.smoothed, (y - MEAN).T)).T

    def proximal(self, v: Tensor, sigma: float) -> Tensor:
        """(S^-1 + rho I)^-1 (S^-1 m + rho v) of the smoothed density."""
        precision, rho = torch.linalg.inv(self.smoothed), 1 / sigma**2
        matrix = precision + rho * torch.eye(2, dtype=torch.float64)
        return torch.linalg.solve(matrix, (precision @ MEAN)[:, None] + rho * v.T).T


def points(count: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Clean points with noise."""
    draws = torch.randn(count, 2, 2, generator=generator, dtype=torch.float64)
    return MEAN + draws[:, 0] @ torch.linalg.cholesky(COVARIANCE).T + sigma * draws[:, 1]


def trained(kind: str, sigma: float, s: float, generator: torch.Generator) -> nn.Linear:
    """An affine D, which can be exact here, trained on noisy points by one of the two losses."""
    prior, d = Gaussian(s), nn.Linear(2, 2).double()
    optimizer = torch.optim.Adam(d.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    levels = torch.full((256,), sigma, dtype=torch.float64), torch.full((256,), s, dtype=torch.float64)
    for _ in range(600):
        v = points(256, sigma, generator)
        out = d(v - MEAN) + MEAN  # centred: Adam is slow where offset and slope pull together
        if kind == "dae":
            inner = s * torch.randn(256, 2, generator=generator, dtype=torch.float64)
            loss = dae_map_loss(out, prior.autoencoder(out + inner), v, *levels)
        else:
            loss = dde_map_objective(out, prior.log_density(out), v, levels[0]) * sigma**2
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        schedule.step()
    return d


@pytest.mark.parametrize(("sigma", "s"), [(0.15, 0.15), (0.2, 0.1)])
def test_both_losses_find_the_proximal_operator_of_a_gaussian(sigma: float, s: float) -> None:
    """Acceptance checks 2 and 3: rho_train = 2 / sigma^2 in the paper's loss is rho = 1 / sigma^2."""
    generator = torch.Generator().manual_seed(3)
    v = points(500, sigma, generator)
    exact = Gaussian(s).proximal(v, sigma)
    half_as_strong = Gaussian(s).proximal(v, sigma / 2**0.5)
    found = {kind: (trained(kind, sigma, s, generator)(v - MEAN) + MEAN).detach() for kind in ("dae", "dde")}
    change = (exact - v).norm()
    for kind, d in found.items():
        assert float((d - exact).norm() / change) < 0.02, kind
        assert float((d - half_as_strong).norm() / change) > 0.1, kind
    assert float((found["dae"] - found["dde"]).norm() / change) < 0.02


def test_losses_are_the_formulas_by_hand() -> None:
    d, r, v = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 3.0]])
    sigma, s = torch.tensor([0.5]), torch.tensor([0.25])
    # sigma^2 (||d - r||^2 / s^2 + (2 / sigma^2) / 2 ||d - v||^2) / 2 values = 0.25 (4 / 0.0625 + 5 / 0.25) / 2
    assert_close(dae_map_loss(d, r, v, sigma, s), torch.tensor([10.5]))
    # 5 / (2 * 0.25) + 7
    assert_close(dde_map_objective(d, torch.tensor([-7.0]), v, sigma), torch.tensor([17.0]))


def test_no_gradient_flows_through_the_autoencoder() -> None:
    d, v = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3)
    level = torch.tensor([0.1, 0.2])
    dae_map_loss(d, 0.5 * d, v, level, level).sum().backward()
    assert_close(d.grad, 2 / 3 * ((d - 0.5 * d) + (d - v)).detach())


@given(st.floats(0.02, 0.5), st.floats(0.02, 0.5))
def test_the_mismatch_is_zero_for_the_step_that_it_is_of(sigma: float, s: float) -> None:
    """Implicit for the proximal operator, explicit for the least-squares denoiser; the other one is not."""
    generator = torch.Generator().manual_seed(0)
    v, level = points(20, sigma, generator), torch.full((20,), sigma, dtype=torch.float64)
    prior = Gaussian(s)
    proximal = prior.proximal(v, sigma)
    assert float(step_mismatch(proximal, v, prior.score(proximal), level).max()) < 1e-6
    assert float(step_mismatch(proximal, v, prior.score(v), level).max()) > 1e-3
    own = Gaussian(sigma)
    assert float(step_mismatch(own.autoencoder(v), v, own.score(v), level).max()) < 1e-6


def test_the_noise_of_a_drawn_score_does_not_count_as_mismatch() -> None:
    generator = torch.Generator().manual_seed(5)
    v, sigma = torch.zeros(1, 40_000), torch.tensor([0.5])
    d = torch.ones(1, 40_000)
    # The step is 1 everywhere, sigma^2 times the score 0.6 with noise of 2: a mismatch of 0.4.
    first, second = 4 * (0.6 + 2 * torch.randn(2, 1, 40_000, generator=generator))
    assert float(step_mismatch(d, v, first, sigma)) == pytest.approx((0.4**2 + 2**2) ** 0.5, rel=0.02)
    # Mean of 40000 products of two normal numbers of deviation 2: standard deviation 0.02; of the cross terms 0.006.
    assert float(step_mismatch(d, v, first, sigma, second)) ** 2 == pytest.approx(0.16, abs=0.08)


def perturbed(**config: object) -> MapDenoiser:
    model = MapDenoiser(**{**SMALL, **config})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def test_levels_outside_the_range() -> None:
    """Below, the step shrinks with sigma squared to nothing; above, it stays."""
    model, x = perturbed(sigma_range=(0.02, 0.2)), torch.rand(1, 1, 9, 7)

    def step(sigma: float) -> Tensor:
        return model(x, torch.tensor([sigma])) - x

    assert torch.equal(step(0), torch.zeros_like(x))
    assert_close(step(0.005), step(0.02) / 16)
    assert torch.equal(step(0.3), step(0.2))
    assert not torch.equal(step(0.1), step(0.2))


def test_without_a_level_map_the_level_is_ignored() -> None:
    model, x = perturbed(sigma_range=(0.04, 0.04), level_map=False), torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x, torch.tensor([0.01, 0.3])), model(x, torch.tensor([0.04, 0.04])))
    assert not torch.equal(model(x, torch.tensor([0.01, 0.3])), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "config", [{}, {"level_map": False, "sigma_range": (0.04, 0.04), "inner_bias": False, "slope": 0.0}]
)
def test_the_contract_of_denoisers_holds(tmp_path: Path, channels: int, config: dict) -> None:
    check_denoiser(MapDenoiser(**{**SMALL, "channels": channels, "smoothing": 0.7, **config}), tmp_path)


def test_the_reference_has_the_authors_parameters() -> None:
    for channels, count in ((3, 556_483), (1, 554_177)):  # counted in their released weights
        model = MapDenoiser.reference(channels)
        assert sum(parameter.numel() for parameter in model.parameters()) == count
        assert model.reach == 17  # a receptive field of 35 x 35
        biased = [name for name, _ in model.named_parameters() if name.endswith("bias")]
        assert biased == ["net.convs.0.bias", "net.out.bias"]
        assert MapDenoiser(**model.config).state_dict().keys() == model.state_dict().keys()
    small = MapDenoiser(1, 32, 8, (0.04, 0.04), level_map=False)
    assert sum(parameter.numel() for parameter in small.parameters()) == 56_097  # section 8


def test_the_reference_is_the_authors_formula() -> None:
    """``x + net(x)`` with ReLU and zero padding, by correlating in NumPy's order of indices."""
    model = perturbed(width=2, depth=2, level_map=False, sigma_range=(0.04, 0.04), inner_bias=False, slope=0.0)
    x = torch.rand(1, 1, 4, 5)
    state = model.state_dict()
    hidden = correlate(x[0], state["net.convs.0.weight"], state["net.convs.0.bias"]).clamp(min=0)
    expected = x[0] + correlate(hidden, state["net.out.weight"], state["net.out.bias"])
    assert_close(model(x, torch.tensor([0.04]))[0], expected)


def correlate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 with zeros around, one output at a time; ``(I, H, W)``, ``(O, I, 3, 3)`` -> ``(O, H, W)``."""
    height, width = x.shape[1:]
    padded = torch.zeros(len(x), height + 2, width + 2)
    padded[:, 1:-1, 1:-1] = x
    out = torch.empty(len(weight), height, width)
    for o in range(len(weight)):
        for row in range(height):
            for column in range(width):
                window = padded[:, row : row + 3, column : column + 3]
                out[o, row, column] = (window * weight[o]).sum() + bias[o]
    return out


@pytest.mark.parametrize(
    "config",
    [
        {"channels": 2},
        {"sigma_range": (0.2, 0.1)},
        {"sigma_range": (0.1, 0.1)},
        {"sigma_range": (0.1, 0.2), "level_map": False},
        {"smoothing": 0.0},
        {"depth": 1},
    ],
)
def test_settings_that_make_no_network_are_refused(config: dict) -> None:
    with pytest.raises(ShapeError, match="MapDenoiser: expected"):
        MapDenoiser(**config)

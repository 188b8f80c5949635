"""The image density: any size, additive, twice differentiable, one head for each domain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthpipe import checkpoints
from synthpipe.density import DDE, dde_loss
from synthpipe.errors import ShapeError


def tiny(channels: int = 1, domains: tuple[str, ...] = ("clean",), depth: int = 3) -> DDE:
    """A small network whose every parameter is off its start, in float64."""
    model = DDE(channels=channels, width=4, depth=depth, outputs=3, domains=domains, sigma_range=(0.01, 0.2)).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def images(channels: int, height: int, width: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_score_is_the_gradient_by_finite_differences(channels: int) -> None:
    model, x = tiny(channels), images(channels, 5, 6, 1)
    sigma = torch.tensor([0.05], dtype=torch.float64)
    score, h = model.score(x, sigma), 1e-6
    for place in range(0, x.numel(), 7):
        step = torch.zeros_like(x).flatten()
        step[place] = h
        step = step.reshape(x.shape)
        slope = (model.log_density(x + step, sigma) - model.log_density(x - step, sigma)) / (2 * h)
        assert float(slope.detach()) == pytest.approx(float(score.flatten()[place]), rel=1e-5, abs=1e-6)


def test_training_differentiates_the_gradient() -> None:
    model, x = tiny(), images(1, 6, 6)
    sigma = torch.tensor([0.03, 0.1], dtype=torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = model.convs[0].weight
    (gradient,) = torch.autograd.grad(dde_loss(model, x, sigma, noise).sum(), weight)
    h = 1e-6
    for place in (0, 7, 20):
        values = []
        for sign in (1, -1):
            weight.data.flatten()[place] += sign * h
            values.append(float(dde_loss(model, x, sigma, noise).sum().detach()))
            weight.data.flatten()[place] -= sign * h
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float(gradient.flatten()[place]), rel=1e-4, abs=1e-6)


@given(st.integers(12, 30), st.integers(12, 30))
def test_energies_away_from_the_border_are_those_of_the_whole(height: int, width: int) -> None:
    model, x = tiny(domains=("clean", "bad")), images(1, height, width)
    sigma = torch.tensor([0.02, 0.15], dtype=torch.float64)
    b = model.border
    whole = model.energies(x, sigma, pad=True)
    torch.testing.assert_close(model.energies(x, sigma), whole[:, :, b:-b, b:-b], atol=1e-12, rtol=0)
    torch.testing.assert_close(model.log_density(x, sigma), -whole[:, 0].sum((1, 2)))
    part = model.energies(x[..., 1:, :-1], sigma)
    torch.testing.assert_close(part, model.energies(x, sigma)[..., 1:, :-1], atol=1e-12, rtol=0)


def test_samples_and_domains_are_independent() -> None:
    model, x = tiny(domains=("clean", "bad")), images(1, 14, 14, 3)
    sigma = torch.tensor([0.02, 0.05, 0.15], dtype=torch.float64)
    together = model.log_density(x, sigma, torch.tensor([1, 0, 1]))
    alone = [model.log_density(x[i : i + 1], sigma[i : i + 1], torch.tensor([d])) for i, d in enumerate((1, 0, 1))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-10, rtol=0)
    assert not torch.allclose(model.log_density(x, sigma), together)


def test_a_grey_density_sees_the_luma_of_colour() -> None:
    model, x = tiny(1), images(3, 12, 12)
    sigma = torch.full((2,), 0.05, dtype=torch.float64)
    grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(model.log_density(x, sigma), model.log_density(grey, sigma))
    assert tiny(3).log_density(grey, sigma).shape == (2,)


def test_a_new_density_begins_below_the_loss_of_a_constant_on_noise_dominated_data() -> None:
    model = DDE(channels=3, width=8, depth=4, outputs=12)
    flat = torch.full((4, 3, 32, 32), 0.5)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(3))
    assert float(dde_loss(model, flat, torch.full((4,), 0.1), noise).mean().detach()) < 1


def test_weights_come_back_from_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = tiny(3, ("clean", "noise")).float()
    loaded = checkpoints.load(checkpoints.save(tmp_path / "dde.safetensors", model), kind="dde")
    x, sigma = images(3, 16, 16).float(), torch.full((2,), 0.05)
    assert torch.equal(loaded.log_density(x, sigma), model.log_density(x, sigma))


def test_refusals_name_the_shape() -> None:
    with pytest.raises(ShapeError, match="channels=2"):
        DDE(channels=2)
    with pytest.raises(ShapeError, match=r"got \(1, 2, 8, 8\)"):
        DDE().log_density(torch.zeros(1, 2, 8, 8), torch.ones(1))
    with pytest.raises(ShapeError, match="must exceed"):
        DDE(depth=4).energies(torch.zeros(1, 1, 8, 8), torch.ones(1))
    with pytest.raises(ShapeError, match="sigma of shape"):
        dde_loss(DDE(), torch.zeros(2, 1, 9, 9), torch.ones(1), torch.zeros(2, 1, 9, 9))

"""The plain network: what it computes, what it is told, and the contract of all denoisers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from synthpipe import checkpoints
from synthpipe.denoisers import PlainDenoiser
from synthpipe.denoisers.plain import ResidualNet
from synthpipe.denoisers.scaled_net import ScaledNet
from synthpipe.errors import ShapeError
from tests.contracts import perturbed
from tests.denoiser_contract import check_denoiser


@pytest.mark.parametrize(
    "config",
    [
        {"channels": 3, "width": 4, "depth": 2},
        {"channels": 1, "width": 5, "depth": 5},
        {"channels": 3, "width": 4, "depth": 3, "level": False},
        {"channels": 3, "width": 3, "depth": 1, "scales": 1},
        {"channels": 1, "width": 2, "depth": 1, "scales": 2},
        {"channels": 3, "width": 2, "depth": 2, "scales": 2, "level": False},
    ],
)
def test_the_contract(config: dict[str, Any], tmp_path: Path) -> None:
    check_denoiser(PlainDenoiser(**config), tmp_path)


def test_two_layers_are_two_correlations_and_a_leaky_relu() -> None:
    model = perturbed(PlainDenoiser(channels=1, width=2, depth=2))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    x = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    sigma = torch.tensor([0.07], dtype=torch.float64)
    planes = [x[0, 0].numpy() - 0.5, 10 * 0.07 * torch.ones(6, 7).double().numpy()]
    expected = x[0, 0].numpy() - weights["net.out.bias"][0]
    for unit in range(2):
        kernels = weights["net.convs.0.weight"][unit]
        hidden = sum(correlate2d(plane, kernel, "same") for plane, kernel in zip(planes, kernels, strict=True))
        hidden = hidden + weights["net.convs.0.bias"][unit]
        hidden[hidden < 0] *= 0.1
        expected = expected - correlate2d(hidden, weights["net.out.weight"][0, unit], "same")
    torch.testing.assert_close(model(x, sigma)[0, 0].detach(), torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_the_level_matters_exactly_where_it_is_looked_at() -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    low, high = torch.full((2,), 0.02), torch.full((2,), 0.2)
    told, untold = (perturbed(PlainDenoiser(width=4, depth=2, level=level)) for level in (True, False))
    assert not torch.allclose(told.denoise(x, low), told.denoise(x, high))
    assert torch.equal(untold.denoise(x, low), untold.denoise(x, high))


def test_a_new_network_changes_little() -> None:
    x = torch.rand(4, 3, 32, 32)
    assert (PlainDenoiser()(x, torch.full((4,), 0.1)) - x).square().mean().sqrt() < 0.15


def test_weights_from_before_there_was_a_choice_still_load(tmp_path: Path) -> None:
    model = PlainDenoiser(width=4, depth=2)
    del model.config["level"]
    loaded = checkpoints.load(checkpoints.save(tmp_path / "old.safetensors", model))
    assert loaded.config["level"] is True


@pytest.mark.parametrize("sizes", [(2, 4, 4), (3, 0, 4), (3, 4, 1)])
def test_settings_that_make_no_network_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ShapeError, match="channels 1 or 3, width of at least 1 and depth of at least 2, got"):
        ResidualNet(*sizes)


def test_at_half_the_size_a_network_is_correlations_of_every_second_pixel() -> None:
    """One scale whose blocks change nothing: head and out, by scipy, on the image less its mean over 33x33 pixels."""
    model = perturbed(PlainDenoiser(channels=1, width=2, depth=1, level=False, scales=1))
    net = model.net
    assert isinstance(net, ScaledNet)
    for name, parameter in net.named_parameters():
        if name.startswith("down"):
            torch.nn.init.zeros_(parameter)  # a block then gives what it was given
    weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
    x = torch.rand(1, 1, 40, 38, dtype=torch.float64)
    ones, window = np.ones((40, 38)), np.ones((33, 33))
    detail = x[0, 0].numpy() - correlate2d(x[0, 0].numpy(), window, "same") / correlate2d(ones, window, "same")
    planes = [detail[row::2, column::2] for row in range(2) for column in range(2)]
    hidden = [
        sum(correlate2d(plane, kernel, "same") for plane, kernel in zip(planes, kernels, strict=True))
        for kernels in weights["head.weight"]
    ]
    noise = model.denoise(x, torch.zeros(1)) - x
    for place, kernels in enumerate(weights["out.weight"]):
        expected = sum(correlate2d(plane, kernel, "same") for plane, kernel in zip(hidden, kernels, strict=True))
        found = -noise[0, 0, place // 2 :: 2, place % 2 :: 2]
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_at_several_sizes_contrast_and_level_scale_together_and_brightness_does_not_matter() -> None:
    model = perturbed(PlainDenoiser(channels=3, width=4, depth=1, scales=2))
    x, sigma = torch.rand(2, 3, 16, 20, dtype=torch.float64), torch.tensor([0.02, 0.1], dtype=torch.float64)
    noise = x - model.denoise(x, sigma)
    assert noise.abs().max() > 1e-3
    torch.testing.assert_close(0.3 * x - model.denoise(0.3 * x, 0.3 * sigma), 0.3 * noise, atol=1e-12, rtol=0)
    torch.testing.assert_close(x + 0.5 - model.denoise(x + 0.5, sigma), noise, atol=1e-12, rtol=0)


def test_a_new_network_at_several_sizes_changes_little() -> None:
    x = torch.rand(2, 3, 33, 30)
    assert (PlainDenoiser(width=16, depth=2, scales=3)(x, torch.full((2,), 0.1)) - x).square().mean().sqrt() < 0.15
    with pytest.raises(ShapeError, match=r"ScaledNet: expected .* got channels=3, width=0, depth=2, scales=2"):
        PlainDenoiser(width=0, depth=2, scales=2)

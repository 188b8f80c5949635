"""Estimated kernels against kernels that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.kernels.edge_model import NODES, ResponseModel
from synthpipe.kernels.edges import FREQUENCIES, WINDOW, edge_powers
from synthpipe.kernels.estimate import estimate_kernels
from synthpipe.kernels.response import amplitudes, radial_kernel
from tests.kernels.known_kernels import gaussians
from tests.kernels.pictures import blurred, sharp_pictures

WHERE = (0.2, 0.3, 0.4)


def sharpened(sigma: float, amount: float) -> Tensor:
    """A Gaussian, and an unsharp mask of the radius 1.2 behind it."""
    wide = gaussians(math.hypot(sigma, 1.2))[0]
    return (1 + amount) * gaussians(sigma)[0] - amount * wide


def powers(pictures: list[Tensor]) -> dict[str, Tensor]:
    return {f"{number:03}.png": edge_powers(picture) for number, picture in enumerate(pictures)}


@pytest.fixture(scope="module")
def clean() -> dict[str, Tensor]:
    return powers(sharp_pictures(24, seed=1))


@pytest.mark.parametrize(
    "kernel",
    [gaussians(0.4)[0], gaussians(0.7)[0], gaussians(1.0)[0], sharpened(0.6, 0.6)],
    ids=["gaussian 0.4", "gaussian 0.7", "gaussian 1.0", "sharpened"],
)
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_other_pictures_tell_the_kernel(kernel: Tensor, sigma: float, clean: dict[str, Tensor]) -> None:
    found = estimate_kernels(clean, powers(blurred(sharp_pictures(16, seed=2), kernel, sigma, seed=3)))
    expected, mean = amplitudes(kernel[None], WHERE)[0], amplitudes(found.bank.mean()[None], WHERE)[0]
    assert_close(mean, expected, atol=0.08, rtol=0)
    assert 1 <= len(found.names) == len(found.bank.kernels) <= 16


def test_images_of_two_blurs_get_kernels_of_their_own(clean: dict[str, Tensor]) -> None:
    pictures = sharp_pictures(24, seed=5)
    sharp, soft = pictures[:12], blurred(pictures[12:], gaussians(1.0)[0], 0, seed=1)
    found = estimate_kernels(clean, powers([*sharp, *soft]))
    own = dict(zip(found.names, amplitudes(found.bank.kernels, [0.3])[:, 0].tolist(), strict=True))
    first, second = ([value for name, value in own.items() if (name < "012.png") == half] for half in (True, False))
    assert min(len(first), len(second)) >= 5  # of twelve, those with edges enough
    assert sum(first) / len(first) > 0.75  # truth 1
    assert sum(second) / len(second) < 0.35  # truth 0.17
    assert float(found.believed.mean()) > 0.6


def test_images_of_one_blur_are_drawn_to_the_pile(clean: dict[str, Tensor]) -> None:
    found = estimate_kernels(clean, powers(blurred(sharp_pictures(16, seed=2), gaussians(0.7)[0], 1, seed=3)))
    spread = amplitudes(found.bank.kernels, WHERE).std(0)
    assert float(spread.max()) < 0.06


def test_the_same_again_and_as_many_as_are_asked_for(clean: dict[str, Tensor]) -> None:
    degraded = powers(sharp_pictures(16, seed=2))
    first, again = (estimate_kernels(clean, degraded, side=9, most=5, seed=4) for _ in range(2))
    assert torch.equal(first.bank.kernels, again.bank.kernels)
    assert first.names == again.names
    assert first.bank.config == {"number": 5, "side": 9}


def test_too_few_edges_are_refused(clean: dict[str, Tensor]) -> None:
    flat = {"flat.png": edge_powers(torch.full((3, 64, 64), 0.5))}
    assert flat["flat.png"].shape == (0, len(FREQUENCIES))
    with pytest.raises(ShapeError, match="degraded: expected at least 100 isolated edges, got 0 in 1 image;"):
        estimate_kernels(clean, flat)
    with pytest.raises(ShapeError, match=r"sides from 36, got \(3, 20, 64\)"):
        edge_powers(torch.zeros(3, 20, 64))


def test_a_step_has_the_spectrum_of_a_windowed_step() -> None:
    """Against numerical integration of a step of any height and direction under the Gaussian window."""
    side, height = 64, 0.4
    place = torch.arange(8 * side) / 8 + 1 / 16 - side / 2
    slope = 0.3
    large = torch.where((place + slope * place[:, None]) > 0.2, 0.5 + height / 2, 0.5 - height / 2)
    image = torch.nn.functional.avg_pool2d(large[None, None], 8)[0].expand(3, -1, -1)
    found = edge_powers(image).median(0).values.double().sqrt()
    x = torch.linspace(0, 12, 4001, dtype=torch.float64)
    window = (-0.5 * (x / WINDOW) ** 2).exp()
    frequency = torch.tensor(FREQUENCIES, dtype=torch.float64)
    expected = torch.trapezoid((2 * math.pi * frequency[:, None] * x).sin() * window, x)
    expected = expected / expected[1:3].square().mean().sqrt()
    assert_close(found[:6], expected[:6], atol=0.03, rtol=0)  # the pixels' own blur shows at higher frequencies


def test_the_model_gives_back_a_gaussian_that_it_saw_through_the_window() -> None:
    frequency = torch.tensor(FREQUENCIES, dtype=torch.float64)
    x = torch.arange(-9, 10, dtype=torch.float64)
    window = (2 * math.pi * frequency[:, None] * x).sin() * (-0.5 * (x / WINDOW) ** 2).exp()
    wave = torch.linspace(1e-4, 0.5, 4000, dtype=torch.float64)
    steps = (2 * math.pi * wave * x[:, None]).sin() / wave
    for sigma in (0.5, 0.8, 1.1):
        response = (-2 * (math.pi * sigma * wave).square()).exp()
        blurry, sharp = (window @ torch.trapezoid(steps * kept, wave) for kept in (response, torch.ones_like(wave)))
        found = ResponseModel().solve(0.7 * blurry / sharp)  # whatever the scale
        nodes = torch.linspace(0, 0.5, NODES, dtype=torch.float64)
        assert_close(found, (-2 * (math.pi * sigma * nodes).square()).exp(), atol=0.03, rtol=0)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.2])
def test_a_round_kernel_has_the_response_asked_for(sigma: float) -> None:
    nodes = torch.linspace(0, 0.5, NODES, dtype=torch.float64)
    kernel = radial_kernel((-2 * (math.pi * sigma * nodes).square()).exp(), 13)
    frequencies = (0.1, 0.2, 0.3, 0.4, 0.47)
    expected = torch.tensor([math.exp(-2 * (math.pi * sigma * f) ** 2) for f in frequencies], dtype=torch.float64)
    assert_close(amplitudes(kernel[None], frequencies)[0], expected, atol=0.02, rtol=0)
    assert float(kernel.sum()) == pytest.approx(1)
    assert_close(kernel, kernel.flip(0, 1))
    assert_close(kernel, kernel.T)

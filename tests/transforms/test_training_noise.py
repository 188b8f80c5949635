"""Training noise: its moments and laws against closed forms, one generator for each image, never clipped."""

from __future__ import annotations

from math import comb, exp, factorial, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from synthpipe.config.noise import TrainingNoise
from synthpipe.seeds import generator_for
from synthpipe.transforms.training_noise import add_noise

GAUSSIAN = {"type": "gaussian", "sigma": [0.1, 0.1]}
KINDS = [
    GAUSSIAN,
    {"type": "gaussian", "sigma": [0.02, 0.2], "binomial": 2},
    {"type": "poisson", "lam": [20, 40]},
    {"type": "signal_dependent", "a": [0.01, 0.02], "b": [0.001, 0.002]},
    {"type": "impulse", "alpha": [0.1, 0.4]},
]


def noise(options: dict[str, Any]) -> TrainingNoise:
    return TypeAdapter(TrainingNoise).validate_python(options)


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [generator_for(first + place, "test") for place in range(count)]


def flat(level: float, count: int = 1, side: int = 256) -> Tensor:
    return torch.full((count, 3, side, side), level)


@pytest.mark.parametrize("options", KINDS)
def test_an_image_depends_on_its_own_generator_alone_and_keeps_its_type(options: dict[str, Any]) -> None:
    x = torch.rand(3, 3, 9, 7)
    kept = x.clone()
    together, truth = add_noise(x, noise(options), generators(3))
    alone, own = add_noise(x[1:2], noise(options), generators(1, first=1))
    assert torch.equal(together[1:2], alone)
    assert {name: value[1:2].tolist() for name, value in truth.items()} == {n: v.tolist() for n, v in own.items()}
    assert torch.equal(x, kept)
    assert all(value.shape == (3,) for value in truth.values())
    assert "sigma" in truth
    double, _ = add_noise(x.double(), noise(options), generators(3))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), together, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", KINDS)
def test_sigma_is_the_standard_deviation_of_what_was_added(options: dict[str, Any]) -> None:
    x = torch.rand(4, 3, 1, 1).expand(-1, -1, 128, 128).contiguous()
    noisy, truth = add_noise(x, noise(options), generators(4))
    # 49152 values; neighbours are correlated in one kind, which leaves about 1/20 of them.
    assert ((noisy - x).flatten(1).square().mean(1).sqrt() / truth["sigma"] - 1).abs().max() < 0.05


@settings(max_examples=30)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_levels_fill_their_range_uniformly(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    _, truth = add_noise(torch.rand(200, 1, 1, 1), noise({"type": "gaussian", "sigma": [low, high]}), generators(200))
    sigma = truth["sigma"].numpy()
    assert low - 1e-6 <= sigma.min() <= sigma.max() <= high + 1e-6
    # Mean of 200 uniform numbers: standard deviation 0.29 / sqrt(200) of the range; 5 of these.
    assert abs(sigma.mean() - (low + high) / 2) <= 5 * 0.0205 * (high - low) + 1e-6


def test_gaussian_noise_is_normal_white_and_leaves_the_range_at_black_and_white() -> None:
    for level in (0.0, 1.0):
        noisy, truth = add_noise(flat(level), noise(GAUSSIAN), generators(1))
        residual = ((noisy - level) / 0.1).numpy()
        assert truth["sigma"].tolist() == pytest.approx([0.1])
        count = residual.size  # 196608
        assert abs(residual.mean()) < 5 / sqrt(count)
        assert abs((residual**2).mean() - 1) < 5 * sqrt(2 / count)
        assert abs((residual**4).mean() - 3) < 5 * sqrt(96 / count)
        for one, other in ((residual[..., 1:], residual[..., :-1]), (residual[:, 1:], residual[:, :-1])):
            assert abs((one * other).mean()) < 5 / sqrt(one.size)
    assert (noisy > 1).float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_filtered_noise_has_the_correlation_of_the_binomial_kernel_up_to_the_border(times: int) -> None:
    options = noise({"type": "gaussian", "sigma": [0.1, 0.1], "binomial": times})
    noisy, _ = add_noise(flat(0.5, count=8), options, generators(8))
    residual = (noisy - 0.5).double() / 0.1
    # The line is binomial with 2 n steps, so its autocorrelation is binomial with 4 n: C(4 n, 2 n + k) / C(4 n, 2 n).
    line = [comb(4 * times, 2 * times + lag) / comb(4 * times, 2 * times) for lag in range(2 * times + 2)]
    assert line[-1] == 0
    for down in range(2 * times + 2):
        for right in range(2 * times + 2):
            ours = (residual[..., down:, right:] * residual[..., : 256 - down, : 256 - right]).mean()
            assert float(ours) == pytest.approx(line[down] * line[right], abs=0.02)
    edge = torch.cat([residual[..., 0, :].flatten(), residual[..., :, -1].flatten()])
    assert float(edge.square().mean()) == pytest.approx(1, abs=0.15)
    channels = np.corrcoef(residual.transpose(0, 1).flatten(1).numpy())
    assert np.abs(channels - np.eye(3)).max() < 0.02


def test_poisson_counts_follow_their_law() -> None:
    lam, level = 10.0, 0.3
    noisy, truth = add_noise(flat(level), noise({"type": "poisson", "lam": [lam, lam]}), generators(1))
    counts = noisy * lam
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    assert truth["lam"].tolist() == [lam]
    for k in range(10):
        law = exp(-3) * 3**k / factorial(k)
        assert float((counts.round() == k).float().mean()) == pytest.approx(law, abs=5 * sqrt(law / counts.numel()))
    black, _ = add_noise(flat(0.0, side=8), noise({"type": "poisson", "lam": [lam, lam]}), generators(1))
    assert torch.equal(black, flat(0.0, side=8))
    white, _ = add_noise(flat(1.0), noise({"type": "poisson", "lam": [lam, lam]}), generators(1))
    assert white.max() > 1.5  # eight standard deviations of a Gaussian would be in reach here; not clipped
    assert float(white.var()) == pytest.approx(1 / lam, rel=0.03)


def test_signal_dependent_variance_is_a_line_in_the_brightness() -> None:
    a, b = 0.02, 0.004
    options = noise({"type": "signal_dependent", "a": [a, a], "b": [b, b]})
    for level in (0.0, 0.25, 1.0):
        noisy, truth = add_noise(flat(level), options, generators(1))
        assert float(noisy.var()) == pytest.approx(a * level + b, rel=0.03)
        assert float(noisy.mean()) == pytest.approx(level, abs=2e-3)
        assert truth["sigma"].tolist() == pytest.approx([sqrt(a * level + b)])
        assert (truth["a"].tolist(), truth["b"].tolist()) == (pytest.approx([a]), pytest.approx([b]))


def test_impulses_replace_whole_pixels_by_uniform_colours() -> None:
    alpha, level = 0.3, 2.0  # a level that no colour has
    noisy, truth = add_noise(flat(level), noise({"type": "impulse", "alpha": [alpha, alpha]}), generators(1))
    hit = noisy != level
    assert bool((hit == hit[:, :1]).all())  # all channels of a pixel or none
    count = 256 * 256
    assert float(hit[:, 0].float().mean()) == pytest.approx(alpha, abs=5 * sqrt(alpha * (1 - alpha) / count))
    colours = noisy[hit].numpy()
    shares, _ = np.histogram(colours, 10, (0, 1))
    assert shares.sum() == len(colours)
    assert np.abs(shares / len(colours) - 0.1).max() < 5 * sqrt(0.09 / len(colours))
    pixels = noisy[0].flatten(1)[:, hit[0, 0].flatten()].numpy()
    assert np.abs(np.corrcoef(pixels) - np.eye(3)).max() < 5 / sqrt(pixels.shape[1])
    assert truth["alpha"].tolist() == pytest.approx([alpha])

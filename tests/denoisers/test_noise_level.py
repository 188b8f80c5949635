"""Level, correlation and line of noise against noise of known law, and against real pairs with references."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from synthpipe.denoisers.noise_level import (
    choose_hole,
    estimate_noise_line,
    estimate_sigma,
    noise_correlation,
    noise_spectrum,
)
from synthpipe.errors import ShapeError


def read(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def binomial_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Of unit variance: white noise behind the 3x3 binomial kernel, whose correlation is 4/6 and 1/6 along an axis."""
    batch, channels, height, width = shape
    noise = torch.randn(batch * channels, 1, height + 2, width + 2, generator=generator)
    kernel = torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1]))
    return F.conv2d(noise, (kernel / 6)[None, None]).view(shape)


def noise(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return binomial_noise(shape, generator) if kind == "binomial" else torch.randn(shape, generator=generator)


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[Tensor]:
    """Ten held-out photographs of all three sets, the textured Kodak walls and zebras among them."""
    return [read(path) for path in sorted((shared / "data" / "clean_test").glob("*.png"))[::5]]


@pytest.mark.parametrize("kind", ["white", "binomial"])
@pytest.mark.parametrize("sigma", [1.0, 5.0, 50.0])
def test_flat_images(kind: str, sigma: float) -> None:
    x = 0.5 + sigma / 255 * noise(kind, (4, 3, 160, 160), seed=1)
    # Some 700 blocks of 16 coefficients of 3 channels tell white noise to 0.6 %; those of binomial noise fewer.
    assert estimate_sigma(x).numpy() * 255 == pytest.approx(np.full(4, sigma), rel=0.03)


# On every third of the 46 photographs: 5.2 +- 0.4, 25.3 +- 0.4, 50.2 +- 0.4; the median of Haar details gives
# 7.4 +- 2.2, 26.2 +- 1.1, 50.7 +- 0.6.
@pytest.mark.parametrize(("sigma", "bias", "worst"), [(5, 0.5, 1.8), (25, 0.5, 1.6), (50, 0.6, 1.8)])
def test_white_noise_on_photographs(photographs: list[Tensor], sigma: int, bias: float, worst: float) -> None:
    errors = np.array(
        [
            float(estimate_sigma(x + sigma / 255 * noise("white", x.shape, i))) * 255 - sigma
            for i, x in enumerate(photographs)
        ]
    )
    assert abs(errors.mean()) < bias
    assert abs(errors).max() < worst


@pytest.mark.parametrize(("sigma", "bias"), [(5, 1.0), (25, 1.2)])
def test_correlated_noise_on_photographs(photographs: list[Tensor], sigma: int, bias: float) -> None:
    errors = [
        float(estimate_sigma(x + sigma / 255 * noise("binomial", x.shape, i))) * 255 - sigma
        for i, x in enumerate(photographs)
    ]
    assert abs(np.median(errors)) < bias  # the median of Haar details is 15 too low at 25


def test_clean_photographs_have_little_noise(photographs: list[Tensor]) -> None:
    levels = np.array([float(estimate_sigma(x)) * 255 for x in photographs])
    assert np.median(levels) < 2.5
    assert levels.max() < 12  # the zebra has no flat place


@settings(max_examples=20)
@given(st.floats(0.01, 0.2), st.floats(0.1, 10), st.integers(0, 100), st.booleans())
def test_the_scale_of_the_image_is_the_scale_of_the_level(level: float, scale: float, seed: int, white: bool) -> None:
    x = 0.3 + level * noise("white" if white else "binomial", (1, 1, 40, 48), seed)
    assert float(estimate_sigma(scale * x)) == pytest.approx(scale * float(estimate_sigma(x)), rel=1e-3)


def test_images_of_a_batch_are_apart_and_channels_pool_by_squares() -> None:
    x = torch.cat([0.5 + s * noise("white", (1, 3, 96, 96), seed=3) for s in (0.02, 0.2)])
    both = estimate_sigma(x)
    assert torch.allclose(both, torch.cat([estimate_sigma(x[:1]), estimate_sigma(x[1:])]))
    uneven = torch.tensor([0.0, 0.03, 0.04])[:, None, None] * noise("white", (1, 3, 256, 256), seed=4) + 0.5
    assert float(estimate_sigma(uneven)) == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 3), rel=0.06)


def test_black_bars_do_not_hide_the_noise() -> None:
    x = (0.4 + 0.05 * noise("white", (1, 3, 120, 160), seed=5)).clamp(0, 1)
    x[:, :, :30], x[:, :, -30:] = 0, 0
    assert float(estimate_sigma(x)) == pytest.approx(0.05, rel=0.06)


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (2, 2), (3, 7), (8, 8), (9, 31), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    level = estimate_sigma(torch.rand(2, 3, *size))
    assert level.shape == (2,)
    assert torch.isfinite(level).all()
    assert (level > 0).all() == (min(size) > 1)
    assert (estimate_sigma(torch.full((1, 3, *size), 0.7)) < 1e-6).all()


def test_the_spectrum_is_that_of_the_filter() -> None:
    spectrum = noise_spectrum(0.5 + 0.1 * noise("white", (1, 1, 512, 512), seed=6))
    assert spectrum.shape == (1, 1, 8, 8)
    assert spectrum.flatten().numpy() == pytest.approx(np.full(64, 0.01), rel=0.05)
    spectrum = noise_spectrum(0.5 + 0.1 * noise("binomial", (1, 1, 512, 512), seed=6))[0, 0]
    assert spectrum[1, 2] > 10 * spectrum[5, 5] > 100 * spectrum[7, 7]


def test_correlation_of_known_noise() -> None:
    images = [0.5 + 0.1 * noise("binomial", (3, 1, 200, 240), seed)[:, 0] for seed in range(3)]
    correlation = noise_correlation(images)
    line = torch.tensor([1, 4 / 6, 1 / 6, 0, 0, 0])
    # The waves of a block are not quite independent, which takes 0.06 off.
    assert (correlation - torch.outer(line, line)).abs().max() < 0.08
    assert choose_hole(correlation) == 2
    white = noise_correlation(0.5 + 0.1 * noise("white", (2, 3, 200, 240), seed=9))
    assert (white - torch.outer(line == 1, line == 1).float()).abs().max() < 0.01
    assert choose_hole(white) == 0


def test_correlated_noise_on_photographs_asks_for_a_hole_of_two(photographs: list[Tensor]) -> None:
    noisy = [(x + 15 / 255 * noise("binomial", x.shape, i))[0] for i, x in enumerate(photographs)]
    assert choose_hole(noise_correlation(noisy)) == 2
    assert choose_hole(noise_correlation([(x + 15 / 255 * torch.randn_like(x))[0] for x in photographs])) == 0


def test_the_hole_reaches_as_far_as_any_direction_correlates() -> None:
    correlation = torch.zeros(6, 6)
    correlation[0, 0] = 1
    assert choose_hole(correlation) == 0
    correlation[1, 3] = -0.2
    assert choose_hole(correlation) == 3
    assert choose_hole(correlation, threshold=0.25) == 0


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.0), (0.01, 4e-4), (0.0, 2.5e-3), (3e-3, 2e-4)])
def test_the_line_over_brightness(photographs: list[Tensor], a: float, b: float) -> None:
    found = []
    for i, x in enumerate(photographs):
        line = estimate_noise_line(x + (a * x + b).sqrt() * noise("white", x.shape, i))
        found.append([float(value) for value in line])
    at = np.array([0.2, 0.5, 0.8])
    variances = np.array([[slope * x + offset for x in at] for slope, offset in found])
    assert np.median(variances, 0) == pytest.approx(a * at + b, rel=0.1)
    assert (np.array(found) >= 0).all()


def test_real_noise_with_references(shared: Path) -> None:
    """Six photographs of a telephone: level a tenth low in the mean, correlation near that of the residuals."""
    with (shared / "data" / "pairs.csv").open() as file:
        pairs = [row for row in csv.DictReader(file) if row["set"] == "sidd"]
    images = [read(shared / "data" / row["noisy"]) for row in pairs]
    truth = [math.sqrt(sum(float(row[f"sigma_{c}"]) ** 2 for c in "rgb") / 3) for row in pairs]
    ratios = [float(estimate_sigma(x)) * 255 / t for x, t in zip(images, truth, strict=True)]
    assert 0.85 < np.mean(ratios) < 1.05
    assert 0.7 < min(ratios) <= max(ratios) < 1.1
    correlation = noise_correlation([x[0] for x in images])
    for lag, name in (((0, 1), "lag1_h"), ((1, 0), "lag1_v"), ((1, 1), "lag1_diag"), ((0, 2), "lag2_h")):
        expected = float(np.mean([float(row[name]) for row in pairs]))
        assert float(correlation[lag]) == pytest.approx(expected, abs=0.06)
    assert 1 <= choose_hole(correlation) <= 2


def test_what_has_no_block_is_refused() -> None:
    for call in (noise_spectrum, estimate_noise_line):
        with pytest.raises(ShapeError, match=r"at least 8x8 pixels, got \(1, 3, 7, 20\)"):
            call(torch.zeros(1, 3, 7, 20))
    with pytest.raises(ShapeError, match="at least one image, got none"):
        noise_correlation([])

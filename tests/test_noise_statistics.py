"""Noise statistics and fits against closed forms, brute force, OpenCV, and figures measured elsewhere."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthpipe.errors import ShapeError
from synthpipe.noise_fit import fit_coloured_noise, fit_gaussian, fit_poisson_gaussian
from synthpipe.noise_statistics import (
    LOCAL_MEAN_WINDOW,
    akld,
    flat_mask,
    histogram_kld,
    local_mean,
    measure_noise,
    residual_of,
)


def grey(height=256, width=256, level=0.5):
    return torch.full((3, height, width), level, dtype=torch.float64)


def white(height=256, width=256, seed=0):
    return torch.randn(3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def measure(noise, level=0.5, **kwargs):
    reference = torch.full_like(noise, level)
    return measure_noise([(reference + noise, reference)], **kwargs)


def test_white_noise():
    found = measure(0.03 * white())
    assert found.sigma == pytest.approx([0.03] * 3, rel=0.02)
    for lag in (found.lag1_h, found.lag1_v, found.lag1_diag, found.lag2_h, found.lag2_v):
        assert abs(lag) < 0.01
    assert found.channel_correlation == pytest.approx([0, 0, 0], abs=0.015)
    assert found.excess_kurtosis == pytest.approx(0, abs=0.05)
    assert found.power_spectrum == pytest.approx([0.03**2] * 16, rel=0.35)
    assert np.mean(found.power_spectrum[4:]) == pytest.approx(0.03**2, rel=0.03)
    assert found.pixels == 256 * 256
    assert found.flat_fraction == 1


@pytest.mark.parametrize(("axis", "lag1", "lag2"), [(2, "lag1_h", "lag2_h"), (1, "lag1_v", "lag2_v")])
def test_a_moving_sum_has_its_textbook_correlation(axis, lag1, lag2):
    # Weights (1, 2, 2): autocovariances 9, 6, 2.
    w = white(300, 300)
    noise = 0.01 * (w + 2 * torch.roll(w, 1, axis) + 2 * torch.roll(w, 2, axis))
    found = measure(noise).as_dict()
    assert found["sigma"] == pytest.approx([0.03] * 3, rel=0.02)
    assert found[lag1] == pytest.approx(6 / 9, abs=0.01)
    assert found[lag2] == pytest.approx(2 / 9, abs=0.015)
    other = "lag1_v" if lag1 == "lag1_h" else "lag1_h"
    assert found[other] == pytest.approx(0, abs=0.015)
    assert found["lag1_diag"] == pytest.approx(0, abs=0.015)


def test_diagonal_correlation():
    w = white()
    found = measure(0.01 * (w + torch.roll(w, (1, 1), (1, 2))))
    assert found.lag1_diag == pytest.approx(0.5, abs=0.01)
    assert found.lag1_h == pytest.approx(0, abs=0.015)


def test_spectrum_of_a_moving_average_is_its_transfer_function():
    # 2x2 box: |H|^2 = cos^2(pi f_y) cos^2(pi f_x); averaged over each ring by brute force on a fine grid.
    w = white(1024, 1024)
    box = (w + torch.roll(w, 1, 1) + torch.roll(w, 1, 2) + torch.roll(w, (1, 1), (1, 2))) / 4
    found = measure(0.1 * box).power_spectrum
    f = np.linspace(-0.5, 0.5, 1001)
    fy, fx = np.meshgrid(f, f, indexing="ij")
    power = 0.01 * np.cos(np.pi * fy) ** 2 * np.cos(np.pi * fx) ** 2
    ring = np.floor(np.hypot(fy, fx) * 32).astype(int)
    for i in range(1, 15):
        assert found[i] == pytest.approx(power[ring == i].mean(), rel=0.1)


def test_channel_correlation():
    mixing = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=torch.float64)
    found = measure(0.02 * torch.einsum("ij,jhw->ihw", mixing, white()))
    assert found.channel_correlation == pytest.approx([0.6, 0, 0], abs=0.015)


def test_kurtosis_of_uniform_and_laplace():
    u = torch.rand(3, 400, 400, dtype=torch.float64) - 0.5
    assert measure(0.1 * u).excess_kurtosis == pytest.approx(-1.2, abs=0.01)
    laplace = -u.sign() * torch.log1p(-2 * u.abs())
    assert measure(0.01 * laplace).excess_kurtosis == pytest.approx(3, abs=0.25)


def test_sigma_by_brightness_follows_the_level():
    reference = torch.cat([grey(60, 200, level / 255) for level in (20, 70, 130, 200)], 1)
    sigmas = torch.tensor([0.01, 0.02, 0.03, 0.04], dtype=torch.float64).repeat_interleave(60)[None, :, None]
    found = measure_noise([(reference + sigmas * white(240, 200), reference)])
    # The 9x9 brightness window blends 4 rows at each of the three borders.
    assert found.sigma_by_brightness == pytest.approx([0.01, 0.02, 0.03, 0.04], rel=0.1)
    dark = measure_noise([(grey(level=0.1) + 0.01 * white(), grey(level=0.1))])
    assert dark.sigma_by_brightness[1:] == (None, None, None)


def test_pairs_of_other_sizes_are_pooled_by_pixels():
    small, large = 0.01 * white(40, 50), 0.04 * white(120, 100, seed=1)
    pairs = [(grey(40, 50) + small, grey(40, 50)), (grey(120, 100) + large, grey(120, 100))]
    found = measure_noise(pairs)
    n, m = 2000, 12000
    expected = math.sqrt((n * small[1].var(unbiased=False) + m * large[1].var(unbiased=False)) / (n + m))
    assert found.sigma[1] == pytest.approx(expected, rel=1e-9)
    assert found.pixels == n + m


def test_uint8_arrays_and_float_tensors_give_the_same():
    rng = np.random.default_rng(0)
    noisy, clean = rng.integers(0, 256, (2, 64, 80, 3), dtype=np.uint8)
    a = measure_noise([(noisy, clean)])
    b = measure_noise([tuple(torch.from_numpy(x / 255).permute(2, 0, 1) for x in (noisy, clean))])
    assert a.sigma == pytest.approx(b.sigma, rel=1e-12)
    assert a.lag1_h == pytest.approx(b.lag1_h, rel=1e-9)


def test_local_mean_is_the_box_average():
    x = white(20, 23)
    padded = np.pad(x.numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
    brute = np.stack([[padded[:, i : i + 7, j : j + 7].mean((1, 2)) for j in range(23)] for i in range(20)])
    np.testing.assert_allclose(local_mean(x, 7).numpy(), brute.transpose(2, 0, 1), atol=1e-12)


def test_removing_the_local_mean_removes_drift():
    drift = torch.linspace(-0.1, 0.1, 300, dtype=torch.float64).expand(3, 300, 300)
    found = measure(0.01 * white(300, 300) + drift, mean_window=LOCAL_MEAN_WINDOW)
    assert found.sigma == pytest.approx([0.01] * 3, rel=0.06)
    assert measure(0.01 * white(300, 300) + drift).sigma[0] > 0.05


def test_flat_mask_by_brute_force():
    rng = np.random.default_rng(1)
    image = np.clip(rng.normal(120, 2.5, (40, 44, 3)), 0, 255)
    image[:, 30:] += 60
    image[25:30, 5] = 250
    image[3, 20] = 5
    image = image.round().astype(np.uint8)
    padded = np.pad(image.astype(float), ((4, 4), (4, 4), (0, 0)), mode="edge")
    brute = np.zeros((40, 44), bool)
    for i in range(40):
        for j in range(44):
            window = padded[i : i + 9, j : j + 9]
            brute[i, j] = window.mean(2).std() < 2.5 and window.min() >= 8 and window.max() <= 247
    assert 0.1 < brute.mean() < 0.9
    np.testing.assert_array_equal(flat_mask(image).numpy(), brute)
    as_floats = torch.from_numpy(image).permute(2, 0, 1) / 255
    np.testing.assert_array_equal(flat_mask(as_floats).numpy(), brute)


def test_flat_only_leaves_edges_out():
    reference = grey()
    reference[:, :, 128:] = 0.8
    noisy = reference + 0.01 * white()
    noisy[:, :, 126:130] += 0.3
    assert measure_noise([(noisy, reference)], flat_only=True).sigma == pytest.approx([0.01] * 3, rel=0.03)
    assert measure_noise([(noisy, reference)]).sigma[0] > 0.03


def test_histogram_kld_of_two_gaussians():
    p, q = 0.10 * white(600, 600), 0.15 * white(600, 600, seed=1)
    expected = math.log(1.5) + 0.5 / 1.5**2 - 0.5
    assert histogram_kld([p], [q]) == pytest.approx(expected, rel=0.02)
    assert histogram_kld([p], [0.10 * white(600, 600, seed=2)]) < 1e-3
    assert histogram_kld([p], [p]) == 0


def test_histogram_kld_counts_an_empty_bin_as_half_a_pixel():
    real = torch.full((3, 10, 10), 0.5)
    generated = torch.full((3, 10, 10), -0.5)
    # p is one bin, where q has half a count of 300.
    assert histogram_kld([real], [generated]) == pytest.approx(math.log(300 / 0.5), rel=1e-12)


def test_akld_of_constant_residuals():
    def constant(value):
        return torch.full((3, 30, 30), value)

    assert akld([constant(0.1)], [constant(0.2)]) == pytest.approx(0.5 * (4 - 1 - math.log(4)))
    assert akld([constant(0.1)], [constant(-0.1)]) == pytest.approx(0, abs=1e-9)
    # The ratio is clamped to [0.1, 10] and the local variance to 1e-10.
    assert akld([constant(0.01)], [constant(0.5)]) == pytest.approx(0.5 * (9 - math.log(10)))
    assert akld([constant(0.0)], [constant(2e-5)]) == pytest.approx(0.5 * (4 - 1 - math.log(4)))
    two = akld([constant(0.1), constant(0.1)], [constant(0.2), constant(0.1)])
    assert two == pytest.approx(0.25 * (3 - math.log(4)))


def test_akld_blurs_as_opencv_does():
    cv2 = pytest.importorskip("cv2")
    a, b = 0.05 * white(41, 37), 0.06 * white(41, 37, seed=1)
    blurred = [cv2.GaussianBlur((x**2).permute(1, 2, 0).numpy(), (7, 7), 0) for x in (a, b)]
    ratio = np.clip(blurred[1] / blurred[0], 0.1, 10)
    assert akld([a], [b]) == pytest.approx(0.5 * np.mean(ratio - 1 - np.log(ratio)), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.1, 5), seed=st.integers(0, 1000))
def test_scaling_noise_scales_sigma_alone(factor, seed):
    w = white(24, 30, seed)
    noise = 0.02 * (w + torch.roll(w, 1, 2))
    one, other = measure(noise).as_dict(), measure(factor * noise).as_dict()
    assert other["sigma"] == pytest.approx([factor * s for s in one["sigma"]], rel=1e-6)
    for key in ("lag1_h", "lag1_v", "lag2_h", "channel_correlation", "excess_kurtosis"):
        assert other[key] == pytest.approx(one[key], abs=1e-6)


def test_figures_go_into_json():
    text = json.dumps(measure(0.01 * white(70, 70)).as_dict(), allow_nan=False)
    assert set(json.loads(text)) >= {"sigma", "sigma_by_brightness", "power_spectrum", "lag1_h"}
    assert measure(0.01 * white(30, 30)).power_spectrum is None


def test_equal_images_have_no_noise():
    found = measure_noise([(grey(), grey())])
    assert found.sigma == (0, 0, 0)
    assert found.lag1_h == 0


@pytest.mark.parametrize(
    ("noisy", "reference", "message"),
    [
        (torch.zeros(3, 20, 20), torch.zeros(3, 20, 21), "differ in size"),
        (torch.zeros(1, 20, 20), torch.zeros(1, 20, 20), "expected a tensor"),
        (torch.zeros(3, 8, 20), torch.zeros(3, 8, 20), "at least 9x9"),
    ],
)
def test_wrong_pairs_are_refused(noisy, reference, message):
    with pytest.raises(ShapeError, match=message):
        measure_noise([(noisy, reference)])


def test_nothing_to_measure_is_refused():
    with pytest.raises(ShapeError, match="no pixel counts"):
        measure_noise([])
    with pytest.raises(ShapeError, match="no pixel counts"):
        measure_noise([(grey(level=1.0), grey(level=1.0))], flat_only=True)
    with pytest.raises(ShapeError, match="odd window"):
        residual_of(grey(), grey(), mean_window=64)
    with pytest.raises(ShapeError, match="two lists"):
        akld([grey()], [])
    for fit in (fit_gaussian, fit_poisson_gaussian, fit_coloured_noise):
        with pytest.raises(ShapeError, match="at least one pair"):
            fit([])


def test_gaussian_fit_recovers_the_covariance():
    covariance = torch.tensor([[4.0, 1.0, -0.5], [1.0, 3.0, 0.5], [-0.5, 0.5, 2.0]], dtype=torch.float64) * 1e-4
    noise = torch.einsum("ij,jhw->ihw", torch.linalg.cholesky(covariance), white(400, 400))
    found = fit_gaussian([(grey(400, 400) + noise, grey(400, 400))])
    np.testing.assert_allclose(found.covariance, covariance.numpy(), atol=6e-6)
    np.testing.assert_allclose(found.sigma, covariance.diagonal().sqrt().numpy(), rtol=0.01)


def ramp_pair(a, b, height=512, width=512):
    """Poisson-Gaussian noise on a brightness ramp."""
    reference = torch.linspace(0.02, 0.98, width, dtype=torch.float64).expand(3, height, width)
    a, b = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (a, b))
    return reference + (a * reference + b).sqrt() * white(height, width), reference


def test_poisson_gaussian_fit_recovers_the_line():
    a, b = (4e-3, 1e-3, -3e-4), (1e-4, 3e-4, 4e-4)
    found = fit_poisson_gaussian([ramp_pair(a, b)])
    for x in (0.1, 0.5, 0.9):
        for c in range(3):
            # Huber's weights cut the long tail of the chi-square, hence a few percent too low.
            assert found.a[c] * x + found.b[c] == pytest.approx(a[c] * x + b[c], rel=0.05)


def test_poisson_gaussian_fit_is_not_decided_by_misplaced_edges():
    a, b = (2e-3,) * 3, (2e-4,) * 3
    noisy, reference = ramp_pair(a, b)
    noisy = noisy.clone()
    noisy[:, ::64] += 0.5
    found = fit_poisson_gaussian([(noisy, reference)])
    naive = fit_gaussian([(noisy, reference)])
    assert found.a[0] * 0.5 + found.b[0] == pytest.approx(1.2e-3, rel=0.12)
    assert naive.covariance[0][0] > 4e-3


def test_poisson_gaussian_fit_of_a_single_brightness_is_a_constant():
    found = fit_poisson_gaussian([(grey() + 0.02 * white(), grey())])
    assert found.a[0] * 0.5 + found.b[0] == pytest.approx(4e-4, rel=0.05)


def test_coloured_fit_recovers_line_channels_and_neighbours():
    a, b = (4e-3, 1e-3, 2e-3), (1e-4, 3e-4, 4e-4)
    correlation = torch.tensor([[1, 0.6, 0.1], [0.6, 1, 0.3], [0.1, 0.3, 1]], dtype=torch.float64)
    binomial = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = binomial[:, None] * binomial / 6  # sum of squares 1; the correlation is that of (1, 4, 6, 4, 1) both ways
    eps = torch.nn.functional.conv2d(white(515, 515)[:, None], kernel[None, None])[:, 0]
    mixed = torch.einsum("ij,jhw->ihw", torch.linalg.cholesky(correlation), eps)
    reference = torch.linspace(0.02, 0.98, 513, dtype=torch.float64).expand(3, 513, 513)
    line = [torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (a, b)]
    found = fit_coloured_noise([(reference + (line[0] * reference + line[1]).sqrt() * mixed, reference)])
    for x in (0.1, 0.5, 0.9):
        for c in range(3):
            # Blocks of neighbours that hang together scatter more, and Huber cuts more of them off.
            assert found.a[c] * x + found.b[c] == pytest.approx(a[c] * x + b[c], rel=0.15)
    np.testing.assert_allclose(found.correlation, correlation.numpy(), atol=0.03)
    made = torch.tensor(found.kernel, dtype=torch.float64)
    own = torch.nn.functional.conv2d(made[None, None], made[None, None], padding=2)[0, 0]
    expected = torch.tensor([1, 4, 6, 4, 1], dtype=torch.float64) / 6
    np.testing.assert_allclose(own, expected[:, None] * expected, atol=0.05)


def test_coloured_fit_of_small_pictures_is_refused():
    with pytest.raises(ShapeError, match="at least 64x64"):
        fit_coloured_noise([(grey(32, 80) + 0.02 * white(32, 80), grey(32, 80))])


def rows_of(shared):
    with (shared / "data" / "pairs.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name", ["sidd_00", "sidd_04", "sidd_10", "Canon5D2_5_160_6400_desk_4", "NikonD800_5_100_4000_flower_15"]
)
def test_figures_measured_elsewhere_come_out_again(shared, name):
    """``pairs.csv`` was made by a program of other hands; it gives two or three decimals."""
    row = next(row for row in rows_of(shared) if name in row["noisy"])
    pair = [np.array(Image.open(shared / "data" / row[side]).convert("RGB")) for side in ("noisy", "clean")]
    found = measure_noise([tuple(pair)], mean_window=LOCAL_MEAN_WINDOW, flat_only=True)
    assert found.flat_fraction == pytest.approx(float(row["flat_fraction"]), abs=0.0006)
    assert [255 * s for s in found.sigma] == pytest.approx([float(row[f"sigma_{c}"]) for c in "rgb"], abs=0.0051)
    for key in ("lag1_h", "lag1_v", "lag1_diag", "lag2_h", "lag2_v"):
        assert getattr(found, key) == pytest.approx(float(row[key]), abs=0.0051), key
    expected = [float(row[f"corr_{pair}"]) for pair in ("rg", "gb", "rb")]
    assert found.channel_correlation == pytest.approx(expected, abs=0.0051)


def test_akld_is_least_for_noise_that_is_a_tenth_too_weak_and_the_histograms_for_right_noise() -> None:
    """Of two draws of one correlated noise, one of them scaled: why the two do not agree on the best weights."""
    draws = torch.Generator().manual_seed(0)
    kernel = torch.tensor([0.35, 1, 0.35], dtype=torch.float64)
    kernel = (kernel[:, None] * kernel)[None, None] / kernel.square().sum()
    white = torch.randn(12, 1, 130, 130, generator=draws, dtype=torch.float64)
    noise = 5 / 255 * torch.nn.functional.conv2d(white, kernel).reshape(4, 3, 128, 128)
    real, other = noise[:2], noise[2:]
    found = {}
    for scale in (0.85, 0.9, 0.95, 1.0, 1.05):
        sides = [[(255 * x).round() / 255 for x in side] for side in (real, scale * other)]
        found[scale] = akld(*sides), histogram_kld(*sides)
    assert min(found, key=lambda scale: found[scale][0]) == 0.9
    assert found[1.0][0] > 1.05 * found[0.9][0]  # more than the 5% that two checkpoints may differ by
    assert min(found, key=lambda scale: found[scale][1]) == 1.0

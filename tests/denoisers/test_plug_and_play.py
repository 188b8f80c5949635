"""Restoration methods against dense solves under priors whose denoisers are known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from torch.testing import assert_close

from synthpipe.denoisers import PlainDenoiser
from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.blur_kernels import gaussian_kernel
from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur, bicubic_reduction
from synthpipe.denoisers.degradation_operators import Identity, Mask
from synthpipe.denoisers.plug_and_play import MeanShift, Problem, Splitting, method_named, psnr, restore
from synthpipe.errors import DivergenceError, OptionError, ShapeError

SIDE = 6
#: Standard deviation of the Gaussian prior of a pixel, and its mean.
SPREAD = 0.1
SIGMA = 0.05


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MEAN = 0.5 + 0.1 * noise(1, 1, SIDE, SIDE, seed=5)


def gaussian_map(v, level):
    """The proximal map of ``||x - MEAN||^2 / (2 SPREAD^2)`` at rho = 1 / level^2."""
    rho = (1 / level.square())[:, None, None, None]
    return (MEAN / SPREAD**2 + rho * v) / (1 / SPREAD**2 + rho)


OPERATORS = {
    "identity": Identity(),
    "mask": Mask((noise(1, 1, SIDE, SIDE, seed=3) > 0).double()),
    "blur": CircularBlur(gaussian_kernel(0.8, 3)),
    "x2": CircularBlur(gaussian_kernel(0.8, 3), 2),
}


def gaussian_posterior(operator, y, spread=SPREAD, data=1 / SIGMA**2):
    """``argmin data / 2 ||K x - y||^2 + ||x - MEAN||^2 / (2 spread^2)`` by a dense solve."""
    units = torch.eye(SIDE * SIDE, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
    matrix = operator(units).flatten(1).T
    left = data * matrix.T @ matrix + torch.eye(SIDE * SIDE, dtype=torch.float64) / spread**2
    right = data * y.flatten(1) @ matrix + MEAN.flatten(1) / spread**2
    return torch.linalg.solve(left, right.T).T.view(-1, 1, SIDE, SIDE)


def observed(operator, batch=2):
    x = MEAN + 0.5 * SPREAD * noise(batch, 1, SIDE, SIDE, seed=1)
    clean = operator(x)
    return clean + SIGMA * operator(operator.adjoint(noise(*clean.shape, seed=2)))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("level", [0.1, 0.3])
def test_admm_finds_the_map(name, level):
    y = observed(OPERATORS[name])
    method = Splitting(iterations=400, first=level, last=level, penalty=1.0, dual=True)
    found = restore(Problem(OPERATORS[name], y, SIGMA), gaussian_map, method).image
    assert_close(found, gaussian_posterior(OPERATORS[name], y), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["mask", "blur"])
def test_admm_along_a_schedule_finds_the_same_map(name):
    """Only if the dual variable follows rho."""
    y = observed(OPERATORS[name])
    method = Splitting(iterations=60, first=0.4, last=0.1, penalty=1.0, dual=True)
    found = restore(Problem(OPERATORS[name], y, SIGMA), gaussian_map, method).image
    assert_close(found, gaussian_posterior(OPERATORS[name], y), atol=2e-4, rtol=0)


def test_half_quadratic_splitting_minimises_the_joint_objective():
    """Its x has the prior's Moreau envelope, whose variance is that of the prior and 1 / rho together."""
    level = 0.2
    y = observed(OPERATORS["blur"])
    method = Splitting(iterations=400, first=level, last=level, penalty=1.0)
    found = restore(Problem(OPERATORS["blur"], y, SIGMA), gaussian_map, method).image
    x = gaussian_posterior(OPERATORS["blur"], y, spread=(SPREAD**2 + level**2) ** 0.5)
    assert_close(found, gaussian_map(x, torch.tensor([level] * 2)), atol=1e-5, rtol=0)


def test_penalty_scales_rho():
    """A denoiser for another rho (a small perturbation) still gives the MAP when the penalty says so."""
    level, penalty = 0.2, 0.5
    y = observed(OPERATORS["blur"])
    method = Splitting(iterations=400, first=level, last=level, penalty=penalty, dual=True)
    found = restore(Problem(OPERATORS["blur"], y, SIGMA), lambda v, s: gaussian_map(v, s / penalty**0.5), method).image
    assert_close(found, gaussian_posterior(OPERATORS["blur"], y), atol=1e-5, rtol=0)


def test_penalty_falls_with_the_noise_of_each_image():
    """At four times the noise of 2.55/255 the root halves it: each image of a batch meets its own rho."""
    level, sigma = 0.2, torch.tensor([2.55 / 255, 4 * 2.55 / 255], dtype=torch.float64)
    y = observed(OPERATORS["blur"])
    method = Splitting(iterations=3, first=level, last=level, penalty=0.5, dual=True, noise_exponent=0.5)
    found = restore(Problem(OPERATORS["blur"], y, sigma), gaussian_map, method).image
    for index, penalty in enumerate((0.5, 0.25)):
        alone = replace(method, penalty=penalty, noise_exponent=0.0)
        one = slice(index, index + 1)
        expected = restore(Problem(OPERATORS["blur"], y[one], sigma[one]), gaussian_map, alone).image
        assert_close(found[one], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", OPERATORS)
def test_mean_shift_finds_its_fixed_point(name):
    """With a denoiser that answers MEAN, the density is Gaussian and the noise drops out."""
    operator = OPERATORS[name]
    y = observed(operator)
    level = 0.2
    method = MeanShift(iterations=400, level=level)
    found = restore(Problem(operator, y, SIGMA), lambda x, _: MEAN.expand_as(x), method).image
    w = level**2 / (level**2 + SIGMA**2)
    expected = gaussian_posterior(operator, y, spread=(1 / (1 - w)) ** 0.5, data=w)
    assert_close(found, expected, atol=1e-6, rtol=0)


def test_blind_mean_shift_measures_the_noise():
    operator = Mask((noise(1, 1, 64, 64, seed=3) > 0).double())
    truth = 0.5 + 0.05 * noise(1, 1, 64, 64)
    y = operator(truth + 0.1 * noise(1, 1, 64, 64, seed=1))
    level = 0.05

    def run(sigma, blind):
        method = MeanShift(iterations=100, level=level, blind=blind)
        return restore(Problem(operator, y, sigma), lambda x, _: truth.expand_as(x), method).image

    # With a denoiser that answers the truth, the estimate lies at w between it and y; the residual is the rest of the
    # noise and the step's own.
    measured = float((operator(y - truth).square().sum() / operator.mask.sum()).sqrt())
    w = 0.5
    for _ in range(100):
        w = level**2 / (level**2 + (measured * (1 - w)) ** 2 + level**2)
    expected = torch.where(operator.mask > 0, w * y + (1 - w) * truth, truth)
    assert_close(run(0.01, True), expected, atol=0.015, rtol=0)
    assert (run(0.01, False) - expected).abs().max() > 0.1


@given(st.integers(2, 20), st.floats(0.001, 0.15))
def test_levels_fall_in_equal_ratios_to_the_noise(iterations, sigma):
    levels = Splitting(iterations=iterations).levels(torch.tensor([sigma], dtype=torch.float64))[:, 0].numpy()
    expected = np.geomspace(49 / 255, max(sigma, 2.55 / 255), iterations)
    np.testing.assert_allclose(levels, expected, rtol=1e-9)


def test_levels_do_not_rise_to_strong_noise():
    assert_close(Splitting(iterations=3).levels(torch.tensor([0.5])), torch.full((3, 1), 0.5))


@pytest.mark.parametrize("method", [Splitting(penalty=0.5, dual=True), MeanShift(iterations=5)])
def test_images_of_a_batch_are_restored_apart(method):
    operator = ValidBlur(gaussian_kernel(1.0, 5))
    y = torch.rand(2, 1, 12, 11, dtype=torch.float64)
    sigma = torch.tensor([0.02, 0.1])

    def denoise(x, level):
        return x / (1 + level[:, None, None, None])

    both = restore(Problem(operator, y, sigma), denoise, method).image
    assert both.shape == y.shape
    alone = restore(Problem(operator, y[:1], 0.02), denoise, method).image
    assert_close(both[:1], alone, atol=1e-6, rtol=0)
    if isinstance(method, Splitting):
        alone = restore(Problem(operator, y[1:], sigma[1:]), denoise, method).image
        assert_close(both[1:], alone, atol=1e-6, rtol=0)


def test_noise_is_estimated_where_it_is_not_given():
    ramp = torch.linspace(0, 1, 96)[None, None, None].expand(2, 1, 96, 96).double()
    y = ramp + torch.tensor([0.02, 0.1]).view(2, 1, 1, 1) * noise(2, 1, 96, 96)
    assert_close(Problem(Identity(), y).level.float(), torch.tensor([0.02, 0.1]), rtol=0.1, atol=0)


def test_callback_trace_and_psnr():
    operator = OPERATORS["blur"]
    truth = torch.rand(2, 1, SIDE, SIDE, dtype=torch.float64)
    y = operator(truth) + SIGMA * noise(2, 1, SIDE, SIDE)
    seen = []
    method = Splitting(iterations=7, penalty=1.0)
    result = restore(
        Problem(operator, y, SIGMA), gaussian_map, method, reference=truth, border=1, callback=lambda *a: seen.append(a)
    )
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert result.iterations == 7
    assert_close(seen[-1][1], result.image)
    assert result.psnr.shape == (7, 2)
    for image in range(2):
        inner = (result.image[image, 0, 1:-1, 1:-1].clamp(0, 1).numpy(), truth[image, 0, 1:-1, 1:-1].numpy())
        assert float(result.psnr[-1, image]) == pytest.approx(peak_signal_noise_ratio(*inner, data_range=1), abs=1e-9)
    change = (seen[-1][1] - seen[-2][1]).square().mean((1, 2, 3)).sqrt().max()
    assert result.change[-1] == pytest.approx(float(change))


def test_tolerance_stops_when_nothing_moves():
    y = observed(OPERATORS["blur"])
    method = Splitting(iterations=400, first=0.2, last=0.2, penalty=1.0, dual=True)
    result = restore(Problem(OPERATORS["blur"], y, SIGMA), gaussian_map, method, tolerance=1e-4)
    assert 3 < result.iterations < 100
    assert result.change[-1] <= 1e-4 < result.change[-2]


def test_start_is_where_it_begins():
    start = torch.full((1, 1, SIDE, SIDE), 0.25, dtype=torch.float64)
    seen = []

    def denoise(x, _):
        seen.append(x)
        return x

    y = observed(OPERATORS["mask"], 1)
    restore(Problem(OPERATORS["mask"], y, SIGMA), denoise, Splitting(iterations=1), start=start)
    missing = OPERATORS["mask"].mask == 0
    assert_close(seen[0][missing], start[missing])


def test_identity_as_denoiser_diverges():
    """Otherwise the data step would do all the work."""
    truth = torch.nn.functional.interpolate(torch.rand(1, 1, 8, 8).double(), scale_factor=6, mode="bicubic")
    operator = CircularBlur(gaussian_kernel(2.0))
    y = operator(truth) + 0.01 * noise(1, 1, 48, 48)
    method = method_named("map", iterations=40)
    quality = restore(Problem(operator, y, 0.01), lambda x, _: x, method, reference=truth).psnr[:, 0]
    assert float(quality[39]) < float(quality[4]) - 2


def test_what_runs_away_is_an_error():
    y = observed(OPERATORS["identity"])
    with pytest.raises(DivergenceError, match="left the scale of images at iteration"):
        restore(
            Problem(OPERATORS["mask"], y, SIGMA),
            lambda x, _: 1e200 * x,
            Splitting(iterations=9, first=0.2, last=0.2),
        )


class Pushing(Denoiser):
    """Makes all brighter without end."""

    channels, reach = 1, 0

    def forward(self, x, sigma):
        return 1000 * x


def test_a_network_that_runs_away_is_no_wrong_input():
    """Its own refusal of the iterate would read as one of what was observed."""
    y = observed(OPERATORS["identity"])
    with pytest.raises(DivergenceError, match="left the scale of images at iteration 2"):
        restore(Problem(OPERATORS["identity"], y, SIGMA), Pushing(), Splitting(iterations=9, first=0.2, last=0.2))


def test_a_start_on_another_scale_is_refused():
    y = observed(OPERATORS["identity"])
    with pytest.raises(ShapeError, match="images to start from"):
        restore(Problem(OPERATORS["identity"], y, SIGMA), lambda x, _: x, "dpir", start=255 * y)


def test_denoisers_of_other_channels():
    x = torch.rand(1, 3, 16, 14)
    operator = bicubic_reduction(2)
    result = restore(Problem(operator, x), PlainDenoiser(channels=1, width=2, depth=2).eval(), "dpir")
    assert result.image.shape == (1, 3, 32, 28)
    assert not result.image.requires_grad


def test_psnr_clips():
    assert_close(psnr(torch.full((1, 1, 4, 4), 1.5), torch.full((1, 1, 4, 4), 0.9)), torch.tensor([20.0]))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Problem(Identity(), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), ShapeError, "finite floating-point"),
        (lambda: Problem(Identity(), torch.full((1, 1, 4, 4), 90.0), 0.1), ShapeError, r"in \[0, 1\], got a mean"),
        (lambda: Problem(Identity(), torch.zeros(2, 1, 4, 4), torch.zeros(3)), ShapeError, "each of 2 images"),
        (lambda: Problem(Identity(), torch.zeros(2, 1, 4, 4), -0.1), ShapeError, "at least 0"),
        (lambda: Problem(OPERATORS["mask"], torch.zeros(1, 1, SIDE, SIDE)), ShapeError, "missing pixels.*give sigma"),
        (lambda: method_named("newton"), OptionError, r"expected one of \['annealed'.*got 'newton'"),
        (lambda: method_named("dmsp", penalty=1.0), OptionError, "penalty"),
        (lambda: Splitting(iterations=0), OptionError, "at least one iteration"),
        (lambda: Splitting(last=-0.1), OptionError, "positive levels"),
        (lambda: MeanShift(momentum=1.0), OptionError, "momentum in"),
    ],
)
def test_refusals(build, error, message):
    with pytest.raises(error, match=message):
        build()

"""The weight that follows the residual, in a world where the best weight is known; the noise that it is told of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.config.flow_prior import (
    AutomaticWeightOptions,
    ExactWeightOptions,
    FixedWeightOptions,
    MeasuredNoiseOptions,
)
from synthpipe.config.noise import GaussianTrainingNoise
from synthpipe.training.data.noise_belief import NoiseBelief, believed_noise, binomial_kernel, kernel_of
from synthpipe.training.prior_weight import AutomaticWeight, ResidualMoments, build_weight, residual_moments
from synthpipe.transforms.training_noise import add_noise

SIDE = 16
#: Power of clean images at each frequency of a torus: much at low ones.
_FREQUENCY = torch.fft.fftfreq(SIDE)[:, None].square() + torch.fft.fftfreq(SIDE)[None].square()
POWER = 0.002 / (_FREQUENCY + 0.02)
#: The prior takes images for four times as regular as they are, so that a quarter of its weight is best.
OVERSURE = 4.0


def filtered(x: Tensor, gain: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(x) * gain).real


def closed_loop(weight: AutomaticWeight, levels: tuple[float, ...], told: float = 1.0, steps: int = 300) -> None:
    """Steps of training, in each of which the denoiser is at the optimum of its weighted objective."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        sigma = torch.full((8,), levels[step % len(levels)])
        clean = filtered(torch.randn(8, 1, SIDE, SIDE, generator=generator), POWER.sqrt())
        noisy = clean + sigma[0] * torch.randn(clean.shape, generator=generator)
        believed = told * sigma
        precision = weight(believed)[0] * OVERSURE / POWER * believed[0] ** 2
        gain = 1 / (1 + precision)
        probe = believed[0] * torch.randn(clean.shape, generator=generator)
        weight.follow(believed, residual_moments(noisy - filtered(noisy, gain), probe, filtered(probe, gain), believed))


@pytest.mark.parametrize("rule", ["orthogonal", "white"])
@pytest.mark.parametrize("start", [0.05, 2.0])
def test_the_weight_of_least_squared_error_is_found_without_clean_images(rule: str, start: float) -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(rule=rule, start=start))  # type: ignore[arg-type]
    closed_loop(weight, (0.1,))
    assert float(weight(torch.tensor([0.1]))) == pytest.approx(1 / OVERSURE, rel=0.1)


def test_whiteness_does_not_need_the_level() -> None:
    for told in (0.75, 1.25):
        weight = AutomaticWeight(AutomaticWeightOptions(rule="white"))
        closed_loop(weight, (0.1,), told)
        assert float(weight(torch.tensor([0.1]))) * told**2 == pytest.approx(1 / OVERSURE, rel=0.1)
        assert weight.level_ratio() * told == pytest.approx(1, abs=0.03)  # and the level is found


def test_the_published_rule_meets_its_target() -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(rule="variance"))
    closed_loop(weight, (0.1,))
    gain = 1 / (1 + float(weight(torch.tensor([0.1]))) * OVERSURE / POWER * 0.01)
    share = ((1 - gain).square() * (POWER + 0.01)).mean() / 0.01
    assert float(share) == pytest.approx(0.875, abs=0.03)


def test_each_level_finds_its_own_weight() -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(knots=(0.03, 0.1, 0.3)))
    # A prior whose error differs by level is played by telling levels apart that are wrong by known factors.
    closed_loop(weight, (0.03, 0.3), steps=500)
    assert_close(weight(torch.tensor([0.03, 0.3])), torch.full((2,), 1 / OVERSURE), rtol=0.15, atol=0)
    assert float(weight(torch.tensor([0.1]))) == pytest.approx(1, rel=1e-3)  # no image was near: still the start


def test_levels_between_knots_are_interpolated_on_logarithms() -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(knots=(0.01, 0.04)))
    weight.log_kappa.copy_(torch.tensor([0.1, 0.9]).log())
    found = weight(torch.tensor([0.001, 0.01, 0.02, 0.04, 1.0]))
    assert_close(found, torch.tensor([0.1, 0.1, 0.3, 0.9, 0.9]))


def test_moments_that_are_not_finite_move_nothing_and_the_state_is_whole() -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(knots=(0.01, 0.1)))
    level = torch.full((2,), 0.05)
    good = ResidualMoments(*torch.rand(4, 2).unbind())
    weight.follow(level, good)
    before = {name: value.clone() for name, value in weight.state_dict().items()}
    weight.follow(level, good._replace(own=torch.tensor([math.nan, 1.0])))
    for name, value in weight.state_dict().items():
        assert torch.equal(value, before[name])
    other = AutomaticWeight(AutomaticWeightOptions(knots=(0.01, 0.1)))
    other.load_state_dict(before)
    weight.follow(level, good)
    other.follow(level, good)
    assert torch.equal(weight(level), other(level))


def test_a_denoiser_that_does_nothing_is_not_taken_for_white() -> None:
    weight = AutomaticWeight(AutomaticWeightOptions(rule="white", start=0.1))
    level = torch.full((2,), 0.1)
    correlated = ResidualMoments(*(torch.full((2,), value) for value in (0.01, 0.005, 0.01, 0.0)))
    weight.follow(level, correlated)
    assert float(weight(level)[0]) > 0.1


def test_fixed_weights() -> None:
    level = torch.tensor([0.02, 0.2])
    assert build_weight(ExactWeightOptions())(level).tolist() == [1, 1]
    assert build_weight(FixedWeightOptions(kappa=0.5))(level).tolist() == [0.5, 0.5]
    assert not build_weight(ExactWeightOptions()).follows


def test_kernels_give_noise_the_correlation_that_was_measured() -> None:
    line = torch.tensor([1, 4 / 6, 1 / 6, 0, 0, 0])  # of (1 2 1) filtered white noise: (1 4 6 4 1) / 6
    measured = kernel_of(line[:, None] * line[None, :])
    for kernel in (measured, binomial_kernel(1)):
        padded = torch.zeros(40, 40)
        padded[: len(kernel), : len(kernel)] = kernel
        found = torch.fft.ifft2(torch.fft.fft2(padded).abs().square()).real[:6, :6]
        assert_close(found, line[:, None] * line[None, :], atol=0.02, rtol=0)
    assert binomial_kernel(0).tolist() == [[1]]
    white = torch.zeros(6, 6)
    white[0, 0] = 1
    assert_close(kernel_of(white)[5, 5], torch.tensor(1.0))


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_draws_have_the_believed_spread_and_correlation() -> None:
    x = torch.cat([torch.full((8, 1, 48, 24), 0.2), torch.full((8, 1, 48, 24), 0.8)], 3)
    line = MeasuredNoiseOptions(a=0.02, b=0.001)
    belief = believed_noise(x, {}, line, binomial_kernel(1))
    noise = belief.draw(x, generators(8))
    for part, brightness in ((noise[..., :24], 0.2), (noise[..., 24:], 0.8)):
        assert float(part.var()) == pytest.approx(0.02 * brightness + 0.001, rel=0.1)
        assert float((part[:, :, 1:] * part[:, :, :-1]).mean() / part.var()) == pytest.approx(4 / 6, abs=0.05)
    assert_close(belief.level, torch.full((8,), math.sqrt(0.02 * 0.5 + 0.001)))


def test_levels_known_given_and_estimated() -> None:
    clean = torch.full((3, 1, 64, 64), 0.5)
    noisy, truth = add_noise(clean, GaussianTrainingNoise(sigma=(0.02, 0.2)), generators(3))
    kernel = binomial_kernel(0)
    assert_close(believed_noise(noisy, truth, "known", kernel).level, truth["sigma"])
    assert_close(believed_noise(noisy, truth, 0.07, kernel).level, torch.full((3,), 0.07))
    assert_close(believed_noise(noisy, truth, "estimated", kernel).level, truth["sigma"], rtol=0.1, atol=0)
    assert_close(believed_noise(noisy, truth, "estimated_line", kernel).level, truth["sigma"], rtol=0.25, atol=0)
    poisson = believed_noise(clean, {"sigma": truth["sigma"], "lam": torch.tensor([50.0, 100, 200])}, "known", kernel)
    assert_close(poisson.variance(clean)[:, 0, 0, 0], 0.5 / torch.tensor([50.0, 100, 200]))
    both = {"sigma": truth["sigma"], "a": torch.full((3,), 0.01), "b": torch.full((3,), 0.002)}
    assert_close(believed_noise(clean, both, "known", kernel).variance(clean)[:, 0, 0, 0], torch.full((3,), 0.007))
    dark = NoiseBelief(torch.ones(1), torch.zeros(1), torch.ones(1), kernel)
    assert float(dark.variance(torch.zeros(1, 1, 2, 2)).min()) > 0

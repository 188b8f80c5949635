"""Options of training noise: what each kind takes, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from synthpipe.config.denoiser_data import NoisyDataOptions
from synthpipe.config.noise import (
    DegradeTrainingNoise,
    GaussianTrainingNoise,
    ImpulseTrainingNoise,
    PoissonTrainingNoise,
    SignalDependentTrainingNoise,
)
from synthpipe.config.plain_denoiser import TrainPlainDenoiserOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError


def data(noise: Any) -> NoisyDataOptions:
    return parse_options({"images": {"folder": "photos"}, "noise": noise}, NoisyDataOptions)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "gaussian", "sigma": [0, 0.2]}, GaussianTrainingNoise(sigma=(0, 0.2), binomial=0)),
        ({"type": "gaussian", "sigma": [0.1, 0.1], "binomial": 3}, GaussianTrainingNoise(sigma=(0.1, 0.1), binomial=3)),
        ({"type": "poisson", "lam": [5, 50]}, PoissonTrainingNoise(lam=(5, 50))),
        (
            {"type": "signal_dependent", "a": [0, 0.1], "b": [0, 0]},
            SignalDependentTrainingNoise(a=(0, 0.1), b=(0, 0)),
        ),
        ({"type": "impulse", "alpha": [0.1, 0.9]}, ImpulseTrainingNoise(alpha=(0.1, 0.9))),
        (None, None),
    ],
)
def test_each_kind_is_read(given: Any, expected: Any) -> None:
    assert data(given).noise == expected


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"type": "gaussian", "sigma": [0.2, 0.1]}, r"sigma: expected \[low, high\], got \[0.2, 0.1\]"),
        ({"type": "gaussian", "sigma": [0, 25]}, "less than or equal to 1"),
        ({"type": "gaussian", "sigma": [-0.1, 0]}, "greater than or equal to 0"),
        ({"type": "gaussian", "sigma": 0.1}, "sigma"),
        ({"type": "gaussian", "sigma": [0, 0.1], "binomial": 9}, "binomial.*less than or equal to 8"),
        ({"type": "gaussian", "sigma": [0, 0.1], "binomal": 1}, "did you mean 'binomial'"),
        ({"type": "poisson", "lam": [0, 1]}, "greater than 0"),
        ({"type": "signal_dependent", "a": [0, 0.1], "b": [0.2, 0.1]}, r"b: expected \[low, high\]"),
        ({"type": "gauss", "sigma": [0, 0.1]}, "'gaussian', 'poisson', 'signal_dependent', 'impulse'"),
    ],
)
def test_what_cannot_be_is_refused(noise: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        data(noise)


def plain(**changes: Any) -> TrainPlainDenoiserOptions:
    images = {"images": {"folder": "photos"}}
    return parse_options({"run_dir": "runs/x", "data": images} | changes, TrainPlainDenoiserOptions)


def test_a_clean_target_needs_noise_and_masked_pixels_do_not() -> None:
    assert plain(target="noise2void").data.noise is None
    with pytest.raises(OptionError, match=r"expected 'data.noise' with target 'clean'.*'noise2void'"):
        plain()
    with pytest.raises(OptionError, match=r"masked.*less than or equal to 0.05"):
        plain(target="noise2void", masked=0.2)


def test_any_degradation_makes_noise_where_no_law_is_needed() -> None:
    block = {"type": "degrade", "degrade": "canon_5d2"}
    options = plain(data={"images": {"folder": "photos"}, "noise": block})
    assert isinstance(options.data.noise, DegradeTrainingNoise)
    with pytest.raises(OptionError, match="'gaussian', 'poisson', 'signal_dependent', 'impulse'"):
        data(block)

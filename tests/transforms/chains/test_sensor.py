"""Noise as of cameras: variance by brightness, correlation of channels and of neighbours, against formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.noise import SensorStageOptions
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.sensor import SensorNoise
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn

SIDE = 256


def stage(**options: Any) -> SensorNoise:
    return SensorNoise(parse_options({"type": "sensor", **options}, SensorStageOptions))


def added(noise: SensorNoise, level: float, seed: int = 3) -> tuple[np.ndarray, dict[str, Tensor]]:
    """``(3, SIDE, SIDE)``: what is added to a flat image, and what was drawn."""
    seeds = torch.tensor([seed])
    params = drawn(noise, seeds)
    x = torch.full((1, 3, SIDE, SIDE), level)
    made = noise.on_image(x, params, Context(Size(8, 8), seeds, "noise", by_host=True))
    return (made - x)[0].double().numpy(), dict(params)


def test_keeps_the_contract_of_stages() -> None:
    check_stage(stage(sigma=[0.01, 0.1], luma_width=[0.2, 0.7], chroma_width=[0.2, 1.2]))
    check_aligned(stage(sigma=[0.001, 0.004]))


@pytest.mark.parametrize("level", [0.2, 1 / 3, 0.5, 0.9])
def test_variance_by_brightness_and_channel(level: float) -> None:
    noise, params = added(stage(sigma=0.02, luma_width=0.2, chroma_width=0.2), level)
    curve = np.interp(level, [0, 1 / 3, 2 / 3, 1], params["curve"][0].numpy())
    expected = 0.02 * curve * params["channels"][0].numpy()
    found = noise.std((1, 2))
    assert np.abs(found / expected - 1).max() < 5 / math.sqrt(2 * SIDE**2)
    assert params["curve"].max() == 1


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.8, 1.0])
def test_channels_correlate_by_what_they_share(shared: float) -> None:
    noise, _ = added(stage(sigma=0.02, shared=shared, luma_width=0.2, chroma_width=0.2), 0.5)
    found = np.corrcoef(noise.reshape(3, -1))
    assert np.abs(found - np.where(np.eye(3), 1, shared)).max() < 5 / SIDE


@pytest.mark.parametrize(("shared", "width"), [(1.0, 0.6), (1.0, 1.0), (0.0, 0.6), (0.0, 1.5)])
def test_neighbours_correlate_by_the_width_of_their_part(shared: float, width: float) -> None:
    widths = {"luma_width": width, "chroma_width": 0.2} if shared else {"luma_width": 0.2, "chroma_width": width}
    noise, _ = added(stage(sigma=0.02, shared=shared, **widths), 0.5)
    places = np.arange(-8, 9)
    taps = np.exp(-0.5 * (places / width) ** 2)
    expected = (taps[1:] * taps[:-1]).sum() / (taps**2).sum()
    found = [(plane[:, 1:] * plane[:, :-1]).mean() / (plane**2).mean() for plane in noise]
    assert np.abs(np.array(found) - expected).max() < 0.03


def test_draws() -> None:
    options = {"sigma": [0.01, 0.04], "weakest": 0.5, "channels": [0.8, 1.2], "shared": [0.1, 0.6]}
    params = drawn(stage(**options), torch.arange(20000))
    assert abs(float(params["sigma"].log().mean()) - math.log(0.02)) < 0.01  # uniform in the logarithm
    assert 0.8 <= float(params["channels"].min()) < 0.81
    assert 1.19 < float(params["channels"].max()) < 1.2
    assert 0.1 <= float(params["shared"].min()) < 0.11
    assert 0.5 <= float(params["curve"].min()) < 0.51
    assert (params["curve"].amax(1) == 1).all()

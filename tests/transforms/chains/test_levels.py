"""Levels, against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.exposure import adjust_gamma, rescale_intensity

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.levels import LevelsStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.levels import Levels
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn


def stage(**options: object) -> Levels:
    return Levels(parse_options({"type": "levels", **options}, LevelsStageOptions))


ALL = stage(in_black=[0, 0.1], in_white=[0.8, 1], gamma=[0.5, 2], out_black=[0, 0.2], out_white=[0.7, 1])


def test_keeps_the_contract_of_stages() -> None:
    check_stage(ALL)
    check_stage(stage(out_black=[0, 0.2], per_channel=True))
    check_aligned(stage(out_black=[0, 0.2], out_white=[0.6, 1]))


def test_pixels_of_skimage() -> None:
    x = np.random.default_rng(0).uniform(-0.1, 1.1, (2, 3, 9, 8)).astype(np.float32)
    params = drawn(ALL, torch.arange(2))
    made = ALL.on_canvas(Canvas(torch.from_numpy(x)), params, Context(Size(9, 8), torch.arange(2), "")).pixels
    for row in range(2):
        black, white, gamma, low, high = (float(value[row, 0]) for value in params.values())
        stretched = rescale_intensity(x[row], in_range=(black, white), out_range=(0, 1))
        expected = rescale_intensity(adjust_gamma(stretched, 1 / gamma), in_range=(0, 1), out_range=(low, high))
        np.testing.assert_allclose(made[row].numpy(), expected, atol=2e-6)


def test_channels_draw_together_or_apart() -> None:
    together, apart = (
        drawn(ALL, torch.arange(500)),
        drawn(stage(out_black=[0, 0.2], per_channel=True), torch.arange(500)),
    )
    assert all(bool((value == value[:, :1]).all()) for value in together.values())
    assert bool((apart["out_black"][:, 0] != apart["out_black"][:, 1]).all())
    # The law of gamma is uniform in the logarithm: as often brighter as darker between 1/2 and 2.
    assert abs(float((together["gamma"][:, 0] > 1).float().mean()) - 0.5) < 0.08
    # Another option does not change what the rest draws.
    torch.testing.assert_close(apart["out_black"][:, 0], together["out_black"][:, 0])


def test_black_above_white() -> None:
    with pytest.raises(OptionError, match="below those of in_white"):
        stage(in_black=[0, 0.5], in_white=[0.4, 1])

"""Rounding to few levels, against NumPy."""

from __future__ import annotations

import numpy as np
import torch

from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.quantise import Quantise
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn


def test_keeps_the_contract_of_stages() -> None:
    stage = Quantise(QuantiseStageOptions(levels=(2, 64)))
    check_stage(stage)
    check_aligned(stage)


def test_levels_are_numpys() -> None:
    x = torch.rand(5, 3, 8, 9) * 1.4 - 0.2
    levels = torch.tensor([2, 3, 16, 100, 256])
    stage = Quantise(QuantiseStageOptions())
    found = stage.on_canvas(Canvas(x), {"levels": levels}, Context(Size(8, 9), torch.arange(5), "")).pixels
    for row, count in enumerate(levels.tolist()):
        steps = np.linspace(0, 1, count)
        nearest = steps[np.abs(x[row].numpy()[..., None] - steps).argmin(-1)]
        assert np.abs(found[row].numpy() - nearest).max() < 1e-6


def test_every_number_of_levels_is_drawn_alike() -> None:
    stage = Quantise(QuantiseStageOptions(levels=(4, 7)))
    counts = torch.bincount(drawn(stage, torch.arange(40000))["levels"], minlength=8)[4:]
    assert counts.sum() == 40000
    assert bool(((counts - 10000).abs() < 4 * 87).all()), counts  # four standard deviations of a binomial law

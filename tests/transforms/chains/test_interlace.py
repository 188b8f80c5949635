"""Faults of interlaced video, against lines moved by SciPy and lines that are copied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from synthpipe.config.stages.interlace import InterlaceKinds, InterlaceStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.interlace import Interlace
from tests.transforms.chains.stage_battery import check_stage, drawn, photo_like

CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")
BOTH = InterlaceStageOptions(kinds=InterlaceKinds(combing=1, doubling=1), shift=(-9, 9))


def both_ways(stage, x, params):
    return stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels


def settings(**values):
    return {name: torch.tensor([value]) for name, value in values.items()}


def test_keeps_the_contract_of_stages():
    check_stage(Interlace(BOTH), tolerance=0, mean_tolerance=0)
    assert not Interlace(BOTH).aligned


@pytest.mark.parametrize("field", [0, 1])
@pytest.mark.parametrize("shift", [-5, 0, 3, 99])
def test_combing_moves_the_lines_of_one_field(field, shift):
    x = photo_like(21, 30, 1)
    moved = ndimage.shift(x.numpy(), (0, 0, 0, shift), order=0, mode="nearest")
    expected = np.where((np.arange(21) % 2 == field)[:, None], moved, x.numpy())
    for found in both_ways(Interlace(BOTH), x, settings(kind=0, field=field, shift=shift)):
        assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("field", [0, 1])
def test_doubling_shows_the_other_field_twice(field):
    x = photo_like(21, 30, 1)
    kept = x[:, :, 1 - field :: 2].numpy()
    twice = np.repeat(kept, 2, axis=2)
    expected = np.concatenate([kept[:, :, :1], twice], 2)[:, :, :21] if field == 0 else twice[:, :, :21]
    for found in both_ways(Interlace(BOTH), x, settings(kind=1, field=field, shift=0)):
        assert np.array_equal(found.numpy()[:, :, : expected.shape[2]], expected)
    for found in both_ways(Interlace(BOTH), x[:, :, :1], settings(kind=1, field=field, shift=0)):
        assert torch.equal(found, x[:, :, :1])


def test_faults_are_drawn_by_their_weights():
    stage = Interlace(InterlaceStageOptions(kinds=InterlaceKinds(combing=3, doubling=1), shift=(-1, 1)))
    params = drawn(stage, torch.arange(20000))
    assert abs(float(params["kind"].double().mean()) - 0.25) < 0.0125
    assert abs(float(params["field"].double().mean()) - 0.5) < 0.0142
    combing = params["shift"][params["kind"] == 0]
    assert bool(((torch.bincount(combing + 1, minlength=3) - len(combing) / 3).abs() < 240).all())
    assert bool((params["shift"][params["kind"] == 1] == 0).all())

"""Blocks of one colour, against scikit-image and by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import block_reduce
from torch.testing import assert_close

from synthpipe.config.stages.pixelate import PixelateKinds, PixelateStageOptions
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.pixelate import Pixelate
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")
BOTH = PixelateStageOptions(kinds=PixelateKinds(average=1, nearest=1), block=(2, 7))


def both_ways(stage, x, params):
    return stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels


def test_keeps_the_contract_of_stages():
    check_stage(Pixelate(BOTH), tolerance=1e-6)
    check_stage(Pixelate(PixelateStageOptions(block=(60, 90))), tolerance=1e-6)


def test_where_it_is_aligned():
    assert not Pixelate(BOTH).aligned
    for options in (
        PixelateStageOptions(block=(2, 6)),
        PixelateStageOptions(kinds=PixelateKinds(nearest=1), block=(3, 3)),
    ):
        stage = Pixelate(options)
        assert stage.aligned
        # In blocks that begin anywhere, each equally often, the average result is symmetric.
        check_aligned(stage, draws=400)


@pytest.mark.parametrize("block", [2, 3, 5])
def test_means_are_scikit_image_s(block):
    x = photo_like(30, 60, 2)
    stage = Pixelate(PixelateStageOptions(block=(block, block)))
    params = {**drawn(stage, torch.tensor([0])), "begin": torch.tensor([[0, 0]])}
    means = block_reduce(x[0].double().numpy(), (1, block, block), np.mean)
    expected = np.kron(means, np.ones((1, block, block)))
    for found in both_ways(stage, x, params):
        assert_close(found[0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["average", "nearest"])
def test_blocks_that_begin_outside_have_what_is_inside(kind):
    x = photo_like(11, 13, 2)
    stage = Pixelate(PixelateStageOptions(kinds=PixelateKinds(**{kind: 1}), block=(4, 4)))
    params = {**drawn(stage, torch.tensor([0])), "begin": torch.tensor([[3, 1]])}
    expected = torch.empty_like(x)
    for top in range(-3, 11, 4):
        for left in range(-1, 13, 4):
            rows, columns = slice(max(top, 0), min(top + 4, 11)), slice(max(left, 0), min(left + 4, 13))
            if kind == "average":
                expected[..., rows, columns] = x[..., rows, columns].mean((2, 3), keepdim=True)
            else:
                row, column = min(max(top + 2, 0), 10), min(max(left + 2, 0), 12)
                expected[..., rows, columns] = x[..., row : row + 1, column : column + 1]
    for found in both_ways(stage, x, params):
        assert_close(found, expected, atol=1e-6, rtol=0)


def test_blocks_and_their_begin_are_drawn_alike():
    params = drawn(Pixelate(BOTH), torch.arange(30000))
    counts = torch.bincount(params["block"], minlength=8)[2:]
    assert bool(((counts - 5000).abs() < 4 * 65).all()), counts
    begin = params["begin"][params["block"] == 4]
    for dim in (0, 1):
        counts = torch.bincount(begin[:, dim], minlength=4)
        assert bool(((counts - len(begin) / 4).abs() < 4 * 31).all()), counts
    assert abs(float(params["kind"].double().mean()) - 0.5) < 0.015

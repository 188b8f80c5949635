"""Unsharp masking against BasicSR's, and by its formula with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from synthpipe.basicsr_plugin.compat import prepare
from synthpipe.config.stages.halo import HaloStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.halo import Halo
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

prepare()
from basicsr.utils.img_process_util import USMSharp  # noqa: E402

CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")
SOME = HaloStageOptions(amount=(0.2, 2), sigma=(0.5, 6), threshold=(0, 12))


@pytest.mark.parametrize("options", [HaloStageOptions(), SOME, HaloStageOptions(sigma=(0.5, 3), threshold=None)])
def test_keeps_the_contract_of_stages(options):
    stage = Halo(options)
    check_stage(stage)
    check_aligned(stage)


@pytest.mark.parametrize("seed", range(4))
def test_the_default_is_real_esrgan_s(seed):
    x = photo_like(80, 96, seed)
    stage = Halo(HaloStageOptions())
    expected = USMSharp()(x)
    assert float((expected - x).abs().max()) > 0.02
    params = drawn(stage, torch.tensor([seed]))
    assert_close(stage.on_image(x, params, CONTEXT), expected, atol=1e-5, rtol=0)
    assert_close(stage.on_canvas(Canvas(x), params, CONTEXT).pixels, expected, atol=1e-5, rtol=0)


def test_nothing_is_done_below_the_threshold():
    x = 0.5 + 0.001 * torch.randn(1, 3, 60, 60)
    stage = Halo(HaloStageOptions())
    params = drawn(stage, torch.tensor([0]))
    assert torch.equal(stage.on_image(x, params, CONTEXT), x)
    assert_close(stage.on_canvas(Canvas(x), params, CONTEXT).pixels, x, atol=1e-7, rtol=0)


def test_plain_overshoot_by_its_formula():
    x = photo_like(40, 50, 3)
    stage = Halo(HaloStageOptions(amount=1.5, sigma=2, threshold=None))
    blur = np.stack([ndimage.gaussian_filter(p, 2.0, mode="mirror", radius=7) for p in x[0].double().numpy()])
    expected = np.clip(x[0].double().numpy() * 2.5 - 1.5 * blur, 0, 1)
    found = stage.on_image(x, drawn(stage, torch.tensor([0])), CONTEXT)
    assert_close(found[0].double(), torch.from_numpy(expected), atol=5e-6, rtol=0)


def test_an_edge_overshoots_on_both_sides():
    x = torch.full((1, 3, 32, 32), 0.3)
    x[..., 16:] = 0.7
    stage = Halo(HaloStageOptions(amount=1, sigma=1.5, threshold=None))
    made = stage.on_image(x, drawn(stage, torch.tensor([0])), CONTEXT)
    assert float(made[..., 16].mean()) > 0.8
    assert float(made[..., 15].mean()) < 0.2


def test_images_that_the_blur_covers_are_refused():
    stage = Halo(HaloStageOptions())
    with pytest.raises(OptionError, match="halo has kernels of up to 51x51 pixels, and images of down to 12x40"):
        stage.extent(Extent(Size(12, 40), Size(40, 40)), Size(10, 10))

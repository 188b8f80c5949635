"""The guided filter by its equations with SciPy; networks as they are elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.stages.denoise import DenoiseStageOptions
from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.chains.build import build_stage
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.denoise import DenoiseStage
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")


def test_keeps_the_contract_of_stages():
    for options in (DenoiseStageOptions(), DenoiseStageOptions(radius=(1, 8), sigma=(0.01, 0.3), strength=(0.2, 1))):
        stage = DenoiseStage(options)
        check_stage(stage, tolerance=1e-4, mean_tolerance=1e-5, apart=2e-5)
        check_aligned(stage)


@pytest.mark.parametrize(("radius", "sigma", "strength"), [(1, 0.02, 1), (3, 0.1, 1), (4, 0.05, 0.4), (9, 0.2, 1)])
def test_the_guided_filter_s_equations(radius, sigma, strength):
    x = photo_like(40, 52, radius)

    def mean(plane):
        return ndimage.uniform_filter(plane, 2 * radius + 1, mode="mirror")

    expected = []
    for plane in x[0].double().numpy():
        variance = mean(plane**2) - mean(plane) ** 2
        a = variance / (variance + sigma**2)
        smooth = mean(a) * plane + mean((1 - a) * mean(plane))
        expected.append(plane + strength * (smooth - plane))
    stage = DenoiseStage(DenoiseStageOptions(radius=radius, sigma=sigma, strength=strength))
    params = drawn(stage, torch.tensor([0]))
    for found in (stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels):
        assert_close(found[0].double(), torch.from_numpy(np.stack(expected)), atol=2e-5, rtol=0)


def test_texture_goes_and_edges_stay():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((1, 3, 64, 64), 0.2)
    x[..., 32:] = 0.8
    noisy = x + 0.03 * torch.randn(x.shape, generator=generator)
    stage = DenoiseStage(DenoiseStageOptions(radius=4, sigma=0.1))
    made = stage.on_image(noisy, drawn(stage, torch.tensor([0])), CONTEXT)
    assert float((made - x)[..., :24].std()) < 0.01
    # The mean over the same window would leave a step of 0.6 / 9.
    assert float(made[..., 32].mean() - made[..., 31].mean()) > 0.5


def test_networks_are_what_they_are_elsewhere():
    stage = build_stage(DenoiseStageOptions(weights="map_small", sigma=(0.05, 0.1), strength=(0.5, 1)))
    check_stage(stage, one_size=True, tolerance=1e-4, apart=1e-4)
    x = photo_like(40, 44, 1)
    params = drawn(stage, torch.tensor([3]))
    denoised = checkpoints.load("map_small").denoise(x, params["sigma"].float())
    expected = x + float(params["strength"]) * (denoised - x)
    assert_close(stage.on_image(x, params, CONTEXT), expected, atol=1e-5, rtol=0)


def test_what_cannot_be_is_refused_in_words():
    network = build_stage(DenoiseStageOptions(weights="map_small"))
    several = Extent(Size(20, 20), Size(40, 40))
    with pytest.raises(OptionError, match=r"one size, and has \(20, 20\) to \(40, 40\)"):
        network.extent(several, Size(20, 20))
    guided = DenoiseStage(DenoiseStageOptions(radius=(1, 32)))
    assert guided.extent(several, Size(20, 20)) == several
    with pytest.raises(OptionError, match="65x65 pixels, and images of down to 16x20"):
        guided.extent(Extent(Size(16, 20), Size(40, 40)), Size(20, 20))
    with pytest.raises(ShapeError, match="expected a denoiser, got Linear"):
        DenoiseStage(DenoiseStageOptions(), torch.nn.Linear(1, 1))

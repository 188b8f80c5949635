"""Saturation, against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from synthpipe.config.stages.saturation import SaturationStageOptions
from synthpipe.images import luma
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.saturation import Saturation
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn

STAGE = Saturation(SaturationStageOptions(factor=(0.0, 2.0)))


def test_keeps_the_contract_of_stages() -> None:
    check_stage(STAGE)
    check_aligned(STAGE)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_pixels_of_pillow(factor: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(factor), dtype=float)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    made = STAGE.on_canvas(Canvas(x), {"factor": torch.tensor([factor]).double()}, Context(Size(20, 30), x, ""))
    found = made.pixels[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    assert np.abs(found - expected).max() <= 1.6  # Pillow rounds the grey and the result
    torch.testing.assert_close(luma(made.pixels), luma(x), atol=1e-6, rtol=0)


def test_draws() -> None:
    factor = drawn(STAGE, torch.arange(20000))["factor"]
    assert 0 <= float(factor.min()) < 0.01
    assert 1.99 < float(factor.max()) < 2
    assert abs(float(factor.mean()) - 1) < 0.02

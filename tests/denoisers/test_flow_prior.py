"""The flow-prior denoiser as a denoiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.denoisers import FlowPriorDenoiser
from synthpipe.errors import ShapeError
from tests.denoiser_contract import check_denoiser


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contract_of_denoisers_holds(tmp_path: Path, channels: int) -> None:
    check_denoiser(FlowPriorDenoiser(channels, width=4, depth=3), tmp_path)


def test_settings_that_make_no_network_are_refused() -> None:
    with pytest.raises(ShapeError, match="channels=2"):
        FlowPriorDenoiser(channels=2)
    with pytest.raises(ShapeError, match="depth=1"):
        FlowPriorDenoiser(depth=1)


def middles(shared: Path, side: int = 96) -> Tensor:
    """``(6, 3, side, side)`` of photographs that no training saw."""
    files = sorted((shared / "data" / "clean_test").glob("cbsd68_*.png"))[::4]
    assert len(files) == 6
    images = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255 for file in files]
    return torch.stack([x[:, 100 : 100 + side, 100 : 100 + side] for x in images])


def test_the_shipped_weights_gain_at_every_level(shared: Path) -> None:
    model = checkpoints.load("flow_prior_small", kind="flow_prior")
    assert isinstance(model, FlowPriorDenoiser)
    clean = middles(shared)
    for sigma, due in ((5, 1.0), (15, 4.5), (25, 6.5), (50, 8.5)):  # the page's check 11
        level = torch.full((len(clean),), sigma / 255)
        noisy = clean + level[:, None, None, None] * torch.randn(clean.shape)
        told, guessed = model.denoise(noisy, level).clamp(0, 1), model.denoise(noisy).clamp(0, 1)
        assert gain(told, noisy, clean) > due
        assert gain(guessed, noisy, clean) > due - 0.7  # the level estimated from 96x96 pixels


def gain(x: Tensor, noisy: Tensor, clean: Tensor) -> float:
    """Mean gain in PSNR, in dB."""
    errors = [(image - clean).square().flatten(1).mean(1) for image in (noisy, x)]
    return float(10 * (errors[0] / errors[1]).log10().mean())

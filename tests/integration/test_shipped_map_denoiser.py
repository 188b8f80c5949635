"""The shipped MAP denoiser on held-out pictures; `recipes/map_small/evaluate.py` measures all pictures and levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from synthpipe import checkpoints
from synthpipe.denoisers import MapDenoiser, PlainDenoiser
from synthpipe.denoisers.map_denoiser import step_mismatch

SIDE = 64
LEVELS = (5 / 255, 11 / 255, 25 / 255)


@pytest.fixture(scope="module")
def clean(shared: Path) -> Tensor:
    """The middles of twelve pictures, ``(12, 3, SIDE, SIDE)``."""
    paths = sorted((shared / "data" / "clean_test").glob("[ck]*.png"))[::3][:12]
    middles = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
        middles.append(pixels[top : top + SIDE, left : left + SIDE])
    return torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def model() -> MapDenoiser:
    loaded = checkpoints.load("map_small", kind="map_denoiser").requires_grad_(False)
    assert isinstance(loaded, MapDenoiser)
    return loaded


@pytest.fixture(scope="module")
def least_squares() -> PlainDenoiser:
    loaded = checkpoints.load("mmse_small", kind="plain_denoiser").requires_grad_(False)
    assert isinstance(loaded, PlainDenoiser)
    return loaded


def noisy(clean: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return clean + sigma * noise, torch.full((len(clean),), sigma)


def test_no_layer_is_dead(model: MapDenoiser, clean: Tensor) -> None:
    """Acceptance check 1: the authors' grey weights change nothing, with all units of most layers at 0."""
    shares: list[float] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shares.append(float((output > 0).float().mean()))

    for conv in model.net.convs:
        conv.register_forward_hook(count)
    for sigma in LEVELS:
        v, level = noisy(clean, sigma)
        for x in (v, clean):
            assert float((model(x, level) - x).square().mean().sqrt()) > 0.2 / 255
    assert len(shares) == 2 * len(LEVELS) * (model.reach - 1)
    assert min(shares) > 0.05


def test_its_step_is_the_implicit_one(model: MapDenoiser, least_squares: PlainDenoiser, clean: Tensor) -> None:
    """Acceptance check 4: along the prior's gradient where it arrives; the least-squares denoiser's step is not."""
    generator = torch.Generator().manual_seed(2)

    def implicit(x: Tensor, v: Tensor, level: Tensor) -> float:
        s = model.smoothing * level
        wide = s[:, None, None, None]

        def score() -> Tensor:
            # A denoiser knows the noise only that it is told: its mean step under fresh noise is the gradient.
            draws = wide * torch.randn(8, *x.shape, generator=generator)
            return torch.stack([least_squares(x + draw, s) - x for draw in draws]).mean(0) / wide.square()

        return float(step_mismatch(x, v, score(), level, score()).mean())

    for sigma in LEVELS[1:]:
        v, level = noisy(clean[::2], sigma)
        assert implicit(model(v, level), v, level) <= 0.7 * implicit(least_squares(v, level), v, level)


def test_it_denoises_less_than_least_squares_and_more_than_the_papers_short_step(
    model: MapDenoiser, least_squares: PlainDenoiser, clean: Tensor
) -> None:
    """In flat regions the paper's step, smoothing 1, halves the noise: 6 dB at most, and none where there is detail."""
    for sigma in LEVELS:
        v, level = noisy(clean, sigma)
        gain = psnr(model(v, level), clean) - psnr(v, clean)
        assert gain > 0.5 * (psnr(least_squares(v, level), clean) - psnr(v, clean))
    assert gain > 6  # at the highest level


def psnr(x: Tensor, clean: Tensor) -> float:
    return float((-10 * (x.clamp(0, 1) - clean).square().mean((1, 2, 3)).log10()).mean())

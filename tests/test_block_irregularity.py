"""Regular texture is no noise: analytic patterns against noise whose spectrum is known to be smooth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from synthpipe.flat_noise.irregularity import block_irregularity
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from tests.test_flat_noise import autoregressive
from tests.transforms.test_denoise_by_image import Zero

SIDE = 128


def pattern(name: str, period: float, angle: float = 0.3) -> Tensor:
    """``(H, W)`` in [-1, 1]; edges are means over 4x4 parts of a pixel."""
    line = (torch.arange(4 * SIDE) + 0.5) / 4
    y, x = torch.meshgrid(line, line, indexing="ij")
    along = 2 * math.pi / period * (x * math.cos(angle) + y * math.sin(angle))
    across = 2 * math.pi / period * (y * math.cos(angle) - x * math.sin(angle))
    made = {
        "waves": torch.sin(along),
        "stripes": torch.sign(torch.sin(along)),
        "crossed": (torch.sin(along) + torch.sin(across)) / 2,
        "checks": torch.sign(torch.sin(along) * torch.sin(across)),
        "screen": torch.sign(torch.cos(along) + torch.cos(across) + 0.5),
    }[name]
    return made.reshape(SIDE, 4, SIDE, 4).mean((1, 3))


def rounded(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round() / 255


def roughness_of(x: Tensor, grey: bool = False) -> float:
    found = block_irregularity(x, grey)
    assert found is not None
    return found.roughness


PATTERNS = [("waves", 3.4), ("waves", 5.1), ("stripes", 4.3), ("crossed", 4.7), ("checks", 5.3), ("screen", 3.6)]


@pytest.mark.parametrize(("name", "period"), PATTERNS)
@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.0, -0.4, 0.7)])
def test_a_regular_pattern_is_rough_and_stays_within_45_db_of_itself(
    name: str, period: float, tint: tuple[float, ...]
) -> None:
    """Told as white or correlated noise of up to 40 of 255 with a certainty near 1; a network that takes all away."""
    x = rounded(0.5 + 30 / 255 * pattern(name, period) * torch.tensor(tint)[:, None, None])
    assert roughness_of(x) > 0.4
    out = DenoiseByImage(Zero()).clean(x[None], rounded=False)
    assert float(-10 * (out - x).double().square().mean().log10()) >= 45


@pytest.mark.parametrize("sigma", [4, 20])
@pytest.mark.parametrize("rho", [0.0, 0.4, 0.7, 0.85])
def test_noise_has_a_smooth_spectrum_whichever_way_neighbours_hang_together(rho: float, sigma: float) -> None:
    white = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for across, down in ((rho, rho), (rho, 0.2)):
        found = block_irregularity(rounded(0.5 + sigma / 255 * autoregressive(white, across, down)), grey=False)
        assert found is not None
        assert found.roughness < 0.1
        assert found.unevenness < 0.1


def test_noise_that_is_stronger_in_places_is_uneven_and_as_smooth() -> None:
    white = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    strength = (torch.arange(SIDE) // 16 % 2 + 1.0)[:, None] * (torch.arange(SIDE) // 16 % 3 + 1.0)
    even, uneven = (block_irregularity(0.5 + 4 / 255 * x, grey=False) for x in (white, strength * white))
    assert even is not None
    assert uneven is not None
    assert uneven.unevenness > even.unevenness + 0.03
    assert uneven.roughness < 0.1


def test_of_noise_with_an_echo_it_is_what_the_spectrum_says() -> None:
    """Noise plus itself 4 pixels further on: a wave w of a block has the power 2 + 2 sum_i w_i w_(i+4), exactly."""
    size, echo = 8, 4
    waves = np.cos(math.pi * (np.arange(size) + 0.5) * np.arange(size)[:, None] / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    v, u = np.divmod(np.arange(size * size), size)
    power = 2 + 2 * (waves[:, :-echo] * waves[:, echo:]).sum(1)[u]
    down, across = np.cos(math.pi * v / size), np.cos(math.pi * u / size)
    smooth = np.stack([np.ones(64), down, across, np.log(1.2 - down), np.log(1.2 - across), down * across], 1)
    used = u + v > 1
    logs, smooth = np.log(power[used]), smooth[used]
    away = logs - smooth @ np.linalg.lstsq(smooth, logs, rcond=None)[0]
    white = torch.randn(3, 3 * SIDE, 3 * SIDE + echo, generator=torch.Generator().manual_seed(1))
    rough = roughness_of(rounded(0.5 + 10 / 255 * (white[..., echo:] + white[..., :-echo])))
    assert rough == pytest.approx((away**2).sum() / (61 - 6), rel=0.15)


def test_a_clipped_image_says_nothing() -> None:
    assert block_irregularity(torch.zeros(3, 64, 64), grey=True) is None

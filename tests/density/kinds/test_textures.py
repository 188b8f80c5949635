"""What tells texture from noise, against closed forms of normal noise and drawn texture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.special import digamma
from torch import Tensor

from synthpipe.density.kinds.spectra import colour_planes
from synthpipe.density.kinds.textures import TEXTURE_NAMES, TileTextures

#: Coefficients of an 8x8 block whose radius is above 4.3, and above 3.3 beside either axis.
FINE = sum(math.hypot(y, x) > 4.3 for y in range(8) for x in range(8))
DIRECTED = sum(math.hypot(y, x) > 3.3 and x > y + 1 for y in range(8) for x in range(8))


def features(tiles: Tensor) -> dict[str, Tensor]:
    return dict(zip(TEXTURE_NAMES, TileTextures()(tiles, colour_planes(tiles)[0]).unbind(1), strict=True))


def noise(shared: float, count: int = 48) -> Tensor:
    """White noise of 8 grey levels around the middle; channels share that part of the variance."""
    generator = torch.Generator().manual_seed(3)
    own = torch.randn(count, 3, 64, 64, generator=generator)
    common = torch.randn(count, 1, 64, 64, generator=generator)
    return 0.5 + 8 / 255 * (math.sqrt(shared) * common + math.sqrt(1 - shared) * own)


def test_white_noise_is_as_even_peaked_and_directed_as_normal_numbers_are() -> None:
    found = {name: float(values.mean()) for name, values in features(noise(1.0)).items()}
    # Of n squares of normal numbers: log of the mean less the mean of logs, and fourth moment over squared second.
    uneven = digamma(FINE / 2) - math.log(FINE / 2) - (digamma(0.5) - math.log(0.5))
    ratio = np.random.default_rng(0).chisquare(DIRECTED, (2, 200_000))
    for part in ("flat", "half"):
        assert found[f"unevenness_{part}"] == pytest.approx(uneven, abs=0.15)
        assert found[f"peakedness_{part}"] == pytest.approx(3 * FINE / (FINE + 2), rel=0.1)
        assert found[f"direction_{part}"] == pytest.approx(np.abs(np.log(ratio[0] / ratio[1])).mean(), rel=0.1)
    for name in ("fine_follows_low", "fine_follows_middle"):
        assert abs(found[name]) < 0.1


@pytest.mark.parametrize("shared", [0.0, 0.4, 1.0])
def test_channels_are_as_alike_as_their_noise_is(shared: float) -> None:
    found = features(noise(shared))
    for channels in ("red_green", "green_blue"):
        assert float(found[f"{channels}_alike_all"].mean()) == pytest.approx(shared, abs=0.03)
        assert float(found[f"{channels}_alike_flat"].mean()) == pytest.approx(shared, abs=0.2)


def test_quantiles_are_those_of_the_blocks() -> None:
    tiles = noise(0.5, count=1)
    luma = colour_planes(tiles)[0][0, 0].double().numpy()
    fine = []
    for top in range(0, 57, 4):
        for left in range(0, 57, 4):
            power = dctn(luma[top : top + 8, left : left + 8], norm="ortho") ** 2
            fine.append(np.log(np.mean([power[y, x] for y in range(8) for x in range(8) if math.hypot(y, x) > 4.3])))
    fine.sort()
    found = features(tiles)
    for share in (2, 25, 75, 95):
        expected = fine[int(share / 100 * 224)] - fine[112]
        assert float(found[f"fine_quantile_{share}"]) == pytest.approx(expected, abs=0.01)


def test_texture_has_directions_places_and_one_colour() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    stripes = 0.05 * torch.sin(2.6 * x) + 0.2 * torch.sin(0.7 * x)
    everywhere = (0.5 + stripes).expand(1, 3, 64, 64)
    above = torch.where(y < 32, everywhere, torch.tensor(0.5))  # the lower half is flat
    of_noise = features(noise(0.0))
    assert float(features(everywhere)["direction_half"]) > 3 * float(of_noise["direction_half"].max())
    found = features(above)
    assert float(found["fine_follows_low"]) > 0.8 > 0.2 > float(of_noise["fine_follows_low"].max())
    assert float(found["cells_differ"]) > 2 * float(of_noise["cells_differ"].max())


def test_nothing_is_said_of_one_colour() -> None:
    found = features(torch.full((1, 3, 64, 64), 0.4))
    assert all(bool(torch.isfinite(values).all()) for values in found.values())
    assert abs(float(found["fine_follows_low"])) < 0.01
    assert abs(float(found["red_green_alike_all"])) < 0.01


def test_grey_tiles_are_those_of_three_equal_channels() -> None:
    grey = noise(1.0, count=2)[:, :1]
    one, three = features(grey), features(grey.expand(-1, 3, -1, -1))
    for name in TEXTURE_NAMES:
        torch.testing.assert_close(one[name], three[name], rtol=1e-3, atol=1e-3)

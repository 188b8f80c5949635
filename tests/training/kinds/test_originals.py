"""Other originals: crisper ones have stronger steps between neighbours than the picture has, softer ones weaker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from synthpipe.config.calibration import KindCalibrationOptions
from synthpipe.density.kinds import KINDS
from synthpipe.training.kinds import calibrate
from synthpipe.training.kinds.mixtures import Mixture
from synthpipe.training.kinds.originals import draw_original

COUNT = 200


def picture() -> torch.Tensor:
    """``(3, 150, 180)``, multiples of 1/255: soft forms, as many of each size."""
    rng = np.random.default_rng(0)
    waves = sum(gaussian_filter(rng.normal(size=(150, 180)), size, mode="wrap") * size for size in (1.0, 2, 4, 8))
    levels = (128 + 30 * waves).round().clip(20, 235)
    return torch.from_numpy(levels / 255).float().expand(3, -1, -1)


def step(image: torch.Tensor) -> float:
    """Mean step between neighbours."""
    return float(image.diff(dim=2).abs().mean())


def test_originals_are_crisper_or_softer_than_the_picture_as_they_say() -> None:
    image = picture()
    drawn = [draw_original(image, seed) for seed in range(COUNT)]
    for original in drawn:
        # The weakest blur changes less than half a level.
        assert step(original.image) <= step(image) if original.soft else step(original.image) > step(image)
        levels = 255 * original.image
        assert torch.equal(levels.round() / 255, original.image)
        assert float(levels.min()) >= 0
        assert float(levels.max()) <= 255
    smaller = [one for one in drawn if one.image.shape[1] < 150]
    larger = [one for one in drawn if one.image.shape[1] > 150]
    assert min(one.image.shape[1] for one in smaller) == 100  # no smaller, though up to 2.2 is drawn
    assert max(one.image.shape[1] for one in larger) <= 195
    assert all(one.soft for one in larger)
    assert not any(one.soft for one in smaller)
    # 40 % are reduced, 22 % softer; the limits are three standard deviations of 200 draws.
    assert 0.29 < len(smaller) / COUNT < 0.51
    assert 0.13 < sum(one.soft for one in drawn) / COUNT < 0.31


def test_a_seed_is_an_original() -> None:
    one, again, other = (draw_original(picture(), seed).image for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("mixtures", [3, 103])
def test_copies_of_originals_have_draws_of_their_own(mixtures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more other copies than the number from which theirs begin."""
    seeds: list[int] = []

    def draw(image: torch.Tensor, seed: int, *_: Any) -> Mixture:
        seeds.append(seed)
        none = torch.zeros(len(KINDS))
        return Mixture(image[None], none.long(), "", none)

    monkeypatch.setattr(calibrate, "draw_mixture", draw)
    options = KindCalibrationOptions(mixtures=mixtures, crisp=4)
    assert len([*calibrate._mixtures(picture(), "a.png", (), options)]) == mixtures + 4
    assert len({*seeds}) == mixtures + 4

"""Synthetic corruptions against SciPy, closed forms, and what they promise about their randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.corruptions import FAMILIES, Corruption, corrupt, draw_corruption
from synthpipe.transforms.graphics import draw_page, draw_screen
from synthpipe.transforms.jpeg import jpeg_round_trip


def picture(height: int = 40, width: int = 52, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)


@given(st.sampled_from(FAMILIES), st.integers(0, 2**60))
def test_every_corruption_is_an_8_bit_image_and_a_function_of_what_was_drawn(family: str, seed: int) -> None:
    drawn = draw_corruption(family, torch.Generator().manual_seed(seed))
    assert drawn == draw_corruption(family, torch.Generator().manual_seed(seed))
    x = picture()
    before = x.clone()
    out = corrupt(x, [drawn])
    assert torch.equal(x, before)
    assert out.shape == x.shape
    torch.testing.assert_close((out * 255).round() / 255, out, atol=1e-7, rtol=0)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert torch.equal(out, corrupt(x, [drawn]))


def test_neighbours_in_the_batch_change_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    drawn = [draw_corruption(family, generator) for family in (*FAMILIES, *FAMILIES)]
    x = torch.cat([picture(seed=place) for place in range(len(drawn))])
    alone = torch.cat([corrupt(x[place : place + 1], [one]) for place, one in enumerate(drawn)])
    assert torch.equal(corrupt(x, drawn), alone)


@pytest.mark.parametrize("sigma", [0.6, 1.3, 2.7])
def test_blur_is_scipys_gaussian(sigma: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the peer")
    x = picture()
    ours = corrupt(x, [Corruption("blur", sigma, 0.0, 0)])[0].numpy()
    peer = ndimage.gaussian_filter(x[0].double().numpy(), (0, sigma, sigma), mode="nearest", truncate=4)
    assert np.abs(ours - peer).max() < 2.5 / 255  # rounding, and the kernel's cut tails


def test_jpeg_is_the_round_trip_at_that_quality() -> None:
    x = picture()
    ours = corrupt(x, [Corruption("jpeg", 23.4, 0.0, 0)])
    assert torch.equal(ours, jpeg_round_trip(x, torch.tensor([23])))


@pytest.mark.parametrize("variant", [0.1, 0.5, 0.9])
def test_noise_has_its_standard_deviation(variant: float) -> None:
    x = torch.full((1, 3, 200, 200), 0.5)
    noise = 255 * (corrupt(x, [Corruption("noise", 12.0, variant, 7)]) - x)
    assert float(noise.std()) == pytest.approx(12, rel=0.05)
    neighbours = torch.corrcoef(torch.stack([noise[0, 1, :, 1:].flatten(), noise[0, 1, :, :-1].flatten()]))[0, 1]
    channels = torch.corrcoef(torch.stack([noise[0, 0].flatten(), noise[0, 1].flatten()]))[0, 1]
    assert (float(channels) > 0.95) == (variant < 0.3)  # one noise for all channels
    assert (float(neighbours) > 0.3) == (variant > 0.65)  # correlated


def test_enlargement_keeps_coarse_and_loses_fine_content() -> None:
    fine = 0.5 + 0.3 * (-1.0) ** torch.arange(64).expand(1, 3, 64, 64)
    out = corrupt(fine, [Corruption("upscale", 2.0, 0.0, 0)])
    assert float((out - 0.5).abs()[..., 8:-8].max()) < 0.05
    smooth = picture(64, 64)
    assert float((corrupt(smooth, [Corruption("upscale", 2.0, 0.0, 0)]) - smooth).abs().mean()) < 0.01


@given(st.integers(0, 2**60), st.integers(1, 70), st.integers(1, 70))
def test_drawn_pictures_have_any_size_and_one_seed(seed: int, height: int, width: int) -> None:
    for draw in (draw_screen, draw_page):
        first = draw(height, width, torch.Generator().manual_seed(seed))
        assert first.shape == (3, height, width)
        assert 0 <= float(first.min()) <= float(first.max()) <= 1
        assert torch.equal(first, draw(height, width, torch.Generator().manual_seed(seed)))


def test_drawn_pictures_differ_and_replace_the_photograph() -> None:
    x = picture(64, 64).expand(8, -1, -1, -1)
    generator = torch.Generator().manual_seed(5)
    out = corrupt(x, [draw_corruption("screen", generator) for _ in range(8)])
    assert len({tile.numpy().tobytes() for tile in out}) == 8
    assert all(
        abs(float(torch.corrcoef(torch.stack([tile.flatten(), x[0].flatten()]))[0, 1].nan_to_num())) < 0.6
        for tile in out
    )


def test_refusals() -> None:
    with pytest.raises(OptionError, match="'rain'"):
        draw_corruption("rain", torch.Generator())
    with pytest.raises(ShapeError, match="expected 1 corruptions"):
        corrupt(picture(), [])

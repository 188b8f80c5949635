"""Traces of machines, against Pillow's JPEG, NumPy's Fourier transform, and drawn combs, screens and edges."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from synthpipe.density.kinds.patterns import PATTERN_NAMES, TilePatterns
from synthpipe.density.kinds.spectra import colour_planes

PATTERNS = TilePatterns(64)


def features(tiles: Tensor) -> dict[str, Tensor]:
    return dict(zip(PATTERN_NAMES, PATTERNS(tiles, *colour_planes(tiles)).unbind(1), strict=True))


def scene(seed: int, side: int = 96) -> np.ndarray:
    """``(side, side, 3)`` uint8: smooth colours, edges and fine texture."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(side, side, 3)), (6, 6, 0)) * 12
    edges = (gaussian_filter(rng.normal(size=(side, side, 1)), (5, 5, 0)) > 0) * 0.25
    texture = gaussian_filter(rng.normal(size=(side, side, 1)), (0.6, 0.6, 0)) * 0.05
    return (255 * np.clip(0.5 + 0.2 * smooth + edges - 0.12 + texture, 0, 1)).round().astype(np.uint8)


def tile_of(picture: np.ndarray, top: int = 3, left: int = 5) -> Tensor:
    part = picture[top : top + 64, left : left + 64].astype(np.float32) / 255
    return torch.from_numpy(part).permute(2, 0, 1)[None]


def coded(picture: np.ndarray, form: str, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quality", [30, 60, 75])
def test_the_grid_of_jpeg_is_found_where_it_is(seed: int, quality: int) -> None:
    clean, jpeg = (features(tile_of(picture)) for picture in (scene(seed), coded(scene(seed), "JPEG", quality)))
    assert float(jpeg["grid_excess_2"]) > 0.25 > 3 * float(clean["grid_excess_2"])
    # Only one grid stands out.
    assert float(jpeg["grid_second_2"]) < 0.8 * float(jpeg["grid_excess_2"])


def test_zeros_of_the_grid_are_those_of_scipys_blocks() -> None:
    picture = coded(scene(1), "JPEG", 60)
    tile = tile_of(picture, 0, 0)
    luma = colour_planes(tile)[0][0, 0].double().numpy()
    orders = ((0, 7), (7, 0), (4, 4), (5, 5), (7, 7), (3, 6), (6, 3))
    shares = []
    for down in range(8):
        for across in range(8):
            # The 56 rows and columns of beginnings that the statistic looks at.
            blocks = [
                dctn(luma[y : y + 8, x : x + 8], norm="ortho") for y in range(down, 56, 8) for x in range(across, 56, 8)
            ]
            found = [[1 / (1 + (block[place] / 0.6) ** 2) ** 2 for place in orders] for block in blocks]
            shares.append(np.mean(found))
    top = np.sort(shares)[::-1]
    found = features(tile)
    assert float(found["grid_excess_2"]) == pytest.approx(top[0] - np.mean(shares), abs=1e-4)
    assert float(found["grid_second_2"]) == pytest.approx(top[1] - np.mean(shares), abs=1e-4)
    assert float(found["zeros_2"]) == pytest.approx(np.mean(shares), abs=1e-4)
    assert np.argmax(shares) == 0


def test_fields_of_two_moments_have_a_comb_down_and_not_across() -> None:
    picture = scene(2)
    combed = picture.copy()
    combed[1::2] = np.roll(picture, 4, 1)[1::2]
    before, after = features(tile_of(picture)), features(tile_of(combed))
    assert float(after["comb_flat"]) > float(before["comb_flat"]) + 2
    turned = features(tile_of(combed.transpose(1, 0, 2)))
    assert float(turned["comb_flat"]) == pytest.approx(-float(features(tile_of(combed, 5, 3))["comb_flat"]), abs=1e-4)


def test_a_frequency_that_stands_out_is_found() -> None:
    y, x = np.mgrid[:96, :96]
    waves = np.sin(2 * np.pi * (0.22 * x + 0.17 * y))[..., None] * 20
    printed = np.clip(scene(4) + waves, 0, 255).round().astype(np.uint8)
    before, after = features(tile_of(scene(4))), features(tile_of(printed))
    assert float(after["peak_fine"]) > float(before["peak_fine"]) + 2


def test_the_spectrum_is_numpys() -> None:
    luma = colour_planes(tile_of(scene(5)))[0]
    window = np.outer(*[np.hanning(65)[:64]] * 2)
    levels = luma[0, 0].double().numpy()
    power = np.log(np.abs(np.fft.rfft2((levels - levels.mean()) * window)) ** 2 + 1)
    padded = np.pad(power, 3, mode="edge")
    smooth = np.mean([padded[a : a + 64, b : b + 33] for a in range(7) for b in range(7)], 0)
    rows = np.minimum(np.arange(64), 64 - np.arange(64))[:, None]
    columns = np.arange(33)
    fine = (np.hypot(rows, columns) / 64 > 0.2) & (rows > 2) & (columns > 2)
    expected = np.sort((power - smooth)[fine])[::-1]
    found = features(tile_of(scene(5)))
    assert float(found["peak_fine"]) == pytest.approx(expected[0], abs=0.02)
    assert float(found["peak_second"]) == pytest.approx(expected[8], abs=0.02)


@pytest.mark.parametrize(("factor", "name"), [(2, "period_2"), (3, "period_3"), (4, "period_4")])
def test_enlargement_has_the_period_of_its_factor(factor: int, name: str) -> None:
    # The corners stay where they are, so that every factor-th pixel is an old one.
    small = np.random.default_rng(7).normal(size=(50, 50, 1)) * 0.1 + 0.5
    side = (49 * factor + 1) / 50
    large = zoom(small, (side, side, 1), order=1)
    fresh = np.random.default_rng(8).normal(size=(96, 96, 1)) * 0.1 + 0.5
    enlarged, plain = (
        features(tile_of((255 * np.clip(x, 0, 1)).round().astype(np.uint8).repeat(3, 2))) for x in (large, fresh)
    )
    assert float(enlarged[name]) > 2 * float(plain[name])


def test_noise_changes_the_width_of_strong_edges_little_and_blur_much() -> None:
    edges = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((12, 12)))[..., None].repeat(3, 2) * 120 + 60
    noisy = edges + np.random.default_rng(0).normal(0, 3, edges.shape)
    soft = gaussian_filter(edges, (1, 1, 0))
    sharp_width, noisy_width, soft_width = (
        float(features(tile_of(np.round(picture).astype(np.uint8)))["edge_1_2"]) for picture in (edges, noisy, soft)
    )
    assert abs(noisy_width - sharp_width) < 0.1
    assert soft_width < sharp_width - 0.4


def test_drawn_pictures_have_equal_neighbours_and_few_levels() -> None:
    drawn = np.full((96, 96, 3), 240, np.uint8)
    drawn[20:40, 10:70] = (10, 10, 10)
    found = features(tile_of(drawn))
    assert float(found["equal_neighbours"]) > 1.9
    assert float(found["levels_used"]) == pytest.approx(np.log(3))
    assert float(found["top_two"]) == pytest.approx(1)
    assert float(found["equal_colours"]) == pytest.approx(1)
    photo = features(tile_of(scene(0)))
    assert float(photo["equal_neighbours"]) < 1
    assert float(photo["levels_used"]) > 4


def test_numbers_are_finite_on_any_tile_and_do_not_depend_on_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    tiles = torch.cat(
        [torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64), torch.rand(2, 3, 64, 64, generator=generator)]
    )
    together = PATTERNS(tiles, *colour_planes(tiles))
    assert bool(torch.isfinite(together).all())
    for place, tile in enumerate(tiles):
        alone = PATTERNS(tile[None], *colour_planes(tile[None]))
        torch.testing.assert_close(alone[0], together[place], rtol=1e-4, atol=1e-4)

"""Power by frequency, against SciPy's cosine transform, closed forms for white and coloured noise, and drawn tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from synthpipe.density.kinds.spectra import SPECTRUM_NAMES, TileSpectra, colour_planes, dct_kernels

ROUNDING = 0.08
GENERATOR_SEED = 3


def features(tiles: Tensor) -> dict[str, Tensor]:
    return dict(zip(SPECTRUM_NAMES, TileSpectra()(*colour_planes(tiles)).unbind(1), strict=True))


def grey_noise(sigma: float, spread: float = 0.0, count: int = 64) -> Tensor:
    """Grey tiles with normal noise of ``sigma`` grey levels, smoothed by (spread, 1, spread) in both directions."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    noise = torch.randn(count, 1, 66, 66, generator=generator, dtype=torch.float64)
    kernel = torch.tensor([spread, 1.0, spread], dtype=torch.float64)
    kernel = kernel / kernel.square().sum().sqrt()
    noise = torch.nn.functional.conv2d(noise, torch.outer(kernel, kernel)[None, None])
    return (0.5 + sigma / 255 * noise).float()


@pytest.mark.parametrize("side", [4, 8])
def test_blocks_are_transformed_as_scipy_does(side: int) -> None:
    block = np.random.default_rng(0).normal(size=(side, side))
    kernels = dct_kernels(side)[:, 0].numpy()
    found = np.einsum("fyx,yx->f", kernels, block).reshape(side, side)
    np.testing.assert_allclose(found, dctn(block, norm="ortho"), atol=1e-12)


def test_planes_are_those_of_jfif() -> None:
    colour = torch.tensor([0.2, 0.6, 0.9])[None, :, None, None].expand(1, 3, 64, 64)
    luma, chroma = colour_planes(colour)
    # ITU-T T.871: Y, Cb - 128, Cr - 128 of R, G, B = 51, 153, 229.5.
    y = 0.299 * 51 + 0.587 * 153 + 0.114 * 229.5
    assert float(luma[0, 0, 0, 0]) == pytest.approx(y, abs=1e-3)
    assert chroma[0, :, 0, 0].tolist() == pytest.approx([(229.5 - y) / 1.772, (51 - y) / 1.402], abs=0.05)


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    found = features(grey_noise(3.0))
    for ring in range(8):
        assert float(found[f"luma_all_{ring}"].exp().mean()) == pytest.approx(9 + ROUNDING, rel=0.05)
    for direction in ("across", "down", "diagonal"):
        assert float(found[f"{direction}_all"].exp().mean()) == pytest.approx(9 + ROUNDING, rel=0.05)
    # Means of 2x2 and of 4x4 pixels have a quarter and a sixteenth.
    assert float(found["half_all_5"].exp().mean()) == pytest.approx(9 / 4 + ROUNDING, rel=0.05)
    assert float(found["quarter_all_1"].exp().mean()) == pytest.approx(9 / 16 + ROUNDING, rel=0.1)


def test_coloured_noise_has_the_spectrum_of_its_filter() -> None:
    spread = 0.5
    found = features(grey_noise(4.0, spread))
    # Covariance of one line of 8 pixels, its power in each cosine, and the rings as sets of frequencies.
    kernel = np.array([spread, 1, spread]) / np.sqrt(1 + 2 * spread**2)
    covariance = np.zeros((8, 8))
    for lag, value in enumerate(np.correlate(kernel, kernel, "full")[2:]):
        covariance += value * (np.eye(8, k=lag) + (np.eye(8, k=-lag) if lag else 0))
    basis = dctn(np.eye(8), axes=[0], norm="ortho")
    line = np.diag(basis @ covariance @ basis.T)
    power = 16 * np.outer(line, line)
    radius = np.hypot(*np.mgrid[:8, :8])
    for ring, (begin, end) in {0: (0.5, 1.2), 3: (3.3, 4.3), 6: (6.3, 7.3), 7: (7.3, 99)}.items():
        expected = power[(radius > begin) & (radius <= end)].mean()
        assert float(found[f"luma_all_{ring}"].exp().mean()) == pytest.approx(expected + ROUNDING, rel=0.06)


def test_a_flat_tile_has_no_power() -> None:
    for values in (torch.full((1, 3, 64, 64), 0.4), torch.full((1, 1, 64, 64), 0.4)):
        for name, value in features(values).items():
            assert float(value) == pytest.approx(math.log(ROUNDING), abs=1e-2), name


def test_texture_beside_flat_noise_leaves_the_flattest_blocks_as_they_are() -> None:
    tiles = grey_noise(2.0)
    alone = features(tiles)
    half_textured = tiles.clone()
    half_textured[..., 32:] += 0.2 * torch.sin(torch.arange(32) * 1.3)
    both = features(half_textured)
    for ring in range(2, 8):
        name = f"luma_flat_{ring}"
        assert float((both[name] - alone[name]).abs().mean()) < 0.3
        assert float((both[f"luma_all_{ring}"] - alone[f"luma_all_{ring}"]).mean()) > -0.02
    assert float((both["luma_all_3"] - alone["luma_all_3"]).mean()) > 1


def test_clipped_blocks_do_not_pass_for_flat() -> None:
    tiles = grey_noise(4.0)
    clipped = tiles.clone()
    clipped[..., :40] = 1.0
    found, expected = features(clipped)["luma_flat_5"], features(tiles)["luma_flat_5"]
    assert float((found - expected).abs().mean()) < 0.4


def test_chroma_of_every_second_pixel_has_nothing_finer() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 32, 32, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert features(coarse)["chroma_finest_all"].tolist() == pytest.approx([math.log(ROUNDING)] * 4, abs=1e-3)
    fine = torch.rand(4, 3, 64, 64, generator=generator)
    assert float(features(fine)["chroma_finest_flat"].min()) > 5

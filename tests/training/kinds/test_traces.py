"""What single degradations do, against SciPy, Pillow and closed forms."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from synthpipe.training.kinds import traces
from synthpipe.training.kinds.traces import Draw


def draw(seed: int = 0) -> Draw:
    return Draw(torch.Generator().manual_seed(seed))


def photo(side: int = 96) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(3, side, side))
    smooth = gaussian_filter(noise, (0, 3, 3)) * 1.5 + 0.5
    return torch.from_numpy(np.clip(smooth, 0, 1)).float()[None]


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_gaussians_are_scipys(sigma: float) -> None:
    x = photo()
    found = traces.convolved(x, traces.gaussian(sigma))
    expected = gaussian_filter(
        x.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=math.ceil(3 * sigma) / sigma
    )
    assert np.abs(found.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(
    "kernel", [traces.motion(7, 0.4), traces.motion(3, 1.5), traces.defocus(2.5), traces.gaussian(1, 2)]
)
def test_kernels_keep_the_light_and_the_place(kernel: torch.Tensor) -> None:
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in kernel.shape)
    assert float((kernel.sum(1) * rows).sum()) == pytest.approx(0, abs=1e-4)
    assert float((kernel.sum(0) * columns).sum()) == pytest.approx(0, abs=1e-4)


def test_a_move_is_as_long_as_asked() -> None:
    # Variance of a uniform line of 9 pixels: 9^2 / 12; its soft ends and width add a little.
    kernel = traces.motion(9, 0.0)
    columns = torch.arange(kernel.shape[1]) - (kernel.shape[1] - 1) / 2
    assert float((kernel.sum(0) * columns.square()).sum()) == pytest.approx(81 / 12, rel=0.05)
    assert float(kernel.sum(0).max()) == pytest.approx(1 / 9, rel=0.02)


@pytest.mark.parametrize(
    ("spread", "lag_1"), [(0.0, 0.0), (0.7, math.exp(-1 / (4 * 0.7**2))), (1.2, math.exp(-1 / (4 * 1.2**2)))]
)
def test_noise_has_its_level_and_its_correlation(spread: float, lag_1: float) -> None:
    x = torch.full((1, 3, 256, 256), 0.5)
    noise = (traces.correlated_noise(x, 5.0, spread, 0.5, 0.0, draw()) - x).double() * 255
    assert float(noise.std()) == pytest.approx(5, rel=0.03)
    along = float((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean())
    # A Gaussian of s correlates with itself by exp(-1 / 4 s^2); sampled and cut, a little otherwise.
    assert along == pytest.approx(lag_1, abs=0.05)
    between = float((noise[:, 0] * noise[:, 1]).mean() / noise.square().mean())
    assert between == pytest.approx(0.5, abs=0.05)


def test_noise_follows_the_light() -> None:
    x = torch.cat([torch.full((1, 3, 128, 128), 0.1), torch.full((1, 3, 128, 128), 0.9)], 3)
    noise = traces.correlated_noise(x, 4.0, 0.0, 0.0, 1.0, draw()) - x
    dark, bright = noise[..., :128].std(), noise[..., 128:].std()
    assert float(dark / bright) == pytest.approx(1.4 / 0.6, rel=0.05)


def test_jpeg_and_webp_are_what_a_file_holds() -> None:
    x = photo()
    levels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    for form, found in (("JPEG", traces.jpeg(x, 60)), ("WEBP", traces.webp(x, 60))):
        file = io.BytesIO()
        Image.fromarray(levels).save(file, form, quality=60)
        peer = np.asarray(Image.open(file).convert("RGB")) / 255
        theirs = np.abs(peer - levels / 255).mean()
        ours = np.abs(found[0].permute(1, 2, 0).numpy() - levels / 255).mean()
        assert ours == pytest.approx(theirs, rel=0.2), form


def test_rows_of_a_comb_are_of_two_moments() -> None:
    x = photo()
    found = traces.combed(x, 3, 0)
    assert torch.equal(found[..., ::2, :], x[..., ::2, :])
    assert torch.equal(found[..., 1::2, 3:], x[..., 1::2, :-3])


def test_a_screen_keeps_the_mean_light() -> None:
    for level in (0.3, 0.5, 0.7):
        printed = traces.screened(torch.full((1, 3, 120, 120), level), 5.0, 1.0, 0.0, draw())
        assert float(printed.mean()) == pytest.approx(level, abs=0.08)
        assert float(printed.std()) > 0.2

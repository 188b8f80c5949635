"""The noise of one image: noise of known covariance and correlation, on images whose content is known."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise import estimate_noise, grain, measure_flat_noise, noise_level
from synthpipe.flat_noise.block_features import FEATURES
from tests.test_flat_noise import autoregressive

MIDDLE = 4


def white(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [3.0, 6.0, 12.0, 25.0])
def test_white_noise_on_a_flat_field(sigma: float) -> None:
    image = ((0.5 + sigma / 255 * white(3, 200, 240)) * 255).round().clamp(0, 255).to(torch.uint8)
    found = estimate_noise(image)
    assert found is not None
    assert found.level * 255 == pytest.approx(sigma, rel=0.15)
    assert (found.sigma * 255 / sigma - 1).abs().max() < 0.15
    assert max(abs(value) for value in found.lag1) < 0.1
    assert found.channel_correlation.abs().max() < 0.1
    assert (found.autocorrelation[:, MIDDLE, MIDDLE] == 1).all()
    assert 0 <= found.certainty <= 1


@pytest.mark.parametrize(("across", "down"), [(0.4, 0.4), (0.7, 0.5)])
def test_correlated_noise(across: float, down: float) -> None:
    found = estimate_noise(0.5 + 6 / 255 * autoregressive(white(3, 256, 256), across, down))
    assert found is not None
    assert found.level * 255 == pytest.approx(6, rel=0.15)
    assert found.lag1 == pytest.approx((across, down), abs=0.1)
    mean = found.autocorrelation.mean(0)
    assert found.lag1 == pytest.approx((float(mean[MIDDLE, MIDDLE + 1]), float(mean[MIDDLE + 1, MIDDLE])))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_correlation_of_channels(share: float) -> None:
    mixed = math.sqrt(share) * white(1, 200, 200, seed=1) + math.sqrt(1 - share) * white(3, 200, 200)
    found = estimate_noise(0.5 + 8 / 255 * mixed)
    assert found is not None
    torch.testing.assert_close(found.channel_correlation.float(), torch.full((3,), share), atol=0.15, rtol=0)


def test_the_pair_of_channels_that_hangs_together_is_told() -> None:
    mixed = white(3, 200, 200)
    mixed[1] = 0.8 * mixed[0] + 0.6 * mixed[1]
    found = estimate_noise(0.5 + 8 / 255 * mixed)
    assert found is not None
    red_green, green_blue, red_blue = found.channel_correlation.tolist()
    assert red_green > 0.5
    assert max(abs(green_blue), abs(red_blue)) < 0.25


def test_grey_images_are_three_equal_channels() -> None:
    image = 0.5 + 6 / 255 * white(1, 128, 128)
    grey, colour = estimate_noise(image), estimate_noise(image.expand(3, -1, -1))
    assert grey is not None
    assert colour is not None
    torch.testing.assert_close(grey.autocorrelation, colour.autocorrelation)
    assert grey.level == pytest.approx(colour.level)
    assert grey.channel_correlation.tolist() == pytest.approx([1, 1, 1], abs=0.05)


@pytest.mark.parametrize("rho", [0.0, 0.45, 0.7])
def test_grey_pictures_with_noise_that_neighbours_share(rho: float) -> None:
    """It was told as half as correlated (0.45 as 0.2), and certainty as at most 0.4."""
    noise = autoregressive(white(1, 240, 320), rho, rho)
    image = (leaves(240, 320).mean(0, keepdim=True) + 10 / 255 * noise).clamp(0, 1)
    found = estimate_noise((image * 255).round().to(torch.uint8))
    assert found is not None
    assert found.grey
    assert found.level * 255 == pytest.approx(10, rel=0.15)
    assert found.lag1 == pytest.approx((rho, rho), abs=0.1)
    assert found.certainty > 0.5
    assert found.channel_correlation.tolist() == [1, 1, 1]


def test_channels_that_rounding_alone_tells_apart_are_grey_and_colour_is_not() -> None:
    grey = ((0.5 + 8 / 255 * white(1, 128, 128)) * 255).round().expand(3, -1, -1).to(torch.uint8).clone()
    off = grey.clone()
    off[1] += (white(1, 128, 128, seed=2)[0] > 0).to(torch.uint8)
    exact, near = estimate_noise(grey), estimate_noise(off)
    assert exact is not None
    assert near is not None
    assert exact.grey
    assert near.grey
    assert near.level == pytest.approx(exact.level, rel=0.05)
    off[1, 3, 3] = grey[1, 3, 3] + 2
    colour = estimate_noise(off)
    assert colour is not None
    assert not colour.grey


def test_colour_is_told_what_it_was_told_before_grey_had_a_fit_of_its_own() -> None:
    found = estimate_noise(leaves(160, 200) + 6 / 255 * autoregressive(white(3, 160, 200), 0.7, 0.3))
    assert found is not None
    assert not found.grey
    figures = [found.level * 255, *found.lag1, found.certainty, found.grain, *found.channel_correlation.tolist()]
    assert figures == pytest.approx(
        [7.1076, 0.6061, 0.3761, 0.7075, 0.0, -0.0761, -0.0731, -0.0107], rel=1e-3, abs=1e-3
    )


def test_json_holds_all() -> None:
    found = estimate_noise(0.5 + 6 / 255 * white(3, 64, 64))
    assert found is not None
    assert json.loads(json.dumps(found.as_dict()))["level"] == found.level


def test_nothing_is_said_of_clipped_and_tiny_images() -> None:
    assert estimate_noise(torch.ones(3, 96, 96)) is None
    assert estimate_noise(torch.full((3, 12, 96), 0.5)) is None


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (64, 64), (2, 64, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected one image"):
        estimate_noise(torch.zeros(shape))


def leaves(height: int, width: int, seed: int = 5) -> Tensor:
    """Dead leaves: discs of all sizes and colours over each other, whose statistics are those of photographs."""
    draws = torch.Generator().manual_seed(seed)
    content = torch.full((3, height, width), 0.5)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for _ in range(1500):
        radius = 1.5 / torch.rand(1, generator=draws).clamp(min=0.03)
        middle = torch.rand(2, generator=draws) * torch.tensor([height, width])
        inside = (y - middle[0]).square() + (x - middle[1]).square() < radius.square()
        content[:, inside] = (0.15 + 0.7 * torch.rand(3, generator=draws))[:, None]
    return content


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_small_textured_pictures(rho: float) -> None:
    content = leaves(240, 320)
    for sigma in (6.0, 12.0):
        noise = autoregressive(white(3, 240, 320), rho, rho)
        found = estimate_noise(((content + sigma / 255 * noise) * 255).round().clamp(0, 255).to(torch.uint8))
        assert found is not None
        assert found.level * 255 == pytest.approx(sigma, rel=0.15)
        assert found.lag1 == pytest.approx((rho, rho), abs=0.1)


def test_a_transposed_image_gets_the_transposed_answer() -> None:
    image = leaves(160, 200) + 6 / 255 * autoregressive(white(3, 160, 200), 0.7, 0.3)
    one, other = estimate_noise(image), estimate_noise(image.transpose(1, 2))
    assert one is not None
    assert other is not None
    assert one.level == pytest.approx(other.level, rel=1e-3)
    assert one.lag1 == pytest.approx(other.lag1[::-1], abs=1e-3)
    assert one.lag1[0] > one.lag1[1] + 0.2
    torch.testing.assert_close(one.autocorrelation.mT, other.autocorrelation, atol=1e-3, rtol=0)


def test_weak_noise_of_a_camera_is_no_grain_of_a_photograph() -> None:
    """Soft content, noise that neighbours and channels share in part, a file of quality 75."""
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    soft = 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic", align_corners=False)[0]
    share = 0.6
    grey, own = white(1, 240, 320, seed=3), white(3, 240, 320)
    noise = autoregressive(share**0.5 * grey + (1 - share) ** 0.5 * own, 0.65, 0.65)
    stream = io.BytesIO()
    pixels = ((soft + 4 / 255 * noise) * 255).round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "jpeg", quality=75)
    coded = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)
    found, turned = estimate_noise(coded), estimate_noise(coded.transpose(1, 2))
    assert found is not None
    assert turned is not None
    assert 0 <= found.grain < 0.5
    assert turned.grain == pytest.approx(found.grain, abs=1e-3)


def test_grain_of_a_photograph_is_told_from_noise_of_a_camera_that_no_fit_saw(shared: Path) -> None:
    """One level, one certainty, one correlation of neighbours: a scanned photograph and a file of a Nikon D800."""
    found = []
    for name in ("clean_test/cbsd68_220075.png", "real_noise/noisy/NikonD800_11_160_3200_classroom_15.jpg"):
        pixels = np.array(Image.open(shared / "data" / name).convert("RGB"))
        found.append(estimate_noise(torch.from_numpy(pixels).permute(2, 0, 1)))
    photograph, camera = found
    assert photograph is not None
    assert camera is not None
    assert photograph.level == pytest.approx(camera.level, rel=0.1)
    assert photograph.certainty == pytest.approx(camera.certainty, abs=0.05)
    assert photograph.grain > 0.6
    assert camera.grain < 0.3


def test_texture_of_grey_images_is_the_logistic_of_mean_features_and_0_of_colour() -> None:
    x = torch.randn(2, 3, FEATURES, generator=torch.Generator().manual_seed(0)) / 30
    with np.load(Path(grain.__file__).with_name("grey_texture.npz")) as file:
        score = float(x.mean((0, 1)).numpy().astype(np.float64) @ file["weight"] + file["bias"].item())
    assert grain.texture_probability(x) == pytest.approx(1 / (1 + math.exp(score)), rel=1e-4)
    colour = estimate_noise(0.5 + 6 / 255 * white(3, 96, 96))
    assert colour is not None
    assert colour.texture == 0


def test_grain_is_the_logistic_of_mean_features() -> None:
    x = white(2, 3, FEATURES)
    with np.load(Path(grain.__file__).with_name("grain.npz")) as file:
        score = float(x.mean((0, 1)).numpy() @ file["weight"] + file["bias"][0])
    assert grain.grain_probability(x) == pytest.approx(1 / (1 + math.exp(score)), rel=1e-4)


@pytest.mark.parametrize("sigma", [60.0, 80.0])
def test_noise_stronger_than_simulated(sigma: float) -> None:
    image = 0.5 + sigma / 255 * white(3, 160, 160)
    found = estimate_noise(image)
    assert found is not None
    assert found.level * 255 == pytest.approx(sigma, rel=0.25)


def test_pictures_without_noise_have_next_to_none() -> None:
    for content in (torch.full((3, 128, 128), 0.5), torch.linspace(0.2, 0.8, 128).expand(3, 128, 128)):
        found = estimate_noise((content * 255).round().to(torch.uint8))
        assert found is not None
        assert found.level * 255 < 0.7


def test_correlations_are_possible_ones() -> None:
    """Three channels cannot all be opposed to each other; whatever was told, the matrix has no negative eigenvalue."""
    for seed in range(4):
        found = estimate_noise(leaves(96, 96, seed) + 2 / 255 * white(3, 96, 96, seed))
        assert found is not None
        rg, gb, rb = found.channel_correlation
        matrix = torch.tensor([[1, rg, rb], [rg, 1, gb], [rb, gb, 1]], dtype=torch.float64)
        assert float(torch.linalg.eigvalsh(matrix)[0]) > -1e-6
        assert found.autocorrelation.abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 255, "expected values in \\[0, 1\\]"),
        (lambda x: (x * 255).round().long(), "expected uint8"),
        (lambda x: (x * 65535).round().to(torch.uint16), "expected uint8"),
        (lambda x: 2 * torch.linspace(0.1, 0.9, 96) + x - 1.5, "local means from"),  # -1 to 1
        (lambda x: 4 * (torch.linspace(0.1, 0.9, 96) + x - 1), "local means from"),  # by mean and deviation
        (lambda x: x.index_fill(2, torch.tensor([5]), math.nan), "NaN"),
        (lambda x: x.index_fill(2, torch.tensor([5]), math.inf), "NaN or infinity"),
    ],
)
def test_other_scales_and_nan_are_refused_and_do_not_pass_for_clipped(change: Any, said: str) -> None:
    image = change((0.5 + 8 / 255 * white(3, 96, 96)).clamp(0, 1))
    for measure in (estimate_noise, noise_level, lambda x: measure_flat_noise([x])):
        with pytest.raises(ShapeError, match=said):
            measure(image)


@pytest.mark.parametrize("middle", [0.0, 0.02, 0.98, 1.0])
def test_noise_around_black_or_white_that_nothing_has_clipped_is_measured(middle: float) -> None:
    """It leaves [0, 1] by little; cut there, half of it is gone, and nothing can be said."""
    image = middle + 5 / 255 * white(3, 160, 160)
    found = estimate_noise(image)
    assert found is not None
    assert found.level * 255 == pytest.approx(5, rel=0.2)
    if middle in (0.0, 1.0):
        assert estimate_noise(image.clamp(0, 1)) is None
    if middle > 0.5:
        level = noise_level(image)
        assert level is not None
        assert 255 * level == pytest.approx(5, rel=0.2)
        assert noise_level(image.clamp(0, 1)) is None


def test_a_resize_that_overshoots_changes_next_to_nothing() -> None:
    """As 8 bits hold it: steps between black and white, noisy, reduced by a cubic filter without clipping."""
    steps = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(3)).round() * 0.96 + 0.02
    sharp = (steps.repeat_interleave(40, 1).repeat_interleave(40, 2) + 4 / 255 * white(3, 480, 480)).clamp(0, 1)
    image = torch.nn.functional.interpolate(sharp[None], scale_factor=0.5, mode="bicubic", antialias=True)[0]
    assert image.min() < -0.01
    assert image.max() > 1.01
    found, cut = estimate_noise(image), estimate_noise(image.clamp(0, 1))
    assert found is not None
    assert cut is not None
    assert found.level == pytest.approx(cut.level, rel=0.1)


def test_strong_noise_without_clipping_is_read_in_full() -> None:
    image = leaves(160, 160, 0) + 50 / 255 * white(3, 160, 160)
    found = estimate_noise(image)
    assert found is not None
    assert found.level * 255 == pytest.approx(50, rel=0.1)

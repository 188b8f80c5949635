"""Piles of known difference: leaves of all sizes with sharp edges, enlarged, darkened, noisy or JPEG-coded."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.training.data.block_grid import block_grid
from synthpipe.training.data.piles import measure_piles


def leaves(seed: int, side: int = 192, dark: float = 0.1, bright: float = 0.9) -> Tensor:
    """Discs that hide each other, radii by the inverse cube: the same at every scale, as photographs are."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    image = np.full((side, side, 3), draws.uniform(dark, bright, 3), np.float32)
    for _ in range(150):
        radius = 3 / np.sqrt(draws.uniform(0.002, 1))
        y, x = draws.uniform(0, side, 2)
        image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = draws.uniform(dark, bright, 3)
    return torch.from_numpy(image).permute(2, 0, 1)


def foliage(seed: int, side: int = 192, strength: float = 0.03) -> Tensor:
    """Texture everywhere, with the spectrum of photographs: amplitude falls as one over the frequency."""
    frequency = torch.fft.fftfreq(side)
    radius = torch.hypot(frequency[:, None], frequency).clamp(min=1 / side)
    white = torch.randn(side, side, generator=torch.Generator().manual_seed(seed))
    x = torch.fft.ifft2(torch.fft.fft2(white) / radius).real
    return (0.5 + strength * x / x.std()).expand(3, -1, -1)


def to_bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def enlarged(image: Tensor, factor: float) -> Tensor:
    whole = F.interpolate(image[None], scale_factor=factor, mode="bicubic", antialias=True)[0]
    return whole[:, : image.shape[1], : image.shape[2]]


def noise(seed: int, side: int = 192, across: float = 0.0, down: float = 0.0) -> Tensor:
    """Unit variance; a moving average of two neighbours has the correlation ``a / (1 + a^2)``."""
    draws = torch.randn(3, side + 1, side + 1, generator=torch.Generator().manual_seed(seed))
    rows = draws[:, :, 1:] + across * draws[:, :, :-1]
    both = rows[:, 1:] + down * rows[:, :-1]
    return both / ((1 + across**2) * (1 + down**2)) ** 0.5


def jpeg(image: Tensor, quality: int, subsampling: int) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(to_bytes(image).permute(1, 2, 0).numpy()).save(
        stream, "jpeg", quality=quality, subsampling=subsampling
    )
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def clean() -> list[Tensor]:
    return [to_bytes(leaves(seed)) for seed in range(8)]


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.0])
def test_the_factor_by_which_the_noisy_pile_is_softer(clean: list[Tensor], factor: float) -> None:
    noisy = [to_bytes(enlarged(leaves(100 + seed), factor) + 3 / 255 * noise(seed)) for seed in range(8)]
    found = measure_piles(clean, noisy)
    assert found.softness == pytest.approx(factor, rel=0.15)
    if factor == 1:
        assert found.resize_range is None
    else:
        assert found.resize_range == (1.0, pytest.approx(factor**2, rel=0.3))


def test_halves_of_one_pile_are_alike() -> None:
    for seed in range(3):
        halves = [[to_bytes(leaves(1000 * seed + 100 * half + number)) for number in range(6)] for half in range(2)]
        assert measure_piles(*halves).resize_range is None


def test_a_sharper_noisy_pile_reduces_the_clean_one() -> None:
    clean = [to_bytes(enlarged(leaves(seed), 1.6)) for seed in range(8)]
    found = measure_piles(clean, [to_bytes(leaves(100 + seed)) for seed in range(8)])
    assert found.resize_range is not None
    low, high = found.resize_range
    assert low < 0.7
    assert high == 1.0


def test_brightness_that_the_clean_pile_lacks() -> None:
    bright = [to_bytes(leaves(seed, dark=0.55, bright=0.95)) for seed in range(6)]
    dark = [to_bytes(leaves(100 + seed, dark=0.05, bright=0.45)) for seed in range(6)]
    assert measure_piles(bright, dark).coverage < 0.1
    assert measure_piles(bright, bright + dark).coverage == pytest.approx(0.5, abs=0.1)
    assert measure_piles(bright + dark, dark).coverage > 0.98


@pytest.mark.parametrize(("subsampling", "side"), [(0, 8), (1, 16), (2, 16)])
def test_jpeg_blocks(subsampling: int, side: int) -> None:
    images = [jpeg(leaves(seed) + 4 / 255 * noise(seed), 85, subsampling) for seed in range(4)]
    assert block_grid(images) == (side, (0, 0))
    moved = block_grid([image[:, 3:, 5:] for image in images])
    assert moved is not None
    assert moved.phase == (5, 3)


def test_images_without_blocks() -> None:
    plain = [leaves(seed) + 4 / 255 * noise(seed) for seed in range(4)]
    assert block_grid([to_bytes(image) for image in plain]) is None
    resized = [to_bytes(enlarged(jpeg(image, 75, 2) / 255, 1.3)) for image in plain]
    assert block_grid(resized) is None
    moved = [jpeg(image, 75, 2)[:, seed : seed + 128, seed : seed + 128] for seed, image in enumerate(plain)]
    assert block_grid(moved) is None


def test_noise_with_and_without_a_direction(clean: list[Tensor]) -> None:
    flat = torch.full((3, 192, 192), 0.5)
    striped = [to_bytes(flat + 5 / 255 * noise(seed, across=0.8)) for seed in range(12)]
    found = measure_piles(clean, striped)
    assert found.lag1 is not None
    assert found.lag1[0] == pytest.approx(0.8 / 1.64, abs=0.05)
    assert found.lag1[1] == pytest.approx(0, abs=0.05)
    assert (found.directed, found.augment) == (True, "flips")
    even = [to_bytes(flat + 5 / 255 * noise(seed, across=0.8, down=0.8)) for seed in range(12)]
    found = measure_piles(clean, even)
    assert (found.directed, found.augment) == (False, "dihedral")


def test_levels_of_a_mixed_pile(clean: list[Tensor]) -> None:
    flat = torch.full((3, 128, 128), 0.4)
    noisy = [to_bytes(flat + (3, 8)[seed % 2] / 255 * noise(seed, 128)) for seed in range(8)]
    found = measure_piles(clean, noisy)
    assert found.distinct_levels == 2
    assert 255 * found.levels[0] == pytest.approx(3, rel=0.15)
    assert 255 * found.levels[-1] == pytest.approx(8, rel=0.15)


def test_large_flat_areas_tell_near_levels_apart(clean: list[Tensor]) -> None:
    """Weak noise in coded frames, as cameras leave it; small or textured images are not told so exactly."""
    shade = torch.linspace(0.35, 0.55, 832)[None, :, None]
    sigmas = (1.5, 2.3, 1.5, 2.3)
    noisy = [shade + sigma / 255 * noise(n, 832, across=0.7, down=0.7) for n, sigma in enumerate(sigmas)]
    frames = [jpeg(frame, 92, 2) for frame in noisy]
    assert measure_piles(clean, [frame[:, :128, :128] for frame in frames], frames).distinct_levels == 2
    alike = measure_piles(clean, [frames[0][:, :128, :128]], frames[::2])
    assert alike.distinct_levels == 1


@pytest.mark.parametrize("sigmas", [(4,), (8,), (4, 8)])
def test_texture_makes_no_level(clean: list[Tensor], sigmas: tuple[int, ...]) -> None:
    """Two thirds of the images have no flat place."""
    content = [foliage(seed) if seed % 3 else leaves(100 + seed) for seed in range(12)]
    noisy = [to_bytes(x + sigmas[seed % len(sigmas)] / 255 * noise(seed)) for seed, x in enumerate(content)]
    found = measure_piles(clean, noisy)
    assert found.distinct_levels == len(sigmas)
    assert ("as of one level" in found.level_words()) == (len(sigmas) == 1)


@pytest.mark.parametrize(("sigmas", "count"), [((1.5, 3, 6, 12, 24, 45), 6), ((5, 5, 5, 5, 5, 30), 1)])
def test_images_of_one_level_each(clean: list[Tensor], sigmas: tuple[float, ...], count: int) -> None:
    """One image beside many is an outlier; where each has its own level there are as many levels."""
    found = measure_piles(clean, [to_bytes(0.5 + sigma / 255 * noise(n)) for n, sigma in enumerate(sigmas)])
    assert found.distinct_levels == count


def test_words_and_json(clean: list[Tensor]) -> None:
    found = measure_piles(clean, [jpeg(leaves(seed), 75, 2) for seed in range(4)])
    assert found.align == 16
    assert any("JPEG grid of 16 pixels" in line for line in found.words())
    plain = json.loads(json.dumps(found.as_dict()))
    assert (plain["grid"], plain["grid_phase"], plain["align"]) == (16, [0, 0], 16)


def test_saturated_piles_have_no_noise_to_tell(clean: list[Tensor]) -> None:
    found = measure_piles(clean, [torch.full((3, 96, 96), 255, dtype=torch.uint8)] * 2)
    assert (found.lag1, found.levels, found.distinct_levels, found.augment) == (None, (), 0, "flips")
    assert len(found.words()) == 5


def test_no_crops_or_small_ones_are_refused(clean: list[Tensor]) -> None:
    with pytest.raises(ShapeError, match="noisy crops"):
        measure_piles(clean, [])
    with pytest.raises(ShapeError, match="at least 64x64"):
        measure_piles([clean[0][:, :40, :40]], clean)

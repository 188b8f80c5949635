"""Image tensors against brute force: bicubic reduction, padding, rounding, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synthpipe import images
from synthpipe.errors import ShapeError


def keys_cubic(x: float) -> float:
    """Keys' cubic kernel with a = -0.5, as MATLAB's imresize uses it."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def reduce_by_definition(row: np.ndarray, scale: int) -> np.ndarray:
    """One row reduced by the stretched kernel with mirrored edges, straight from the definition."""
    out = []
    n = len(row)
    for i in range(n // scale):
        centre = (i + 0.5) * scale - 0.5
        taps = range(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
        weights = np.array([keys_cubic((t - centre) / scale) for t in taps])
        mirrored = [t % (2 * n) if t % (2 * n) < n else 2 * n - 1 - t % (2 * n) for t in taps]
        out.append((weights / weights.sum()) @ row[mirrored])
    return np.array(out)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_reduction_is_the_stretched_keys_kernel(scale: int) -> None:
    rng = np.random.default_rng(scale)
    image = rng.random((6 * scale, 4 * scale))
    expected = np.array([reduce_by_definition(row, scale) for row in image])
    expected = np.array([reduce_by_definition(column, scale) for column in expected.T]).T
    ours = images.downscale_bicubic(torch.from_numpy(image)[None, None].expand(1, 3, -1, -1), scale)
    np.testing.assert_allclose(ours[0, 1].numpy(), expected, atol=1e-9)


def test_bicubic_reduction_of_an_image_smaller_than_the_kernel() -> None:
    image = np.random.default_rng(0).random((4, 8))
    expected = np.array([reduce_by_definition(row, 4) for row in image])
    expected = np.array([reduce_by_definition(column, 4) for column in expected.T]).T
    ours = images.downscale_bicubic(torch.from_numpy(image)[None, None], 4)
    np.testing.assert_allclose(ours[0, 0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("height", "width", "multiple"), [(1, 1, 8), (7, 16, 8), (9, 3, 4), (5, 5, 5)])
def test_padding_mirrors_with_the_edge_repeated(height: int, width: int, multiple: int) -> None:
    x = torch.rand(2, 3, height, width)
    padded = images.pad_to_multiple(x, multiple)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)), mode="symmetric")
    np.testing.assert_array_equal(padded.numpy(), expected)


def test_eight_bits_round_trip_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_uint8(images.to_float(levels)), levels)
    assert torch.equal(images.to_uint8(torch.tensor([-0.1, 0.5 / 255 + 1e-4, 1.2])), torch.tensor([0, 1, 255]).byte())
    assert torch.equal(images.quantize_8bit(images.to_float(levels)), images.to_float(levels))


LEVELS = torch.arange(256, dtype=torch.uint8)


def test_levels_are_the_nearest_float32_to_their_fraction() -> None:
    """NumPy's division, which is IEEE's; 126 levels differ where the reciprocal of 255 is multiplied with."""
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    assert np.array_equal(images.to_float(LEVELS).numpy(), expected)
    assert np.array_equal(images.quantize_8bit(images.to_float(LEVELS) + 0.001).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dividing_gives_the_bits_of_a_division_by_a_number(dtype: torch.dtype) -> None:
    levels = LEVELS.to(dtype)
    assert torch.equal(images.divide_by_255(levels), levels / 255)


@pytest.mark.gpu
def test_on_the_gpu_levels_have_the_same_bits() -> None:
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images.to_float(LEVELS.cuda()).cpu(), images.to_float(LEVELS))
    assert torch.equal(images.quantize_8bit(x.cuda()).cpu(), images.quantize_8bit(x))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(3, 8, 8), "RGB images (B, 3, H, W)"),
        (torch.zeros(1, 1, 8, 8), "(1, 1, 8, 8)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (torch.full((2, 3, 8, 8), float("nan")), "2 of 2 images hold NaN"),
        (torch.zeros(1, 3, 0, 8), "(1, 3, 0, 8)"),
        (torch.tensor([0.5, 90.0])[:, None, None, None].expand(2, 3, 8, 8), "a mean of 90 in 1 of 2; divide"),
        (torch.full((1, 3, 8, 8), -0.9), "a mean of -0.9 in 1 of 1; divide"),
    ],
)
def test_what_is_no_image_batch_is_refused(x: torch.Tensor, words: str) -> None:
    with pytest.raises(ShapeError) as error:
        images.check_images(x, "here")
    assert words in str(error.value)
    assert str(error.value).startswith("here:")


def test_noise_that_leaves_the_scale_is_no_other_scale() -> None:
    black = torch.zeros(2, 3, 64, 64)
    noisy = black + torch.randn(black.shape, generator=torch.Generator().manual_seed(0))
    assert noisy.amin() < -3
    images.check_images(noisy, "here")
    images.check_images(1 - noisy, "here")
    images.check_images(torch.zeros(0, 3, 8, 8), "here")


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match="multiples of 4, got 10x8"):
        images.downscale_bicubic(torch.zeros(1, 3, 10, 8), 4)
    with pytest.raises(ShapeError, match="3x8 is smaller than the multiple 4"):
        images.crop_to_multiple(torch.zeros(1, 3, 3, 8), 4)
    assert images.crop_to_multiple(torch.zeros(1, 3, 13, 8), 4).shape == (1, 3, 12, 8)
    with pytest.raises(ShapeError, match="expected uint8"):
        images.to_float(torch.zeros(3))

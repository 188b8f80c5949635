"""Operators against SciPy's convolutions, and their data steps against dense linear solves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from scipy.signal import convolve2d
from torch.testing import assert_close

from synthpipe import images
from synthpipe.denoisers.blur_kernels import bicubic_kernel, check_kernel, gaussian_kernel, motion_kernel
from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur, bicubic_reduction
from synthpipe.denoisers.degradation_operators import Identity, Mask
from synthpipe.errors import ShapeError


def random_kernel(height, width, seed=0):
    kernel = torch.rand(height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return kernel / kernel.sum()


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_mask(height, width):
    return (noise(1, 1, height, width, seed=9) > 0.3).double()


#: (operator, height and width of an unknown image of the right size)
CASES = {
    "identity": (Identity(), 5, 6),
    "mask": (Mask(a_mask(6, 7)), 6, 7),
    "circular": (CircularBlur(random_kernel(3, 5)), 7, 8),
    "circular, kernel beyond the image": (CircularBlur(random_kernel(9, 5)), 6, 7),
    "circular x2": (CircularBlur(random_kernel(3, 5), 2), 6, 8),
    "circular x3, bicubic": (bicubic_reduction(3, circular=True), 9, 6),
    "valid": (ValidBlur(random_kernel(3, 5)), 8, 9),
    "valid x2, off centre": (ValidBlur(random_kernel(4, 3), 2, (2, 0)), 10, 8),
    "valid x3, kernel under the scale": (ValidBlur(random_kernel(1, 1), 3), 9, 6),
}


def dense(operator, height, width):
    """The matrix of the operator, column by column."""
    units = torch.eye(height * width, dtype=torch.float64).view(-1, 1, height, width)
    return operator(units).flatten(1).T


@pytest.mark.parametrize("name", CASES)
def test_adjoint_is_the_transpose(name):
    operator, height, width = CASES[name]
    y = operator(noise(2, 3, height, width))
    assert operator.adjoint(y).shape == (2, 3, height, width)
    matrix = dense(operator, height, width)
    expected = (y.flatten(2) @ matrix).view(2, 3, height, width)
    assert_close(operator.adjoint(y), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weight", [1e-3, 0.3])
def test_data_step_solves_the_normal_equations(name, weight):
    operator, height, width = CASES[name]
    v = noise(2, 2, height, width, seed=1)
    y = operator(noise(2, 2, height, width, seed=2)) + 0.1
    weights = torch.tensor([weight, 10 * weight], dtype=torch.float64)
    matrix = dense(operator, height, width)
    eye = torch.eye(height * width, dtype=torch.float64)
    for image, w in enumerate(weights):
        right = matrix.T @ y[image].flatten(1).T + w * v[image].flatten(1).T
        expected = torch.linalg.solve(matrix.T @ matrix + w * eye, right).T.view(2, height, width)
        assert_close(operator.data_step(v, y, weights)[image], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_single_precision(name):
    operator, height, width = CASES[name]
    v, y = noise(2, 1, height, width, seed=1), operator(noise(2, 1, height, width, seed=2))
    weight = torch.full((2,), 0.01, dtype=torch.float64)
    single = operator.data_step(v.float(), y.float(), weight.float())
    assert single.dtype == torch.float32
    assert_close(single.double(), operator.data_step(v, y, weight), atol=5e-3, rtol=0)


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_circular_blur_is_scipys(extra_rows, extra_columns, scale, seed):
    kernel = random_kernel(3 + 2 * extra_rows, 1 + 2 * extra_columns, seed)
    x = noise(1, 1, 12, 6 * scale, seed=seed)
    expected = convolve(x[0, 0].numpy(), kernel.numpy(), mode="wrap")[::scale, ::scale]
    assert_close(CircularBlur(kernel, scale)(x)[0, 0].numpy(), expected, atol=1e-12, rtol=0)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=25)
def test_valid_blur_is_scipys(height, width, seed):
    kernel = random_kernel(height, width, seed)
    x = noise(1, 1, 11, 13, seed=seed)
    operator = ValidBlur(kernel, centre=(height // 2, width // 3))
    expected = convolve2d(x[0, 0].numpy(), kernel.numpy(), mode="valid")
    assert_close(operator(x)[0, 0].numpy(), expected, atol=1e-12, rtol=0)
    assert operator.clean_size(*expected.shape) == (11, 13)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_reduction_is_that_of_images(scale, circular):
    x = noise(1, 3, 16 * scale, 20 * scale)
    small = images.downscale_bicubic(x, scale)
    operator = bicubic_reduction(scale, circular)
    # The valid operator sees more than the image: put the image where it would be aligned.
    padded = x if circular else torch.zeros(1, 3, *operator.clean_size(16, 20), dtype=torch.float64)
    if not circular:
        operator.aligned(padded, 16, 20).copy_(x)
    assert_close(operator(padded)[..., 3:-3, 3:-3], small[..., 3:-3, 3:-3], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "operator",
    [
        CircularBlur(random_kernel(5, 3)),
        ValidBlur(random_kernel(5, 3)),
        ValidBlur(motion_kernel(11, 15, torch.Generator().manual_seed(3))),
        ValidBlur(random_kernel(4, 4), centre=(3, 0)),
        bicubic_reduction(2),
        bicubic_reduction(3),
        bicubic_reduction(2, circular=True),
        CircularBlur(gaussian_kernel(1.2), 3),
    ],
)
def test_first_guess_of_a_ramp_is_the_ramp(operator):
    """Blur moves a straight ramp by its centre of mass alone, which the first guess undoes.

    PyTorch's cubic (a = -0.75) misses ramps by up to 0.07 pixels at places between pixels.
    """
    height, width = operator.clean_size(16, 20)
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in (height, width))
    ramp = (2 * rows[:, None] - columns)[None, None]
    guess = operator.first_guess(operator(ramp))
    assert guess.shape == ramp.shape
    error = (guess - ramp)[..., height // 3 : -(height // 3), width // 3 : -(width // 3)]
    assert float(error.mean().abs()) < 0.25
    assert float(error.abs().max()) < 0.4


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_aligned_lies_under_the_observation(scale):
    kernel = torch.zeros(5, 7, dtype=torch.float64)
    kernel[2, 3] = 1  # no blur
    operator = ValidBlur(kernel, scale)
    x = noise(1, 1, *operator.clean_size(4, 5))
    aligned = operator.aligned(x, 4, 5)
    assert aligned.shape == (1, 1, 4 * scale, 5 * scale)
    assert_close(operator(x), aligned[..., ::scale, ::scale], atol=1e-12, rtol=0)


def test_mask_fills_from_neighbours():
    known = torch.zeros(1, 1, 5, 5)
    known[..., 1, 1], known[..., 1, 2] = 1, 1
    y = torch.zeros(1, 1, 5, 5)
    y[..., 1, 1], y[..., 1, 2] = 0.2, 0.6
    filled = Mask(known).first_guess(y)[0, 0]
    expected = torch.tensor(
        [
            [0.2, 0.4, 0.4, 0.6, 0.6],
            [0.2, 0.2, 0.6, 0.6, 0.6],
            [0.2, 0.4, 0.4, 0.6, 0.6],
            [0.4, 0.4, 0.4, 0.4, 0.6],
            [0.4, 0.4, 0.4, 0.4, 0.4],
        ]
    )
    assert_close(filled, expected, atol=1e-6, rtol=0)


def test_kernels():
    for kernel in (gaussian_kernel(1.7), motion_kernel(25, 35, torch.Generator().manual_seed(1)), bicubic_kernel(3)[0]):
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    offsets = torch.arange(-7.0, 8.0).double()
    variance = (gaussian_kernel(1.7).sum(0) * offsets**2).sum()
    assert float(variance) == pytest.approx(1.7**2, rel=1e-3)


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_motion_kernels_stay_inside_and_fill_the_frame(seed):
    kernel = motion_kernel(25, 35, torch.Generator().manual_seed(seed))
    assert float(kernel.min()) == 0
    rows, columns = (kernel.sum(1).nonzero().flatten(), kernel.sum(0).nonzero().flatten())
    assert int(rows[-1] - rows[0]) in (20, 21)
    assert int(columns[-1] - columns[0]) in (30, 31)
    connected = convolve((kernel > 0).numpy().astype(int), np.ones((3, 3), int), mode="constant")
    assert connected[(kernel > 0).numpy()].min() >= 2  # no lone pixel


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: check_kernel(torch.ones(3, 3)), "sum to 1, got a sum of 9"),
        (lambda: check_kernel(torch.full((2, 3), 1 / 6)), "odd sides, got 2x3"),
        (lambda: check_kernel(torch.full((3, 3), float("nan"))), "sum of nan"),
        (lambda: CircularBlur(random_kernel(4, 4)), "odd sides"),
        (lambda: ValidBlur(random_kernel(4, 4), centre=(4, 0)), "centre within the kernel of 4x4"),
        (lambda: CircularBlur(random_kernel(3, 3), 2)(noise(1, 1, 5, 4)), "multiples of the scale 2, got 5x4"),
        (lambda: ValidBlur(random_kernel(9, 9))(noise(1, 1, 5, 20)), "images of 5x20 hold no pixel"),
        (lambda: Mask(torch.full((1, 1, 2, 2), 0.5)), "zeros .missing. and ones"),
        (lambda: Mask(torch.ones(1, 1, 2, 2))(noise(1, 1, 2, 3)), "images of 2x2 like the mask, got 2x3"),
        (lambda: gaussian_kernel(0.0), "positive sigma"),
        (lambda: motion_kernel(5, 9, torch.Generator()), "at least 7, got 5x9"),
        (lambda: bicubic_reduction(0), "at least 1, got 0"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ShapeError, match=message):
        build()


@pytest.mark.parametrize("scale", [1, 3])
def test_the_autocorrelation_of_a_large_kernel(scale):
    """Against the definition, at some lags; summed up directly, one of 201x201 would take 13 GB."""
    kernel = torch.rand(201, 203, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel /= kernel.sum()
    lags = ValidBlur(kernel, scale)._lags(torch.device("cpu"))
    middle = [side // 2 for side in lags.shape]
    for down, right in ((0, 0), (1, -2), (-3, 5), (60, 60)):
        dy, dx = scale * down, scale * right
        a = kernel[max(dy, 0) : 201 + min(dy, 0), max(dx, 0) : 203 + min(dx, 0)]
        b = kernel[max(-dy, 0) : 201 + min(-dy, 0), max(-dx, 0) : 203 + min(-dx, 0)]
        torch.testing.assert_close(lags[middle[0] + down, middle[1] + right], (a * b).sum())

"""What of a kernel raises waves: against responses known by formula."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from synthpipe.kernels.response import amplitudes
from synthpipe.kernels.sharpening import sharpening_part
from tests.kernels.known_kernels import gaussians

FREQUENCIES = (0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.47)


def gaussian_response(sigma: float) -> torch.Tensor:
    return torch.tensor([math.exp(-2 * (math.pi * sigma * f) ** 2) for f in FREQUENCIES], dtype=torch.float64)


def test_a_blur_has_none() -> None:
    assert_close(sharpening_part(gaussians(1.2)), torch.zeros(1, 21, 21, dtype=torch.float64), atol=1e-6, rtol=0)


def test_an_unsharp_mask_is_all_of_it() -> None:
    mask = -0.5 * gaussians(1.5)
    mask[:, 10, 10] += 1.5
    point = torch.zeros(1, 21, 21, dtype=torch.float64)
    point[:, 10, 10] = 1
    assert_close(mask - sharpening_part(mask), point, atol=1e-5, rtol=0)


def test_a_sharpened_blur_falls_into_both() -> None:
    side = 41
    grid = 256
    frequency = torch.fft.fftfreq(grid, dtype=torch.float64)
    square = frequency[:, None].square() + frequency.square()
    blur = (-2 * math.pi**2 * 0.5**2 * square).exp()
    halo = (-2 * math.pi**2 * 1.5**2 * square).exp()
    response = blur * (1 + 0.8 * (1 - halo))
    whole = torch.fft.fftshift(torch.fft.ifft2(response).real)
    half = side // 2
    kernel = whole[None, grid // 2 - half : grid // 2 + half + 1, grid // 2 - half : grid // 2 + half + 1]
    kernel = kernel / kernel.sum()
    expected = gaussian_response(0.5) * (1 + 0.8 * (1 - gaussian_response(1.5)))
    assert float(expected.max()) > 1.2 > 0.9 > float(expected.min())  # both kinds are in it

    part = sharpening_part(kernel)
    assert abs(float(part.sum())) < 1e-12
    rest = kernel - part
    assert_close(amplitudes(rest, FREQUENCIES)[0], expected.clamp(max=1), atol=0.02, rtol=0)
    point = torch.zeros_like(kernel)
    point[:, half, half] = 1
    assert_close(amplitudes(point + part, FREQUENCIES)[0], expected.clamp(min=1), atol=0.02, rtol=0)

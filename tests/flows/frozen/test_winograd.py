"""Convolutions by tiles, against torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from synthpipe.flows.frozen.upsampled_conv import UpsampledConv
from synthpipe.flows.frozen.winograd import WinogradConvs


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 3), seed=st.integers(0, 1000))
def test_are_the_plain_convolutions(height: int, width: int, channels: int, seed: int) -> None:
    x = noise(2, channels, height, width, seed=seed)
    weight, bias = noise(6, channels, 3, 3, seed=seed + 1), noise(6, seed=seed)
    results = list(WinogradConvs(weight, bias, 2)(x))
    assert_close(torch.cat(results, 1), F.conv2d(x, weight, bias, padding=1), atol=1e-11, rtol=0)


@given(factor=st.sampled_from([2, 4, 8, 16]), height=st.integers(1, 3), width=st.integers(1, 3))
def test_enlarged_maps_add_to_them(factor: int, height: int, width: int) -> None:
    own, small = noise(2, 2, factor * height, factor * width), noise(2, 3, height, width)
    weight, bias = noise(6, 5, 3, 3), noise(6)
    whole = torch.cat([own, F.interpolate(small, scale_factor=float(factor))], 1)
    convs = WinogradConvs(weight[:, :2], bias, 3, [UpsampledConv(weight[:, 2:], factor)])
    assert_close(torch.cat(list(convs(own, [small])), 1), F.conv2d(whole, weight, bias, padding=1), atol=1e-11, rtol=0)


def test_rounding_in_float32_is_a_few_times_that_of_the_plain_convolution() -> None:
    x, weight = noise(1, 64, 32, 32).relu(), 0.05 * noise(32, 64, 3, 3)
    exact = F.conv2d(x, weight, padding=1)
    bias = torch.zeros(32)
    error = torch.cat(list(WinogradConvs(weight.float(), bias, 1)(x.float())), 1).double() - exact
    plain = F.conv2d(x.float(), weight.float(), padding=1).double() - exact
    assert float(error.square().mean().sqrt()) < 6 * float(plain.square().mean().sqrt())


def test_an_images_numbers_are_its_own() -> None:
    x, weight, bias = noise(3, 5, 10, 6).float(), noise(4, 5, 3, 3).float(), noise(4).float()
    (together,) = WinogradConvs(weight, bias, 1)(x)
    for image in range(3):
        (alone,) = WinogradConvs(weight, bias, 1)(x[image : image + 1])
        assert torch.equal(alone[0], together[image])

"""Convolution of an enlarged map at its own size, against enlarging it first."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.flows.frozen.upsampled_conv import UpsampledConv, cell_differences


@given(
    factor=st.sampled_from([1, 2, 3, 4, 8]),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_is_the_convolution_of_the_enlarged_map(factor: int, height: int, width: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, channels, 3, 3, generator=generator, dtype=torch.float64)
    enlarged = F.interpolate(x, scale_factor=float(factor), mode="nearest")
    assert_close(UpsampledConv(weight, factor)(x), F.conv2d(enlarged, weight, padding=1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_adds_the_asked_output_channels(layout: torch.memory_format) -> None:
    x, weight = torch.randn(2, 2, 3, 4).double(), torch.randn(5, 2, 3, 3).double()
    out = torch.ones(2, 2, 6, 8, dtype=torch.float64).contiguous(memory_format=layout)
    conv = UpsampledConv(weight, 2)
    conv.add_to(out, cell_differences(x), slice(1, 3))
    assert_close(out, 1 + conv(x)[:, 1:3])


@pytest.mark.parametrize(("size", "factor"), [(5, 2), (1, 2), (3, 0)])
def test_other_kernels_and_factors_are_refused(size: int, factor: int) -> None:
    with pytest.raises(ShapeError, match="expected kernels of 3x3 and factor >= 1"):
        UpsampledConv(torch.zeros(1, 1, size, size), factor)

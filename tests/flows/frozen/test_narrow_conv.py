"""Two pixels at once, against torch's own convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from synthpipe.flows.frozen.narrow_conv import narrow_conv, paired, pairs_pay


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (3, 6), (4, 8)])
def test_is_the_plain_convolution(height: int, width: int, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 5, height, width), (3, 5, 3, 3), (3,))
    )
    result = narrow_conv(x.contiguous(memory_format=layout), *paired(weight, bias))
    assert_close(result, F.conv2d(x, weight, bias, padding=1), atol=1e-12, rtol=0)


def test_is_for_few_outputs_of_even_width_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    x = torch.zeros(1, 4, 6, 6)
    assert pairs_pay(x, 6)
    assert not pairs_pay(x, 12)
    assert not pairs_pay(x[..., :5], 6)
    assert not pairs_pay(x.double(), 6)
    assert not pairs_pay(x.to("meta"), 6)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not pairs_pay(x, 6)

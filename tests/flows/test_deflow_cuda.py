"""DeFlow on a GPU: the images of the CPU, and a round trip that TF32 does not round; its bound is tried on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.flows import invertible_conv
from tests.flows.test_deflow import generators, images, tiny

#: Largest difference after a round trip of ``tiny(steps=4)`` on 64x64: at most 1.4e-5 where all is float32 (five
#: images, CPU), 8e-5 where the convolutions of the sub-networks are in TF32 as cuDNN may have them (they are the same
#: both ways), and 1e-2 where the 1x1 convolutions are.
BETWEEN_FLOAT32_AND_TF32 = 2e-4


def to_tf32(x: Tensor) -> Tensor:
    """float32 rounded to TF32's 10 bits of mantissa, ties to even."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize(("rounded", "low", "high"), [(False, 0, 2e-5), (True, 5e-3, 1)])
def test_the_bound_on_cuda_tells_float32_from_tf32(
    rounded: bool, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rounded:
        product = invertible_conv._conv1x1
        monkeypatch.setattr(invertible_conv, "_conv1x1", lambda x, w: product(to_tf32(x), to_tf32(w)))
    x = images(2, 64, 64).float()
    error = (tiny(steps=4).float().degrade(x, generators(0, 1), strength=0) - x).abs().max()
    assert low <= error < high
    assert (error > BETWEEN_FLOAT32_AND_TF32) == rounded


@pytest.mark.gpu
class TestOnCuda:
    def test_same_images_as_on_the_cpu(self) -> None:
        """Noise comes from CPU generators, so that a seed means the same image on every machine."""
        model, x = tiny(), images(2, 24, 16)
        on_cpu = model.degrade(x, generators(0, 1))
        on_gpu = model.cuda().degrade(x.cuda(), generators(0, 1))
        assert_close(on_gpu.cpu(), on_cpu, atol=1e-8, rtol=0)

    def test_level_and_correction_give_the_images_of_the_cpu(self) -> None:
        correction = {"brightness": 3, "levels": 2, "side": 3}
        model, x = tiny(covariance="colour", level=True, correction=correction), images(2, 24, 16)
        for level in (None, 0.015):
            on_cpu = model.cpu().degrade(x, generators(0, 1), level=level)
            on_gpu = model.cuda().degrade(x.cuda(), generators(0, 1), level=level)
            assert_close(on_gpu.cpu(), on_cpu, atol=1e-8, rtol=0)

    def test_round_trip_in_float32_is_not_rounded_to_tf32(self) -> None:
        model = tiny(steps=4).float().cuda()
        x = images(2, 64, 64).float().cuda()
        y = model.degrade(x, generators(0, 1), strength=0)
        assert_close(y, x, atol=BETWEEN_FLOAT32_AND_TF32, rtol=0)

    def test_round_trip_under_autocast(self) -> None:
        model = tiny(steps=4).float().cuda()
        x = images(2, 64, 64).float().cuda()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            y = model.degrade(x, generators(0, 1), strength=0)
            nll = model.nll(x, torch.tensor([0, 1], device="cuda"))
        assert y.dtype == nll.dtype == torch.float32
        assert torch.isfinite(nll).all()
        assert_close(y, x, atol=2e-3, rtol=0)

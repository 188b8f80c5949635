"""The contract's own machinery, with a denoiser that anyone can work out; and a battery that finds what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.denoisers import Denoiser
from tests import denoiser_contract as contract


class Shrink(Denoiser):
    """``x`` towards the mean of 3x3 pixels by ten times the level; channels weighted 1, 2, 3 so that none are alike."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"channels": channels}
        self.channels = channels
        self.gain = nn.Parameter(torch.ones(()))

    @property
    def reach(self) -> int:
        return 1

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        share = self.gain * 10 * sigma[:, None, None, None]
        weights = torch.arange(1, x.shape[1] + 1).to(x)[:, None, None]
        return x + weights * share * (F.avg_pool2d(x, 3, 1, 1) - x)


def test_grey_goes_through_colour_as_three_equal_channels_and_comes_back_as_their_mean() -> None:
    x, sigma = torch.rand(1, 1, 5, 5), torch.tensor([0.05])
    expected = x + 2 * 0.5 * (F.avg_pool2d(x, 3, 1, 1) - x)  # the mean of the weights 1, 2, 3 is 2
    torch.testing.assert_close(Shrink(3).denoise(x, sigma), expected)


def test_colour_goes_through_grey_channel_by_channel_with_its_images_level() -> None:
    x, sigma = torch.rand(2, 3, 5, 5), torch.tensor([0.0, 0.1])
    result = Shrink(1).denoise(x, sigma)
    assert torch.equal(result[0], x[0])
    torch.testing.assert_close(result[1], F.avg_pool2d(x, 3, 1, 1)[1])


def test_the_level_is_estimated_for_each_image_where_none_is_told() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([0.02, 0.09])
    x = 0.5 + true[:, None, None, None] * torch.randn(2, 3, 128, 128, generator=generator)
    change = (Shrink(3).denoise(x) - x) / (F.avg_pool2d(x, 3, 1, 1) - x)  # ten times the level, times 1, 2, 3
    torch.testing.assert_close(change[:, 0].flatten(1).median(1).values / 10, true, rtol=0.05, atol=0)


def test_levels_may_be_of_another_type() -> None:
    x = torch.rand(1, 3, 4, 4)
    assert Shrink().denoise(x, torch.tensor([0.1], dtype=torch.float64)).dtype == torch.float32
    assert torch.equal(Shrink().denoise(x, torch.tensor([0])), x)


class LooksFurther(Shrink):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return super().forward(super().forward(x, sigma), sigma)


class SaysTooFar(Shrink):
    @property
    def reach(self) -> int:
        return 2


class NormalisesTheBatch(Shrink):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return super().forward(x, sigma) - x.mean()


class MovesInPlace(Shrink):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x.mul_(0.9)


class NeedsEvenSides(Shrink):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, 2, ceil_mode=True), scale_factor=2)


class IsTheIdentity(Shrink):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return 1.0 * x


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (contract.check_reach, LooksFurther),
        (contract.check_reach, SaysTooFar),
        (contract.check_tiles, LooksFurther),
        (contract.check_images_are_apart, NormalisesTheBatch),
        (contract.check_sizes, MovesInPlace),
        (contract.check_sizes, NeedsEvenSides),
        (contract.check_grey_and_colour, IsTheIdentity),
    ],
)
def test_the_battery_finds_what_breaks_the_contract(
    check: Callable[[Denoiser], None], broken: type[Shrink], tmp_path: Path
) -> None:
    check(Shrink().double())
    with pytest.raises(AssertionError):
        check(broken().double())

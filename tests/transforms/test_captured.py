"""Captured functions: plain calls on the CPU; on a GPU the plain call's numbers from one launch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.transforms.captured import CapturedFunction


def test_on_the_cpu_the_function_itself_is_called() -> None:
    seen = []

    def double(x: Tensor) -> Tensor:
        seen.append(x)
        return 2 * x

    captured = CapturedFunction(double, most=1)
    for side in (2, 3, 4):  # no shape is kept, so none is too many
        x = torch.ones(side)
        assert torch.equal(captured(x), 2 * x)
        assert seen[-1] is x


@pytest.mark.gpu
def test_on_the_gpu_replays_give_the_plain_numbers() -> None:
    model = checkpoints.load("deflow_small")
    assert isinstance(model, DeFlow)
    frozen = FrozenDeFlow(model).cuda()

    def degrade(x: Tensor, seeds: Tensor) -> Tensor:
        return frozen.degrade_with(x, SeededNoise(seeds))

    captured = CapturedFunction(degrade)
    for seed in range(3):
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).cuda()
        seeds = torch.tensor([seed, seed + 100]).cuda()
        first = captured(x, seeds)
        assert_close(first, degrade(x, seeds), atol=1e-5, rtol=0)
        again = captured(x, seeds + 1)
        assert not torch.equal(again, first)
        assert torch.equal(captured(x, seeds), first)  # what came before was not overwritten, and comes again


@pytest.mark.gpu
def test_on_the_gpu_too_many_shapes_are_refused() -> None:
    captured = CapturedFunction(lambda x: x + 1, most=1)
    captured(torch.zeros(2, device="cuda"))
    with pytest.raises(ShapeError, match="pad batches to one shape"):
        captured(torch.zeros(3, device="cuda"))

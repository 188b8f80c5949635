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
from tests.recorded import record_on_cpu


def test_on_the_cpu_the_function_itself_is_called() -> None:
    seen = []

    def double(x: Tensor) -> tuple[Tensor]:
        seen.append(x)
        return (2 * x,)

    captured = CapturedFunction(double, rows=2, most=1)
    for side in (2, 3, 4):  # no shape is kept, so none is too many, and nothing is filled up
        x = torch.ones(side)
        assert torch.equal(captured(x)[0], 2 * x)
        assert seen[-1] is x


def twice_and_sum(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two rows for each, and one."""
    return torch.repeat_interleave(x + y, 2, 0), (x - y).sum(1)


def test_a_recording_is_filled_with_each_calls_numbers() -> None:
    captured = CapturedFunction(twice_and_sum, record=record_on_cpu)
    first = captured(torch.ones(3, 2), torch.zeros(3, 2))
    assert torch.equal(first[0], torch.ones(6, 2))
    x, y = torch.rand(3, 2), torch.rand(3, 2)
    second = captured(x, y)
    for found, expected in zip(second, twice_and_sum(x, y), strict=True):
        assert torch.equal(found, expected)
    # the caller has to be through with the first
    assert all(one.data_ptr() == other.data_ptr() for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("counts", [(4, 1, 3, 4), (2, 4, 1)])
def test_short_inputs_are_filled_up_and_outputs_cut(counts: tuple[int, ...]) -> None:
    shapes = []

    def watched(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(len(x))
        assert torch.isfinite(x).all()
        return twice_and_sum(x, y)

    captured = CapturedFunction(watched, rows=4, most=1, record=record_on_cpu)
    for count in counts:
        x, y = torch.rand(count, 2), torch.rand(count, 2)
        found = captured(x, y)
        assert (len(found[0]), len(found[1])) == (2 * count, count)
        for value, expected in zip(found, twice_and_sum(x, y), strict=True):
            assert torch.equal(value, expected)
    assert set(shapes) == {4}


def test_too_many_shapes_and_rows_are_refused() -> None:
    captured = CapturedFunction(lambda x: (x + 1,), most=1, record=record_on_cpu)
    captured(torch.zeros(2))
    assert captured.takes(torch.ones(2))
    assert not captured.takes(torch.ones(3))
    with pytest.raises(ShapeError, match="pad batches to one shape"):
        captured(torch.zeros(3))
    with pytest.raises(ShapeError, match="at most 2 rows, got 3"):
        CapturedFunction(lambda x: (x,), rows=2, record=record_on_cpu)(torch.zeros(3))


def test_inputs_of_another_type_are_a_recording_of_their_own() -> None:
    captured = CapturedFunction(twice_and_sum, rows=4, most=2, record=record_on_cpu)
    whole = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6], [7, 8]])
    fine = whole[0] + 0.25, whole[1] + 0.75
    for inputs in (whole, fine, whole):
        for found, expected in zip(captured(*inputs), twice_and_sum(*inputs), strict=True):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)
    assert not captured.takes(*(value.double() for value in fine))


@pytest.mark.parametrize("counts", [(3, 1), (1, 3), (3, 4)])
@pytest.mark.parametrize("known", [False, True])
def test_inputs_of_different_lengths_are_refused(counts: tuple[int, int], known: bool) -> None:
    captured = CapturedFunction(twice_and_sum, rows=4, record=record_on_cpu)
    if known:
        captured(torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="each row needs all"):
        captured(torch.zeros(counts[0], 2), torch.zeros(counts[1], 2))


def test_no_rows_give_no_rows() -> None:
    captured = CapturedFunction(twice_and_sum, rows=4, record=record_on_cpu)
    for _ in range(2):
        found = captured(torch.zeros(0, 2), torch.zeros(0, 2))
        assert [tuple(value.shape) for value in found] == [(0, 2), (0,)]
        captured(torch.ones(1, 2), torch.ones(1, 2))


def test_inputs_need_not_lie_in_one_piece() -> None:
    captured = CapturedFunction(twice_and_sum, rows=4, record=record_on_cpu)
    x, y = torch.rand(2, 3).T, torch.rand(1, 2).expand(3, 2)
    for _ in range(2):
        for found, expected in zip(captured(x, y), twice_and_sum(x, y), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.gpu
def test_on_the_gpu_replays_give_the_plain_numbers() -> None:
    model = checkpoints.load("deflow_small")
    assert isinstance(model, DeFlow)
    frozen = FrozenDeFlow(model).cuda()

    def degrade(x: Tensor, seeds: Tensor) -> tuple[Tensor]:
        return (frozen.degrade_with(x, SeededNoise(seeds)),)

    captured = CapturedFunction(degrade, rows=2)
    for seed in range(3):
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).cuda()
        seeds = torch.tensor([seed, seed + 100])
        first = captured(x, seeds.pin_memory())[0].clone()
        assert_close(first, degrade(x, seeds.cuda())[0], atol=1e-5, rtol=0)
        again = captured(x, seeds.cuda() + 1)[0].clone()
        assert not torch.equal(again, first)
        assert torch.equal(captured(x, seeds.cuda())[0], first)
        alone = captured(x[1:], seeds[1:])[0]
        assert_close(alone, first[1:], atol=1e-5, rtol=0)


@pytest.mark.gpu
def test_on_the_gpu_too_many_shapes_are_refused() -> None:
    captured = CapturedFunction(lambda x: (x + 1,), most=1)
    captured(torch.zeros(2, device="cuda"))
    with pytest.raises(ShapeError, match="pad batches to one shape"):
        captured(torch.zeros(3, device="cuda"))

"""What follows a gradient: a step that is not finite changes no bit, its neighbours go on, and it is told of."""

from __future__ import annotations

import copy
import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from synthpipe.config.reader import parse_options
from synthpipe.config.run import RunOptions
from synthpipe.errors import TrainingError
from synthpipe.training.base import Objective
from synthpipe.training.step.average import WarmedAverage
from synthpipe.training.step.bad_steps import BadSteps, is_bad
from synthpipe.training.step.optimizer import build_optimizer, load_optimizer, skip_if
from synthpipe.transforms.batch import Batch


class Net(nn.Module):
    """Weights of several shapes, and a buffer."""

    counted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(shape) for shape in [(3, 4), (5,), ()])
        self.register_buffer("counted", torch.tensor(0))


class NetObjective(Objective[Net]):
    def forward(self, batch: Batch, seeds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def pictures(self, model: Net, batch: Batch, seed: int) -> Tensor:
        raise NotImplementedError


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def made(kind: str = "adam", device: str = "cpu", **changes: Any) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    objective = NetObjective(Net()).to(device)
    optimizer = {"kind": kind, "lr": 0.01, "weight_decay": 0.1}
    options = parse_options({"kind": "x", "run_dir": "run", "optimizer": optimizer, **changes}, RunOptions)
    return objective.model, build_optimizer(options, objective)


def step(net: Net, optimizer: torch.optim.Optimizer, gradient: float, bad: float = 0.0) -> None:
    for number, weight in enumerate(net.weights):
        weight.grad = torch.full_like(weight, gradient * (1 + number))
    skip_if(optimizer, torch.tensor(bad, device=net.counted.device))
    optimizer.step()


def everything(*parts: Any) -> list[Tensor]:
    """Copies of all tensors in some states."""
    found: list[Tensor] = []

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            found.append(value.detach().clone())
        elif isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(parts)
    return found


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@pytest.mark.parametrize("gradient", [math.nan, math.inf, 1.0])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_a_bad_step_changes_no_bit_of_weights_moments_and_average(
    kind: str, gradient: float, first: bool, device: str
) -> None:
    net, optimizer = made(kind, device)
    average = WarmedAverage(net, 0.9)
    if not first:
        step(net, optimizer, 0.5)
        average.follow(torch.tensor(0.0, device=device))
    else:  # the moments are made by the first step, good or bad
        step(net, optimizer, gradient, bad=1.0)
    before = everything(net.state_dict(), optimizer.state_dict(), average.state_dict())
    step(net, optimizer, gradient, bad=1.0)
    average.follow(torch.tensor(1.0, device=device))
    after = everything(net.state_dict(), optimizer.state_dict(), average.state_dict())
    assert len(before) == len(after) > 10
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_good_steps_around_a_bad_one_are_those_without_it() -> None:
    states = []
    for pattern in ([0.5, 2.0], [math.nan, 0.5, math.inf, 2.0]):
        net, optimizer = made()
        average = WarmedAverage(net, 0.9)
        for gradient in pattern:
            bad = is_bad(torch.tensor(1.0), torch.tensor(gradient))
            step(net, optimizer, gradient, float(bad))
            average.follow(bad)
        states.append(everything(net.state_dict(), optimizer.state_dict(), average.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_fused_updates_are_those_of_the_plain_loop(kind: str) -> None:
    net, optimizer = made(kind)
    twin = copy.deepcopy(net)
    plain = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    peer = plain(twin.parameters(), lr=0.01, weight_decay=0.1, foreach=False, fused=False)  # type: ignore[operator]
    for gradient in (0.5, -2.0, 1e-3):
        step(net, optimizer, gradient)
        for ours, theirs in zip(net.weights, twin.weights, strict=True):
            theirs.grad = None if ours.grad is None else ours.grad.clone()
        peer.step()
        for ours, theirs in zip(net.weights, twin.weights, strict=True):
            assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_state_of_the_plain_loop_goes_on_fused() -> None:
    net, optimizer = made()
    step(net, optimizer, 0.5)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:  # as earlier versions wrote them
        group["fused"] = None
    load_optimizer(optimizer, saved)
    assert optimizer.param_groups[0]["fused"] is True
    before = everything(net.state_dict())
    step(net, optimizer, math.nan, bad=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(net.state_dict()), strict=True))


def test_the_scaled_loss_has_an_optimiser_that_its_scaler_can_unscale() -> None:
    _, optimizer = made(precision="16-mixed")
    assert not optimizer.param_groups[0]["fused"]
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_the_average_is_the_recursion_and_takes_buffers_when_asked() -> None:
    net = Net()
    average = WarmedAverage(net, 0.3)
    expected = [weight.detach().clone() for weight in net.weights]
    for count in range(8):
        with torch.no_grad():
            for weight in net.weights:
                weight.add_(torch.randn_like(weight))
        net.counted += 1
        average.follow(torch.tensor(0.0))
        decay = 0.0 if count == 0 else min(0.3, (1 + count) / (10 + count))
        expected = [decay * old + (1 - decay) * new.detach() for old, new in zip(expected, net.weights, strict=True)]
        for ours, wanted in zip(average.module.weights, expected, strict=True):
            assert_close(ours.detach(), wanted, rtol=1e-5, atol=1e-6)
    assert int(average.n_averaged) == 8
    average.take_buffers()
    assert int(average.module.counted) == 8


@pytest.mark.parametrize(
    ("loss", "norm", "wanted"), [(1, 2, 0), (math.nan, 2, 1), (1, math.inf, 1), (-math.inf, math.nan, 1)]
)
def test_what_is_not_finite(loss: float, norm: float, wanted: int) -> None:
    assert float(is_bad(torch.tensor(float(loss)), torch.tensor(float(norm)))) == wanted


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_is_told_of_when_the_next_is_added_or_the_count_is_settled(
    caplog: pytest.LogCaptureFixture, device: str
) -> None:
    steps = BadSteps(1)
    one, bad = torch.tensor(1.0, device=device), torch.tensor(math.nan, device=device)
    with caplog.at_level(logging.WARNING):
        steps.add(1, bad, one)
        assert (steps.in_all, caplog.text) == (0, "")
        steps.add(2, one, one)
        assert (steps.in_a_row, steps.in_all) == (1, 1)
        assert "step 1 skipped: loss nan, gradient norm 1" in caplog.text
        steps.add(3, one, bad)
        assert steps.in_a_row == 0
        steps.settle()
        steps.settle()
        assert (steps.in_a_row, steps.in_all) == (1, 2)
        steps.add(4, bad, one)
        with pytest.raises(TrainingError, match=r"2 steps in a row .*max_bad_steps=1 .*step 4, loss nan"):
            steps.settle()

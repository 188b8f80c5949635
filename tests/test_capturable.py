"""The check itself: it takes what a CUDA graph takes and refuses the rest, one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from tests.capturable import RefuseHost, check_capturable

SEED_OFFSET = torch.tensor([1])

REFUSED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "item": (lambda x: x.sum().item(), "asks the device for a value"),
    "bool": (lambda x: bool((x > 0).all()), "asks the device for a value"),
    "if": (lambda x: x if x.mean() > 0.5 else -x, "asks the device for a value"),
    "float": (lambda x: float(x.mean()), "asks the device for a value"),
    "equal": (lambda x: torch.equal(x, x + 1), "asks the device for a value"),
    "nonzero": (lambda x: (x > 0.5).nonzero(), "has a size that depends on values"),
    "masked_select": (lambda x: torch.masked_select(x, x > 0.5), "has a size that depends on values"),
    "unique": (lambda x: x.unique(), "has a size that depends on values"),
    "mask": (lambda x: x[x > 0.5], "indexes by a mask"),
    "mask, writing": (lambda x: x.clone().__setitem__(x > 0.5, 0.0), "from data of the host"),
    "mask, writing a tensor": (lambda x: x.clone().__setitem__(x > 0.5, x[0, 0, 0, 0]), "indexes by a mask"),
    "rows by a mask": (lambda x: x[x.flatten(1).mean(1) > 0.5], "indexes by a mask"),
    "list": (lambda x: x[[0, 0]], "host"),
    "list, writing": (lambda x: x.clone().__setitem__(([0],), 0.0), "host"),
    "tensor": (lambda x: x + torch.tensor([0.5]), "makes a tensor from data of the host"),
    "number": (lambda x: x * torch.tensor(0.5), "makes a tensor from data of the host"),
    "new_tensor": (lambda x: x.new_tensor([0.5]), "makes a tensor from data of the host"),
    "randn": (lambda x: x + torch.randn_like(x), "draws from a generator"),
    "dropout": (lambda x: F.dropout(x, 0.5), "draws from a generator"),
}
TAKEN: dict[str, Callable[[Tensor], object]] = {
    "where": lambda x: torch.where(x > 0.5, x, torch.nan),
    "full": lambda x: x / x.new_full((), 255) + torch.full((1,), 2.0, device=x.device),
    "arange": lambda x: x.index_select(2, torch.arange(2, device=x.device)),
    "gather": lambda x: x.gather(3, x.argsort(3)),
    "slices": lambda x: x.clone()[:, 1:, 2].mul_(2),
    "convolution": lambda x: F.conv2d(x, x[:2, :, :3, :3], padding=1),
    "percentile": lambda x: x.flatten(1).kthvalue(3).values + x.flatten(1).median(1).values,
    "norm": lambda x: x.flatten(1).norm(dim=1),
}


def image() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_hold_is_refused(name: str) -> None:
    function, message = REFUSED[name]
    x = image()
    with pytest.raises(AssertionError, match=message), RefuseHost():
        function(x)
    function(x)  # outside it works


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_graph_holds_is_taken(name: str, device: str) -> None:
    x = image().to(device)
    expected = TAKEN[name](x)
    with RefuseHost():
        found = TAKEN[name](x)
    assert isinstance(found, Tensor)
    assert isinstance(expected, Tensor)
    if device == "cpu":
        assert_close(found, expected, equal_nan=True)
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)


@pytest.mark.parametrize("solve", [torch.linalg.inv, torch.linalg.eigvalsh, torch.linalg.cholesky, torch.linalg.det])
def test_solvers_are_refused_off_the_cpu(solve: Callable[[Tensor], Tensor]) -> None:
    with RefuseHost():
        solve(torch.eye(3))
    there = torch.eye(3, device="meta")
    with pytest.raises(AssertionError, match="may wait for the device"), RefuseHost():
        solve(there)


@pytest.mark.parametrize("call", [Tensor.tolist, Tensor.numpy])
def test_what_reads_the_memory_of_a_cpu_tensor_fails_on_meta(call: Callable[[Tensor], object]) -> None:
    call(image())
    with pytest.raises((AssertionError, NotImplementedError, RuntimeError, TypeError)), RefuseHost():
        call(image().to("meta"))


def test_tensors_of_two_devices_do_not_meet() -> None:
    x, constant = image().to("meta"), torch.ones(1)
    for call in (lambda: x + constant, lambda: x * constant[0], lambda: constant.to(x), lambda: x[constant.long()]):
        with (
            pytest.raises(AssertionError, match=r"meets tensors of \['cpu', 'meta'\]|numbers of the host"),
            RefuseHost(),
        ):
            call()


class Brighten:
    """A transform that keeps to the contract, but for what a test puts in the place of ``one``."""

    samples = 1

    def __init__(self, one: Callable[[Brighten, Tensor], Tensor] | None = None) -> None:
        self.net = nn.Conv2d(3, 3, 1)
        self.one = one
        self.calls = 0

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        gt = batch["gt"]
        y = self.net(gt) if self.one is None else self.one(self, gt)
        return {**batch, "gt": y, "keep": y.flatten(1).mean(1) > 0.4}

    def to(self, device: torch.device | str) -> Brighten:
        self.net.to(device)
        return self


def batches() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    gt = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    seeds = torch.arange(6)
    return {"gt": gt[:3], "seed": seeds[:3]}, {"gt": 0.2 * gt[3:], "seed": seeds[3:]}


def counted(self: Brighten, gt: Tensor) -> Tensor:
    """Depends on how often it was called."""
    self.calls += 1
    return gt * self.calls


def looked_at(self: Brighten, gt: Tensor) -> Tensor:
    """Goes on from the CPU's memory, which is no operation, and alike for all rows of a batch."""
    return gt if gt.is_meta or gt.numpy().max() > 0.3 else gt / 2


def only_on_devices(self: Brighten, gt: Tensor) -> Tensor:
    """Asks where the CPU would not."""
    return gt if gt.device.type == "cpu" else gt * gt.mean().item()


def left_behind(self: Brighten, gt: Tensor) -> Tensor:
    """A constant that ``to`` does not move."""
    return gt + SEED_OFFSET


def edited(self: Brighten, gt: Tensor) -> Tensor:
    """In place."""
    return gt.mul_(0.5)


def of_neighbours(self: Brighten, gt: Tensor) -> Tensor:
    """Depends on the other samples."""
    return gt - gt.mean(0)


def shortened(self: Brighten, gt: Tensor) -> Tensor:
    """Drops one."""
    return gt[1:]


def test_a_transform_that_keeps_to_the_contract_passes() -> None:
    check_capturable(Brighten(), *batches(), atol=1e-6)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (counted, "^gt: "),
        (looked_at, "^replayed gt: "),
        (only_on_devices, "asks the device for a value"),
        (left_behind, "meets tensors of"),
        (edited, "the batch was edited"),
        (of_neighbours, "^gt: "),
        (shortened, "of 3 samples came {'gt': 2"),
    ],
)
def test_a_transform_that_breaks_it_does_not(one: Callable[[Brighten, Tensor], Tensor], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_capturable(Brighten(one), *batches(), atol=1e-6)

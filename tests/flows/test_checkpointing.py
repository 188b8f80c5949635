"""Checkpointed flows: the plain gradient to the bit, with less held for backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from synthpipe.flows import DeFlow, Glow
from synthpipe.flows.actnorm import actnorms_of
from synthpipe.flows.draws import Generators, Noise, SeededNoise

SMALL = {"type": "small", "features": 8, "depth": 1}
RRDB = {"type": "rrdb", "features": 8, "growth": 4, "blocks": 2, "taps": [0, 1]}
SIZES: dict[str, Any] = {"levels": 2, "steps": 3, "transition_steps": 1, "hidden": 16, "scale": 4}
MODELS: dict[str, dict[str, Any]] = {
    "affine": {"coupling": "affine", "encoder": RRDB},
    "additive": {"coupling": "additive", "covariance": "colour", "encoder": SMALL, "whiten": True},
}


def deflow(**changes: Any) -> DeFlow:
    torch.manual_seed(0)
    model = DeFlow(**{**SIZES, **changes}).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def images(count: int, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, side, side), generator=generator).float() / 255


def gradients(model: DeFlow | Glow, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def pairs(model: DeFlow, noise: Any, initialize: bool, reduced: bool) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Loss and gradient, plain and checkpointed, of the same weights."""
    x, domain = images(2), torch.tensor([0, 1])
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for on in (False, True):
        model.load_state_dict(state)
        model.checkpoint_activations(on)
        if initialize:
            model.initialize(x, domain, noise())
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss = model.nll(x, domain, noise()).mean()
        found.append((loss.detach(), gradients(model, loss)))
    return found


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "bf16"])
# Without `initialize` the ActNorms start inside the first forward pass, which is computed twice.
@pytest.mark.parametrize("initialize", [True, False])
@pytest.mark.parametrize("seeded", [True, False])
def test_loss_and_gradient_are_the_plain_ones_to_the_bit(
    changes: dict[str, Any], reduced: bool, initialize: bool, seeded: bool
) -> None:
    def noise() -> Noise | Generators:
        return SeededNoise(torch.tensor([3, 4])) if seeded else torch.Generator().manual_seed(5)

    model = deflow(**changes)
    (plain, wanted), (loss, found) = pairs(model, noise, initialize, reduced)
    assert torch.equal(loss, plain)
    assert found.keys() == wanted.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert sum(bool(value.any()) for value in wanted.values()) > 0.9 * len(wanted)
    assert model.initialized


def test_glow_can_be_checkpointed() -> None:
    torch.manual_seed(0)
    model = Glow(levels=2, steps=2, hidden=8, window=8).train()
    x = images(4, 8)
    model.initialize(x, SeededNoise(torch.arange(4)))
    found = []
    for on in (False, True):
        model.checkpoint_activations(on)
        found.append(gradients(model, -model.log_prob(x, SeededNoise(torch.arange(4))).mean()))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class Live(TorchDispatchMode):
    """Collects the memory that operations made; :meth:`held` says how much of it is in use."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def held(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_less_is_held_for_backward(changes: dict[str, Any]) -> None:
    model, x, domain = deflow(**changes, hidden=32), images(2, 32), torch.tensor([0, 1])
    model.initialize(x, domain, SeededNoise(torch.arange(2)))
    held = {}
    for on in (False, True):
        model.checkpoint_activations(on)
        with Live() as live:
            loss = model.nll(x, domain, SeededNoise(torch.arange(2)), check_values=False).mean()
            held[on] = live.held()
            del loss
    assert held[True] < 0.5 * held[False], held


def test_nothing_is_kept_where_no_gradient_is_asked_for() -> None:
    model, x = deflow(), images(1)
    model.checkpoint_activations()
    for layer in actnorms_of(model):
        layer.mark_initialized()
    with torch.no_grad():
        assert not model.nll(x, torch.tensor([0])).requires_grad
    assert model.eval().degrade(x, torch.Generator().manual_seed(0)).shape == x.shape

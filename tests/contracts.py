"""Batteries that every member of a family passes; a new class joins by one line in its own test file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from synthpipe.flows.actnorm import actnorms_of
from synthpipe.flows.base import FlowLayer

INVERSE_TOLERANCE = 1e-9
LOGDET_TOLERANCE = 1e-8


def perturbed(module: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """``module`` in float64 with every parameter moved: at a zero initialisation a wrong log-determinant passes."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for layer in actnorms_of(module):
        layer.mark_initialized()
    return module


def check_flow_layer(layer: FlowLayer, x: Tensor, cond: Tensor | None = None) -> None:
    """The contract of ``synthpipe.flows.base``, in float64, with the autograd Jacobian as the judge.

    Args:
        layer: its parameters already moved by :func:`perturbed`.
        x: ``(B, C, H, W)`` float64, at least 2 images, tiny: the Jacobian has ``(C H W)^2`` entries.
        cond: ``(B, F, H, W)`` float64 where the layer needs it.
    """
    assert x.dtype == torch.float64
    assert len(x) >= 2
    kept = x.clone()
    z, logdet = layer(x, cond)
    back, logdet_back = layer.inverse(z, cond)
    assert torch.equal(x, kept), "forward edited its input"
    assert z.dtype == back.dtype == logdet.dtype == logdet_back.dtype == torch.float64
    assert logdet.shape == logdet_back.shape == (len(x),)
    assert z.numel() == x.numel()
    assert_close(back, x, atol=INVERSE_TOLERANCE, rtol=0)
    assert_close(logdet_back, -logdet, atol=INVERSE_TOLERANCE, rtol=0)
    for i in range(len(x)):
        one = None if cond is None else cond[i : i + 1]
        _check_against_jacobian(layer.forward, x[i : i + 1].detach(), one, logdet[i])
        _check_against_jacobian(layer.inverse, z[i : i + 1].detach(), one, logdet_back[i])
    _check_float32(layer, x, z, cond)
    check_all_parameters_train(layer, x, cond)


def check_all_parameters_train(layer: FlowLayer, x: Tensor, cond: Tensor | None = None) -> None:
    """A loss on z and logdet gives every parameter a gradient that is finite and not all zero."""
    layer.zero_grad()
    z, logdet = layer(x, cond)
    weight = torch.linspace(0.5, 1.5, z.numel(), dtype=z.dtype).reshape(z.shape)
    ((weight * z.square()).sum() + logdet.sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"
        assert parameter.grad.abs().max() > 0, f"{name} never trains"
    layer.zero_grad()


def _check_against_jacobian(direction, point: Tensor, cond: Tensor | None, logdet: Tensor) -> None:
    matrix = jacobian(lambda v: direction(v, cond)[0], point, vectorize=True).reshape(point.numel(), point.numel())
    assert_close(logdet, torch.linalg.slogdet(matrix).logabsdet, atol=LOGDET_TOLERANCE, rtol=0)


def _check_float32(layer: FlowLayer, x: Tensor, z: Tensor, cond: Tensor | None) -> None:
    """float32 in gives float32 out, near the float64 result; the layer is left in float64, unchanged."""
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.float()
    small, logdet = layer(x.float(), None if cond is None else cond.float())
    assert small.dtype == logdet.dtype == torch.float32
    assert_close(small.double(), z, atol=1e-3, rtol=1e-3)
    layer.double()
    layer.load_state_dict(state)

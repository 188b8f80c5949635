"""Steps of a DeFlow for use alone: what only training needs is folded away or dropped, what can be is computed once.

Each function or class is one transformation and equals the plain modules by itself (tests/flows/frozen/test_steps.py):

* :func:`fold_linear`: ActNorms and 1x1 convolutions in a row are one matrix and one vector, inverted once in float64;
* :func:`fold_subnet`: ActNorms and ``exp(3 logs)`` of a sub-network go into its convolutions;
* :class:`FrozenLevel`: what depends on the features alone is computed once, for encode and decode; log-determinants go;
* :class:`ColourScales`: the scales of all steps that follow the colour are two matrix products;
* :class:`FrozenSplit`: the same for the split after level 1.

Latents lie channel after channel and hidden maps of a processor in channels-last, which measured fastest for either.

Legend: B batch, C channels of the flow, F channels of the features, D width of the sub-networks, S steps of the level,
H, W its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import FlowLayer, Sequential
from synthpipe.flows.coupling import ColourNet, ConditionalCoupling, SubNet, ZeroConv
from synthpipe.flows.frozen.first_convs import Conv, FirstConvs, MapPart, conv_layout
from synthpipe.flows.frozen.narrow_conv import NARROW, narrow_conv, paired, pairs_pay
from synthpipe.flows.invertible_conv import InvertibleConv
from synthpipe.flows.reshape import SplitPrior, Squeeze

__all__ = [
    "ColourScales",
    "FoldedSubNet",
    "FrozenLevel",
    "FrozenSplit",
    "LevelCondition",
    "fold_linear",
    "fold_subnet",
]


def fold_linear(layers: Sequence[FlowLayer]) -> tuple[Tensor, Tensor]:
    """``M`` ``(C, C)`` and ``c`` ``(C,)`` in float64 with ``layers(x) = M x + c`` at every position.

    Args:
        layers: ActNorms and 1x1 convolutions in the order of the forward direction, at least one.

    Raises:
        TypeError: any other layer.
    """
    steps = [_linear(layer) for layer in layers]
    matrix, offset = steps[0]
    for step, shift in steps[1:]:
        matrix, offset = step @ matrix, step @ offset + shift
    return matrix, offset


def _linear(layer: FlowLayer) -> Conv:
    if isinstance(layer, ActNorm):
        scale = layer.logs.detach().double().exp().flatten()
        return torch.diag(scale), layer.bias.detach().double().flatten() * scale
    if isinstance(layer, InvertibleConv):
        weight = layer.weight(torch.float64).detach()
        return weight, weight.new_zeros(len(weight))
    raise TypeError(f"fold_linear: expected ActNorm or InvertibleConv, got {type(layer).__name__}")


@dataclass(frozen=True)
class FoldedSubNet:
    """``out(relu(mid(relu(first(x)))))``: weight and bias of three convolutions, 3x3, 1x1 and 3x3, float64."""

    first: Conv
    mid: Conv
    out: Conv


def fold_subnet(net: SubNet) -> FoldedSubNet:
    """The convolutions of a sub-network with its ActNorms and the scale of its output in them."""
    return FoldedSubNet(_fold_norm(net.conv1, net.norm1), _fold_norm(net.conv2, net.norm2), _fold_zero_conv(net.out))


def _fold_norm(conv: nn.Conv2d, norm: ActNorm) -> Conv:
    scale = norm.logs.detach().double().exp().flatten()
    return conv.weight.detach().double() * scale[:, None, None, None], norm.bias.detach().double().flatten() * scale


def _fold_zero_conv(zero: ZeroConv) -> Conv:
    assert zero.conv.bias is not None
    scale = (3 * zero.logs.detach().double()).exp().flatten()
    return zero.conv.weight.detach().double() * scale[:, None, None, None], zero.conv.bias.detach().double() * scale


def _even_then_odd(conv: Conv, odd_bias: float = 0.0) -> Conv:
    """Interleaved output channels sorted into two blocks; ``odd_bias`` is added to the second."""
    weight, bias = conv
    return torch.cat([weight[0::2], weight[1::2]]), torch.cat([bias[0::2], bias[1::2] + odd_bias])


@dataclass(frozen=True)
class LevelCondition:
    """What one level needs of the features, by step."""

    #: What the first convolution of the self sub-network sees of the features, ``(B, D, H, W)``.
    self_first: list[Tensor]
    #: Scale and shift of all channels, ``(B, C, H, W)``.
    scale: list[Tensor]
    shift: list[Tensor]


class FrozenLevel(nn.Module):
    """One level of a DeFlow without its log-determinants.

    Args:
        level: the plain one, initialised.
        parts: (channels, enlargement) of the maps that make up the level's features.
        condition_dtype: of the part that depends on the features alone.  Both directions use the same numbers, so
            that half precision there changes the flow slightly and its invertibility not at all.
    """

    def __init__(self, level: Sequential, parts: Sequence[tuple[int, int]], condition_dtype: torch.dtype) -> None:
        super().__init__()
        linears, couplings = _steps_of(level)
        self._dtype = couplings[0].self_net.conv1.weight.dtype
        self.steps = len(couplings)
        self.kept, self.additive = couplings[0].kept, couplings[0].additive
        self.scale_eps = couplings[0].scale_eps
        forward = [fold_linear(layers) for layers in linears]
        inverse = [torch.linalg.inv(matrix) for matrix, _ in forward]
        self._keep("matrix", torch.stack([matrix for matrix, _ in forward]))
        self._keep("offset", torch.stack([offset for _, offset in forward])[..., None])
        self._keep("inverse_matrix", torch.stack(inverse))
        offsets = [-back @ offset for back, (_, offset) in zip(inverse, forward, strict=True)]
        self._keep("inverse_offset", torch.stack(offsets)[..., None])
        nets = [fold_subnet(coupling.self_net) for coupling in couplings]
        self._keep_convs("self_mid", [net.mid for net in nets], self._dtype)
        self._keep_convs("self_out", [self._sorted(net.out) for net in nets], self._dtype)
        if nets[0].out[0].shape[0] <= NARROW:
            self._keep_convs("self_pair", [paired(*self._sorted(net.out)) for net in nets], self._dtype)
        self._keep("self_first", torch.stack([net.first[0][:, : self.kept] for net in nets]))
        cond_nets = [fold_subnet(coupling.cond_net) for coupling in couplings]
        self._keep_convs("cond_mid", [net.mid for net in cond_nets], condition_dtype)
        self._keep_convs("cond_out", [self._sorted(net.out) for net in cond_nets], condition_dtype)
        of_self = [(net.first[0][:, self.kept :], net.first[1]) for net in nets]
        self.firsts = FirstConvs([of_self, [net.first for net in cond_nets]], parts, condition_dtype)
        colour_nets = [net for coupling in couplings if (net := coupling.colour_net) is not None]
        self.colour_scales = ColourScales(colour_nets, self.scale_eps) if colour_nets else None

    def condition(self, maps: Sequence[MapPart]) -> LevelCondition:
        """All that follows from the level's features; where scales follow the colour, ``maps[0]`` is the colour."""
        typed = [(map_.to(self.condition_dtype), factor) for map_, factor in maps]
        firsts = self.firsts(typed)
        condition = LevelCondition(list(itertools.islice(firsts, self.steps)), [], [])
        if self.colour_scales is not None:
            condition.scale.extend(self.colour_scales(maps[0][0].to(self._dtype)))
        for step, first in enumerate(firsts):
            hidden = self._conv("cond_mid", step, first.relu_()).relu_()
            out = self._planes(self._conv("cond_out", step, hidden, padding=1))
            if self.additive:
                condition.shift.append(out)
            else:
                shift, raw = out.chunk(2, dim=1)
                condition.scale.append(raw.sigmoid().add_(self.scale_eps))
                condition.shift.append(shift)
        return condition

    def encode(self, x: Tensor, condition: LevelCondition) -> Tensor:
        """``(B, C / 4, 2 H, 2 W)`` to ``(B, C, H, W)``: the forward direction of the plain level."""
        x = F.pixel_unshuffle(x, 2)
        for step in range(self.steps):
            x = self._linear("", step, x)
            rest = x[:, self.kept :]
            scale, shift = self._self_maps(step, x[:, : self.kept], condition)
            if scale is not None:
                rest.div_(scale)
            rest.sub_(shift)
            x = x.div_(condition.scale[step]).sub_(condition.shift[step])
        return x

    def decode(self, z: Tensor, condition: LevelCondition) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C / 4, 2 H, 2 W)``: the inverse direction of the plain level."""
        for step in reversed(range(self.steps)):
            z = (z + condition.shift[step]).mul_(condition.scale[step])
            rest = z[:, self.kept :]
            scale, shift = self._self_maps(step, z[:, : self.kept], condition)
            rest.add_(shift)
            if scale is not None:
                rest.mul_(scale)
            z = self._linear("inverse_", step, z)
        return F.pixel_shuffle(z, 2)

    @property
    def condition_dtype(self) -> torch.dtype:
        """Of the part that depends on the features alone, as it is now."""
        return self.firsts.weight.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenLevel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._dtype = self._buffer("matrix").dtype
        return self

    def _self_maps(self, step: int, kept: Tensor, condition: LevelCondition) -> tuple[Tensor | None, Tensor]:
        """Scale (None: 1) and shift of the second half, ``(B, C - C // 2, H, W)``."""
        kept = kept.contiguous(memory_format=conv_layout(kept))
        hidden = F.conv2d(kept, self._buffer("self_first")[step], padding=1).add_(condition.self_first[step]).relu_()
        hidden = self._conv("self_mid", step, hidden).relu_()
        if pairs_pay(hidden, self._buffer("self_out_bias").shape[1]):
            pair = self._buffer("self_pair_weight")[step], self._buffer("self_pair_bias")[step]
            out = narrow_conv(hidden, *pair)
        else:
            out = self._planes(self._conv("self_out", step, hidden, padding=1))
        if self.additive:
            return None, out
        shift, raw = out.chunk(2, dim=1)
        return raw.sigmoid().add_(self.scale_eps), shift

    def _linear(self, direction: str, step: int, x: Tensor) -> Tensor:
        # A matrix product, no convolution: cuDNN rounds float32 convolutions to TF32 by default.
        matrix = self._buffer(f"{direction}matrix")[step].expand(len(x), -1, -1)
        return torch.baddbmm(self._buffer(f"{direction}offset")[step], matrix, x.flatten(2)).view_as(x)

    def _conv(self, name: str, step: int, x: Tensor, padding: int = 0) -> Tensor:
        weight, bias = self._buffer(f"{name}_weight")[step], self._buffer(f"{name}_bias")[step]
        return F.conv2d(x, weight, bias, padding=padding)

    def _planes(self, x: Tensor) -> Tensor:
        """As z is kept: channel after channel, so that halves of the channels are long runs of numbers."""
        return x.to(self._dtype, memory_format=torch.contiguous_format)

    def _sorted(self, out: Conv) -> Conv:
        """Shifts, then raw scales with the 2 that the sigmoid expects; additive nets give shifts alone."""
        return out if self.additive else _even_then_odd(out, odd_bias=2.0)

    def _keep_convs(self, name: str, convs: Sequence[Conv], dtype: torch.dtype) -> None:
        self._keep(f"{name}_weight", torch.stack([weight for weight, _ in convs]), dtype)
        self._keep(f"{name}_bias", torch.stack([bias for _, bias in convs]), dtype)

    def _buffer(self, name: str) -> Tensor:
        """As ``get_buffer``, whose checks cost as much as a small operation."""
        return cast(Tensor, self._buffers[name])

    def _keep(self, name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
        self.register_buffer(name, value.to(dtype or self._dtype).contiguous(), persistent=False)


class ColourScales(nn.Module):
    """The scales of all steps that follow the colour, in two matrix products.

    Args:
        nets: of the steps.
        scale_eps: lower end of the scales.
    """

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor

    def __init__(self, nets: Sequence[ColourNet], scale_eps: float) -> None:
        super().__init__()
        self.scale_eps = scale_eps
        convs = [[net.conv1 for net in nets], [net.conv2 for net in nets]]
        for number, of_steps in enumerate(convs, 1):
            weight = torch.stack([conv.weight.detach().flatten(1) for conv in of_steps])
            bias = torch.stack([cast(Tensor, conv.bias).detach()[:, None] for conv in of_steps])
            self.register_buffer(f"weight{number}", weight, persistent=False)  # (S, 16, 3), (S, C, 16)
            self.register_buffer(f"bias{number}", bias, persistent=False)
        self.bias2 += 2  # what the sigmoid expects

    def forward(self, colour: Tensor) -> list[Tensor]:
        """``(B, 3, H, W)`` to one ``(B, C, H, W)`` for each step."""
        hidden = torch.matmul(self.weight1, colour.flatten(2)[:, None]).add_(self.bias1).relu_()  # (B, S, 16, H W)
        scales = torch.matmul(self.weight2, hidden).add_(self.bias2).sigmoid_().add_(self.scale_eps)
        return list(torch.unflatten(scales, 3, colour.shape[2:]).unbind(1))


class FrozenSplit(nn.Module):
    """The split after level 1 without its log-determinant.

    Args:
        split: the plain one.
    """

    weight: Tensor

    def __init__(self, split: SplitPrior) -> None:
        super().__init__()
        self.kept, self.additive = split.kept, split.additive
        folded = _fold_zero_conv(split.net)
        weight, bias = folded if split.additive else _even_then_odd(folded)
        dtype = split.net.conv.weight.dtype
        self.register_buffer("weight", weight.to(dtype), persistent=False)
        self.register_buffer("bias", bias.to(dtype), persistent=False)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` to the kept channels ``(B, C // 2, H, W)`` and the standardised others."""
        kept, rest = x[:, : self.kept].contiguous(), x[:, self.kept :]
        mean, logs = self._prior(kept)
        return kept, rest - mean if logs is None else (rest - mean) * (-logs).exp()

    def decode(self, kept: Tensor, eps: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        mean, logs = self._prior(kept)
        return torch.cat([kept, eps + mean if logs is None else eps * logs.exp() + mean], dim=1)

    def _prior(self, kept: Tensor) -> tuple[Tensor, Tensor | None]:
        out = F.conv2d(kept, self.get_buffer("weight"), self.get_buffer("bias"), padding=1).to(kept.dtype)
        if self.additive:
            return out, None
        mean, logs = out.chunk(2, dim=1)
        return mean, logs


def _steps_of(level: Sequential) -> tuple[list[list[FlowLayer]], list[ConditionalCoupling]]:
    """The linear layers before each coupling, and the couplings."""
    linears: list[list[FlowLayer]] = [[]]
    couplings = []
    for layer in level.layers:
        if isinstance(layer, Squeeze):
            continue
        if isinstance(layer, ConditionalCoupling):
            couplings.append(layer)
            linears.append([])
        else:
            assert isinstance(layer, FlowLayer)
            linears[-1].append(layer)
    assert not linears[-1], "a level ends with a coupling"
    return linears[:-1], couplings

"""The first convolutions of the sub-networks that see the features: most of what a degradation costs.

All steps of a level read the same features, so that their first convolutions share what is done to the input:
by Winograd's tiles in float32 on a processor where there are many channels, directly in channels-last in bfloat16 or
with few, in few wide calls on a GPU.  Maps that nearest neighbour enlarges are convolved at their own size.

Weights are not packed for oneDNN beforehand, and results are no slices of a wider one: neither was faster in
``tools/bench/generator.py`` once maps are in channels-last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthpipe.flows.frozen.upsampled_conv import UpsampledConv, cell_differences
from synthpipe.flows.frozen.winograd import WinogradConvs

__all__ = ["Conv", "FirstConvs", "MapPart", "conv_layout", "tiles_pay"]

#: A map ``(B, channels, h, w)`` and by how much it is to be enlarged by nearest neighbour.
MapPart = tuple[Tensor, int]
#: Weight ``(out, in, k, k)`` and bias ``(out,)``.
Conv = tuple[Tensor, Tensor]

#: Bytes that direct convolutions give in one call, at most: those of all steps of ``aim`` are 200 MiB for each tile.
#: On a GPU few calls are what matters.  On a CPU it is that each result is contiguous: one call for each.
_CALL_BYTES = {"cpu": 0, "cuda": 1 << 30}
#: From so many channels on, matrix products are as fast as they can be and tiles pay: the 35 of ``small`` are too few.
_LEAST_FOR_TILES = 48


class FirstConvs(nn.Module):
    """First convolutions, 3x3, of several sub-networks on the same features, which may be enlarged maps.

    Args:
        groups: weight ``(D, F, 3, 3)`` and bias ``(D,)`` of each, in groups.  No call gives results of two, so that
            those of one can be freed while those of another are kept.
        parts: (channels, enlargement) of the maps that make up the F channels, in order; some of enlargement 1.
        dtype: of weights and results.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, groups: Sequence[Sequence[Conv]], parts: Sequence[tuple[int, int]], dtype: torch.dtype) -> None:
        super().__init__()
        convs = [conv for group in groups for conv in group]
        self._width, self._counts = len(convs[0][1]), [len(group) for group in groups]
        pieces = torch.split(torch.cat([weight for weight, _ in convs]), [channels for channels, _ in parts], dim=1)
        by_size: dict[int, list[Tensor]] = {1: []}
        for piece, (_, factor) in zip(pieces, parts, strict=True):
            by_size.setdefault(factor, []).append(piece)
        # Maps of one size are convolved together; every level has features of its own size.
        self.register_buffer("weight", torch.cat(by_size.pop(1), 1).to(dtype), persistent=False)
        self.register_buffer("bias", torch.cat([bias for _, bias in convs]).to(dtype), persistent=False)
        self._factors = tuple(by_size)
        self.enlarged = nn.ModuleList(UpsampledConv(torch.cat(by_size[size], 1), size).to(dtype) for size in by_size)
        self._prepare()

    def forward(self, maps: Sequence[MapPart]) -> Iterator[Tensor]:
        """``(B, D, H, W)`` of each sub-network in turn."""
        own = _joined(maps, 1)
        small = [_joined(maps, factor) for factor in self._factors]
        if self._winograd is None:
            yield from self._directly(own, small)
        else:
            yield from self._winograd(own, small)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FirstConvs:
        before = self.weight.device, self.weight.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (self.weight.device, self.weight.dtype) != before:
            self._prepare()
        return self

    def _prepare(self) -> None:
        """Weights by the tile for a processor's float32: a GPU has tensor cores, bfloat16 is as fast directly."""
        by_tile = tiles_pay(self.weight)
        enlarged: list[UpsampledConv] = list(self.enlarged)  # type: ignore[arg-type]
        self._winograd = WinogradConvs(self.weight, self.bias, sum(self._counts), enlarged) if by_tile else None

    def _directly(self, own: Tensor, small: Sequence[Tensor]) -> Iterator[Tensor]:
        """As many in one call as :data:`_CALL_BYTES` allows."""
        own = own.contiguous(memory_format=conv_layout(own))
        differences = [cell_differences(map_) for map_ in small]
        one = own.shape[0] * self._width * own.shape[2] * own.shape[3] * own.element_size()
        step = max(_CALL_BYTES.get(own.device.type, 1 << 28) // one, 1)
        begin = 0
        for count in self._counts:
            for first in range(begin, begin + count, step):
                outputs = slice(first * self._width, min(first + step, begin + count) * self._width)
                out = F.conv2d(own, self.weight[outputs], self.bias[outputs], padding=1)
                for conv, each in zip(self.enlarged, differences, strict=True):
                    assert isinstance(conv, UpsampledConv)
                    conv.add_to(out, each, outputs)
                yield from torch.split(out, self._width, dim=1)
            begin += count


def tiles_pay(weight: Tensor) -> bool:
    """Whether 3x3 convolutions with weights like these, ``(out, in, 3, 3)``, are faster by tiles."""
    on_processor = weight.device.type == "cpu" and weight.dtype != torch.bfloat16
    return on_processor and weight.shape[1] >= _LEAST_FOR_TILES


def _joined(maps: Sequence[MapPart], factor: int) -> Tensor:
    return torch.cat([map_ for map_, size in maps if size == factor], 1)


def conv_layout(x: Tensor) -> torch.memory_format:
    """Channels-last spares oneDNN a copy before and after each convolution; on a GPU it is not measured."""
    return torch.channels_last if x.device.type == "cpu" else torch.contiguous_format

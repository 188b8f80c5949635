"""The networks that are trained on pairs: BasicSR's compact one, the same steps for every arm of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from synthpipe.images import to_float
from synthpipe.pipeline import build_stream

__all__ = ["SIZES", "Size", "enhance", "make_network", "real_batches", "stream_batches", "train_network"]


@dataclass(frozen=True)
class Shape:
    """Of the networks of one scale; ``patch`` and ``tile`` are sides in LR pixels."""

    features: int
    layers: int
    steps: int
    patch: int
    tile: int
    patches_per_tile: int
    pool: int


@dataclass(frozen=True)
class Size:
    """How much of everything; ``crops`` are of each full frame, ``photos`` intact photographs.

    ``most_pairs`` are measured of each column; None: all.  ``kernel_crops`` of each pile tell kernels.
    """

    shapes: Mapping[int, Shape]
    batch: int
    rate: float
    crops: int
    photos: int
    most_pairs: int | None = None
    kernel_crops: int = 2000


#: ``cpu`` is what the tables of the README are measured with.
SIZES: Mapping[str, Size] = {
    "cpu": Size(
        {
            4: Shape(24, 6, 1500, 32, 80, 8, 512),
            2: Shape(16, 6, 1000, 32, 96, 8, 512),
            1: Shape(16, 5, 1000, 32, 160, 20, 512),
        },
        batch=8,
        rate=1e-3,
        crops=12,
        photos=12,
    ),
    "gpu": Size(
        {
            4: Shape(64, 16, 5000, 48, 80, 8, 1024),
            2: Shape(64, 16, 5000, 48, 112, 8, 1024),
            1: Shape(64, 16, 5000, 48, 160, 9, 1024),
        },
        batch=16,
        rate=5e-4,
        crops=12,
        photos=12,
    ),
    "tiny": Size(
        {scale: Shape(4, 1, 3, 8, 80, 4, 8) for scale in (1, 2, 4)},
        batch=2,
        rate=1e-3,
        crops=2,
        photos=2,
        most_pairs=2,
        kernel_crops=48,
    ),
}


def make_network(seed: int, shape: Shape, scale: int) -> nn.Module:
    """``SRVGGNetCompact``, the same first weights for the same seed."""
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = SRVGGNetCompact(num_feat=shape.features, num_conv=shape.layers, upscale=scale)
    return net.to(memory_format=torch.channels_last)


def train_network(
    batches: Iterable[tuple[Tensor, Tensor]], seed: int, size: Size, scale: int, device: torch.device
) -> nn.Module:
    """L1, Adam, cosine to 0.

    Args:
        batches: at least ``steps`` of ``lq (B, 3, h, w)`` and ``gt (B, 3, scale h, scale w)``, float32 in [0, 1].
        seed: of the first weights.
        size: of the network and of the run.
        scale: HR side over LR side.
        device: where it is trained.
    """
    shape = size.shapes[scale]
    net = make_network(seed, shape, scale).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=size.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, shape.steps)
    for _, pair in zip(range(shape.steps), batches, strict=False):
        lq, gt = (x.to(device).contiguous(memory_format=torch.channels_last) for x in pair)
        loss = nn.functional.l1_loss(net(lq), gt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.cpu().eval()


def stream_batches(options: Mapping[str, Any], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs made on the fly by the stream that ``options`` describe."""
    with build_stream(options, device=device) as stream:
        for batch in stream:
            yield batch["lq"], batch["gt"]


def real_batches(
    pairs: Sequence[tuple[Tensor, Tensor]], seed: int, size: Size, scale: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Patches of aligned real pairs, mirrored at random: the ceiling's, which no stream makes.

    A stream makes pairs from clean images; these have both sides already, whole in memory.  They are not turned, as
    the noise of a camera has a direction.
    """
    rng = np.random.default_rng((seed, len(pairs)))
    patch = size.shapes[scale].patch
    while True:
        lqs, gts = [], []
        for _ in range(size.batch):
            lq, gt = pairs[rng.integers(len(pairs))]
            top, left = (int(rng.integers(side - patch + 1)) for side in lq.shape[1:])
            turn = (lambda x: x.flip(2)) if rng.integers(2) else (lambda x: x)
            for image, factor, into in ((lq, 1, lqs), (gt, scale, gts)):
                y, x, side = top * factor, left * factor, patch * factor
                into.append(turn(image[:, y : y + side, x : x + side]))
        yield to_float(torch.stack(lqs)), to_float(torch.stack(gts))


@torch.no_grad()
def enhance(net: nn.Module | None, lq: Tensor, scale: int) -> Tensor:
    """``(3, h, w)`` uint8 -> ``(3, scale h, scale w)`` float, not rounded; without a network bicubic enlargement."""
    x = to_float(lq[None])
    if net is not None:
        return net(x.contiguous(memory_format=torch.channels_last))[0].contiguous()
    if scale == 1:
        return x[0]
    return nn.functional.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)[0]

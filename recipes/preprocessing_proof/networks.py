"""Small x2 networks that differ in what they were shown, and their PSNR on held-out photographs.

All arms of a seed begin with the same weights and see the same crops, turned the same way, at the same step: what is
left between them is what the arms differ in.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from corpus import SCALE
from torch import Tensor, nn

from synthpipe.images import quantize_8bit, to_float, to_uint8

__all__ = ["Size", "mean_psnr", "train_network"]


@dataclass(frozen=True)
class Size:
    """How much of everything; ``crops`` of a step of denoiser and flow, ``patch`` in low-resolution pixels."""

    photos: int = 198
    denoiser_steps: int = 1500
    deflow_steps: int = 300
    crops: int = 16
    sr_steps: int = 1500
    seeds: int = 2
    patch: int = 32
    batch: int = 8
    rate: float = 1e-3
    features: int = 16
    layers: int = 6
    pictures: int = 46


def train_network(pairs: Mapping[str, tuple[Tensor, Tensor]], seed: int, size: Size) -> nn.Module:
    """BasicSR's compact network by L1, Adam, cosine to 0.

    Args:
        pairs: low- and high-resolution images by name, ``(1, 3, h, w)`` and ``(1, 3, 2 h, 2 w)``.
        seed: of the first weights and of the batches.
        size: of the network and of the run.
    """
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SRVGGNetCompact(num_feat=size.features, num_conv=size.layers, upscale=SCALE)
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=size.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.sr_steps)
    for lq, gt in _batches(pairs, seed, size):
        loss = nn.functional.l1_loss(net(lq), gt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _batches(pairs: Mapping[str, tuple[Tensor, Tensor]], seed: int, size: Size) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    names = sorted(pairs)
    stored = [tuple(to_uint8(x)[0] for x in pairs[name]) for name in names]
    for _ in range(size.sr_steps):
        lqs, gts = [], []
        for _ in range(size.batch):
            lq, gt = stored[rng.integers(len(stored))]
            top, left = (int(rng.random() * (side - size.patch + 1)) for side in lq.shape[1:])
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            for image, scale, into in ((lq, 1, lqs), (gt, SCALE, gts)):
                side = size.patch * scale
                patch = image[:, top * scale : top * scale + side, left * scale : left * scale + side]
                into.append(torch.rot90(patch.flip(2) if flip else patch, turns, (1, 2)))
        yield tuple(to_float(torch.stack(x)).contiguous(memory_format=torch.channels_last) for x in (lqs, gts))  # type: ignore[misc]


@torch.no_grad()
def mean_psnr(net: nn.Module, tests: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """dB, peak 1, over RGB, of results in 8 bits without a border of 2 pixels; mean over images."""
    values = []
    for lq, gt in tests.values():
        error = quantize_8bit(net(lq.contiguous(memory_format=torch.channels_last))) - gt
        mse = error[..., SCALE:-SCALE, SCALE:-SCALE].square().mean()
        values.append(-10 * float(mse.clamp(min=1e-10).log10()))
    return statistics.fmean(values)

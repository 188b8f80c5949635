"""One small network on part of a mixture of tiles, and its PSNR on held-out pictures.

All tiles are in memory and every arm of a seed draws from one and the same list of candidates: a sample whose tile is
in two arms is the same crop at the same step in both.  A stream would give each arm another order, and that noise
hides differences of hundredths of a decibel.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contamination import Bytes, Corpus
from numpy.typing import NDArray
from torch import Tensor, nn

from synthpipe.files.image_files import list_images, read_image
from synthpipe.images import crop_to_multiple, downscale_bicubic, quantize_8bit, to_float, to_uint8

__all__ = ["Size", "draw_batches", "load_pictures", "mean_psnr_y", "train"]

Mask = NDArray[np.bool_]

#: Candidates for each sample; all 32 missing an arm of half the tiles happens once in 4e9 samples.
_CANDIDATES = 32


@dataclass(frozen=True)
class Size:
    """How much of everything; ``side`` of a tile in HR pixels, ``patch`` in LR pixels, ``rate`` is Adam's first."""

    tiles: int = 3168
    side: int = 120
    patch: int = 32
    batch: int = 8
    steps: int = 2400
    rate: float = 1e-3
    scale: int = 2
    features: int = 16
    layers: int = 6
    pictures: int = 46


def train(corpus: Corpus, mixed: Mask, keep: Mask, seed: int, size: Size) -> nn.Module:
    """L1, Adam, cosine to 0.

    Args:
        corpus: N tiles.
        mixed: ``(N,)``, which tiles are taken corrupted.
        keep: ``(N,)``, which tiles are taken at all.
        seed: of the first weights and of the batches, the same for every arm.
        size: of the network and of the run.
    """
    net = _make_net(seed, size)
    optimizer = torch.optim.Adam(net.parameters(), lr=size.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    for lq, gt in draw_batches(corpus, mixed, keep, seed, size):
        loss = nn.functional.l1_loss(net(lq), gt)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def draw_batches(corpus: Corpus, mixed: Mask, keep: Mask, seed: int, size: Size) -> Iterator[tuple[Tensor, Tensor]]:
    """``lq (B, 3, patch, patch)`` and ``gt`` of ``scale`` times the side, float32, flipped and turned at random.

    Each sample has a list of candidates that does not depend on the arm, and takes the first that the arm has.
    """
    kept = np.flatnonzero(keep)
    if not len(kept):
        raise SystemExit("nothing is kept: expected an arm with at least one tile")
    rng = np.random.default_rng((seed, len(corpus)))
    span = corpus.clean_lq.shape[-1] - size.patch + 1
    for _ in range(size.steps):
        candidates = rng.integers(len(corpus), size=(size.batch, _CANDIDATES))
        places = rng.integers(span, size=(size.batch, 2))
        turns, flips = rng.integers(4, size=size.batch), rng.integers(2, size=size.batch)
        lqs, gts = [], []
        for row, (top, left), turn, flip in zip(candidates, places, turns, flips, strict=True):
            usable = row[keep[row]]
            n = usable[0] if len(usable) else kept[row[0] % len(kept)]
            hq, lq = (corpus.corrupted, corpus.corrupted_lq) if mixed[n] else (corpus.clean, corpus.clean_lq)
            lqs.append(_cut(lq[n], top, left, size.patch, turn, flip))
            gts.append(_cut(hq[n], top * size.scale, left * size.scale, size.patch * size.scale, turn, flip))
        yield to_float(torch.from_numpy(np.stack(lqs))), to_float(torch.from_numpy(np.stack(gts)))


def load_pictures(folder: Path, most: int, scale: int) -> list[Tensor]:
    """Held-out pictures ``(1, 3, H, W)`` in [0, 1], cut to multiples of ``scale``, evenly spread over the folder."""
    paths = list_images(folder)
    if not paths:
        raise SystemExit(f"{folder}: no pictures; give a folder of clean ones")
    paths = [paths[n * len(paths) // most] for n in range(most)] if len(paths) > most else paths
    tensors = (to_float(torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]) for path in paths)
    return [crop_to_multiple(x, scale) for x in tensors]


@torch.no_grad()
def mean_psnr_y(net: nn.Module, pictures: Sequence[Tensor], scale: int) -> float:
    """Mean PSNR in dB of luma (BT.601, BasicSR's), without a border of ``scale`` pixels, of 8-bit results."""
    from basicsr.metrics import calculate_psnr

    values = []
    for gt in pictures:
        lq = quantize_8bit(downscale_bicubic(gt, scale)).contiguous(memory_format=torch.channels_last)
        values.append(calculate_psnr(_bgr(net(lq)), _bgr(gt), crop_border=scale, test_y_channel=True))
    return statistics.fmean(values)


def _make_net(seed: int, size: Size) -> nn.Module:
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SRVGGNetCompact(num_feat=size.features, num_conv=size.layers, upscale=size.scale)
    # On a CPU this order of memory halves the time.
    return net.to(memory_format=torch.channels_last)


def _cut(tile: Bytes, top: int, left: int, side: int, turn: int, flip: int) -> Bytes:
    part = tile[:, top : top + side, left : left + side]
    return np.rot90(part[:, ::-1] if flip else part, turn, (1, 2))


def _bgr(x: Tensor) -> Bytes:
    """``(1, 3, H, W)`` RGB to OpenCV's ``(H, W, 3)`` uint8."""
    return to_uint8(x)[0].flip(0).permute(1, 2, 0).numpy()

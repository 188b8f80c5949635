"""Noise in 16x16 blocks that are flat: found without a reference in a photograph, or seen in the clean side of a pair.

A photograph is measured by :mod:`synthpipe.flat_noise`, which tells noise from texture.  A pair needs no such
judgement: its noise is what the noisy side has more than the clean one, in blocks in which the *clean* side is flat, so
that texture of the clean photograph neither counts as noise nor decides by chance which blocks count.  Both end as the
same thing, the power of the noise by brightness in DCT coefficients, the lowest four of which are expected from the
next ones (shading in photographs), so that what is left out is left out of both.

Legend: K brightness nodes, F = 256 coefficients, N blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise import NODES
from synthpipe.flat_noise.measure import flat_power
from synthpipe.flat_noise.spectrum import SIDE, dct_matrix, radius, without_shading
from synthpipe.images import to_float
from synthpipe.noise_statistics import flat_mask

__all__ = ["NoisePart", "part_of_image", "part_of_pair"]

#: Pixels between blocks of a pair; share of a block's clean pixels that must be flat.
_STRIDE, _FLAT = 8, 0.9
#: Blocks of a photograph that are looked at for the histogram, those of them that count as flat by their low
#: frequencies up to this radius, and the radius above which coefficients are noise in both sides.
_MOST, _FLATTEST, _LOW = 4096, 0.05, 3.0
#: A block is clipped where a value of it is beyond these.
_DARKEST, _BRIGHTEST = 4 / 255, 251 / 255
#: Channels that differ by no more than this in any pixel are equal but for rounding to 8 bits.
_EQUAL = 1.01 / 255


class NoisePart(NamedTuple):
    """What one photograph or pair says."""

    #: ``(K, 3, 3, F)`` float64: covariance of R, G, B by node and coefficient.
    power: Tensor
    #: ``(K,)``: pixels of flat area near each node.
    counts: Tensor
    #: ``(N,)``: values of the noise without its low frequencies, in units of their own standard deviation.
    values: Tensor
    #: Whether the image's channels are equal but for rounding, so that noise is the same in them.
    grey: bool = False


@torch.no_grad()
def part_of_image(image: Tensor) -> NoisePart | None:
    """Of a photograph ``(3, H, W)``, uint8 or float in [0, 1]; None where it is below 16x16 or has no flat area."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ShapeError(f"noise report: expected an image (3, H, W), got {tuple(image.shape)}")
    if min(image.shape[1:]) < SIDE:
        return None
    try:
        power, counts = flat_power([image])
    except ShapeError:
        return None
    return NoisePart(power, counts, _values_of_image(image), _is_grey(image))


@torch.no_grad()
def part_of_pair(clean: Tensor, noisy: Tensor) -> NoisePart | None:
    """Of two images of one size, ``(3, H, W)`` uint8 or float in [0, 1]; None where the clean one has no flat area.

    Raises:
        ShapeError: two sizes.
    """
    if clean.shape != noisy.shape or clean.ndim != 3 or clean.shape[0] != 3:
        raise ShapeError(
            f"noise report: expected two images (3, H, W) of one size, got {tuple(clean.shape)}, {tuple(noisy.shape)}"
        )
    if min(clean.shape[1:]) < SIDE:
        return None
    clean, noisy = (to_float(x) if x.dtype == torch.uint8 else x.float() for x in (clean, noisy))
    flat = F.avg_pool2d(flat_mask(clean).float()[None], SIDE, _STRIDE)[0].flatten() >= _FLAT
    if not bool(flat.any()):
        return None
    brightness = F.avg_pool2d(clean.mean(0)[None], SIDE, _STRIDE)[0].flatten()[flat]
    coefficients = _coefficients((noisy - clean).double(), _STRIDE)[:, flat]  # (3, N, F)
    weights = _node_weights(brightness)  # (N, K)
    area = weights.sum(0)
    sums = torch.einsum("nk,anf,bnf->kabf", weights, coefficients, coefficients)
    power = without_shading(sums / area.clamp(min=1e-9)[:, None, None, None])
    return NoisePart(power, area * _STRIDE**2, _standardised(coefficients, brightness), _is_grey(noisy))


def _is_grey(image: Tensor) -> bool:
    x = to_float(image) if image.dtype == torch.uint8 else image.float()
    return float((x.amax(0) - x.amin(0)).max()) <= _EQUAL


def _coefficients(image: Tensor, stride: int) -> Tensor:
    blocks = image.unfold(1, SIDE, stride).unfold(2, SIDE, stride).reshape(3, -1, SIDE, SIDE)
    waves = dct_matrix().to(image)
    return (waves @ blocks @ waves.T).flatten(2)


def _node_weights(brightness: Tensor) -> Tensor:
    """``(N,)`` -> ``(N, K)``: 1 at the nearest node."""
    nearest = (brightness.double() * NODES).floor().clamp(0, NODES - 1).long()
    return F.one_hot(nearest, NODES).double()


def _values_of_image(image: Tensor) -> Tensor:
    """Of the flattest blocks at every brightness, judged by low frequencies, which are then left out."""
    x = to_float(image) if image.dtype == torch.uint8 else image.float()
    stride = SIDE - 1  # odd: no phase of JPEG's blocks is preferred
    while (x.shape[1] // stride) * (x.shape[2] // stride) > _MOST:
        stride += 2
    coefficients = _coefficients(x, stride)
    extremes = torch.stack([-F.max_pool2d(-x[None], SIDE, stride)[0], F.max_pool2d(x[None], SIDE, stride)[0]]).flatten(
        2
    )
    usable = ((extremes[0] > _DARKEST) & (extremes[1] < _BRIGHTEST)).all(0)
    coefficients = coefficients[:, usable]
    if coefficients.shape[1] == 0:
        return coefficients.new_zeros(0)
    low = (radius() > 0) & (radius() <= _LOW)
    roughness = coefficients[:, :, low].square().sum((0, 2))
    brightness = coefficients[:, :, 0].mean(0) / SIDE
    chosen = []
    for part in brightness.argsort().tensor_split(4):
        if len(part):
            count = max(1, round(_FLATTEST * len(part)))
            chosen.append(part[roughness[part].topk(count, largest=False).indices])
    flat = torch.cat(chosen)
    return _standardised(coefficients[:, flat].double(), brightness[flat])


def _standardised(coefficients: Tensor, brightness: Tensor) -> Tensor:
    """Pixels of blocks ``(3, N, F)`` without low frequencies, over the deviation of their channel and brightness."""
    waves = dct_matrix().to(coefficients)
    high = coefficients * (radius() > _LOW)
    pixels = (waves.T @ high.reshape(3, -1, SIDE, SIDE) @ waves).flatten(2)
    found = []
    for part in brightness.argsort().tensor_split(max(1, min(4, len(brightness) // 8))):
        values = pixels[:, part]
        deviation = values.square().mean((1, 2), keepdim=True).sqrt()
        found.append((values / deviation.clamp(min=1e-9)).flatten())
    return torch.cat(found).float()

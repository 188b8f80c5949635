"""What the blocks of one image say: log energies of 8x8 DCT bands in its flattest blocks, at three scales.

Flatness is judged on half of the coefficients (a chessboard of frequencies) and the other half is measured, and the
other way round, so that being chosen makes no measured coefficient smaller.  Scales 2 and 4, means of 2x2 and 4x4
pixels, hold what is longer than a block.

Legend: N blocks, P planes, K = 24 bands of scale 1 and 4 of the others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.flat_noise.flat_blocks import cut_shares

__all__ = ["FEATURES", "PLANES", "block_features", "dct_blocks", "parity_orders"]

_SIDE = 8
#: Blocks at most and the least stride, by scale; strides are odd, so that no phase of JPEG's 8x8 grid is preferred.
_MOST_BLOCKS = 5000
_STRIDES = (5, 3, 1)
_FEWEST = 12
#: Shares of the blocks, flattest first, whose energies are averaged.
_SHARES = (0.015, 0.06, 0.25)
#: Blocks of like brightness, and the share of each that is taken for flat.
_PARTS, _PART_SHARE = 3, 0.08
#: A block is clipped where more of a channel's values than this share are at 0, or above 247 of 255.
_AT_ZERO, _AT_TOP = 0.1, 0.03
_BRIGHTEST = 247.5 / 255
#: What goes for both where too few blocks are left.
_LOOSELY = 0.3
#: Energies below this, on the scale of 255, are as good as none.
_FLOOR = 0.01
#: Unit sums of R, G, B: the channels, their mean, and the differences of the two others for each of them.
PLANES = torch.tensor(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, -1], [1, 0, -1], [1, -1, 0]], dtype=torch.float32
)


def block_features(image: Tensor) -> Tensor | None:
    """Features ``(3, FEATURES)`` for R, G, B as the channel that is asked about, of float ``(3, H, W)`` in [0, 1].

    None where nearly all is clipped.
    """
    shared: list[Tensor] = []
    planes: list[Tensor] = []
    for scale, stride in enumerate(_STRIDES):
        x = F.avg_pool2d(image[None], 2**scale)[0] if scale else image
        coefficients = dct_blocks(x, stride)
        if coefficients.shape[1] < _FEWEST:
            if scale == 0:
                return None
            planes.append(planes[-1][..., :4] if scale == 1 else planes[-1])
            continue
        energy, brightness = _energies(coefficients, scale), coefficients[:, :, 0].mean(0) / _SIDE
        planes.append(_by_flatness(energy, scale))
        if scale == 0:
            shared = _by_brightness(energy, brightness)
    logs = torch.cat(planes, 2)  # (P, shares, bands of all scales)
    common = torch.cat([logs[3].flatten(), *shared])
    return torch.stack([torch.cat([logs[c].flatten(), logs[4 + c].flatten(), common]) for c in range(3)])


def dct_blocks(x: Tensor, stride: int = _STRIDES[0]) -> Tensor:
    """DCT coefficients ``(3, N, 64)`` of the blocks of ``(3, H, W)`` in [0, 1] that are not clipped, scale of 255."""
    if min(x.shape[1:]) < _SIDE:
        return x.new_zeros(3, 0, _SIDE * _SIDE)
    while math.prod((side - _SIDE) // stride + 1 for side in x.shape[1:]) > _MOST_BLOCKS:
        stride += 2
    blocks = x.unfold(1, _SIDE, stride).unfold(2, _SIDE, stride).reshape(3, -1, _SIDE, _SIDE)
    dark, bright = ((hit.flatten(2).float().mean(2)).amax(0) for hit in (blocks <= 1e-4, blocks > _BRIGHTEST))
    kept = (dark <= _AT_ZERO) & (bright <= _AT_TOP)
    if int(kept.sum()) < _FEWEST:  # very strong noise
        kept = (dark <= _LOOSELY) & (bright <= _LOOSELY)
    if int(kept.sum()) < _FEWEST and not 0 <= float(x.amin()) <= float(x.amax()) <= 1:  # beyond is not clipped
        dark, bright = (share.amax(0) for share in cut_shares(blocks))
        kept = (dark <= _AT_ZERO) & (bright <= _AT_TOP)
    blocks = blocks[:, kept]
    waves = _dct_matrix().to(blocks)
    return (waves @ blocks @ waves.T).flatten(2) * 255


def parity_orders(coefficients: Tensor) -> list[Tensor]:
    """Numbers of the blocks ``(N, 64)`` of one plane, flattest first, for measuring even and odd frequencies."""
    members = _members(0)
    energy = (coefficients.square() @ members.flatten(1)).reshape(-1, *members.shape[1:])
    return _orders(energy.expand(3, -1, -1, -1), members.sum(0))


def _energies(coefficients: Tensor, scale: int) -> Tensor:
    """Sums of squares ``(P, N, 2, K)`` by parity and band."""
    planes = PLANES.to(coefficients)
    planes = planes / planes.norm(dim=1, keepdim=True)
    squares = torch.einsum("pc,cnf->pnf", planes, coefficients).square()
    members = _members(scale)
    return (squares @ members.flatten(1)).reshape(*squares.shape[:2], *members.shape[1:])


def _by_flatness(energy: Tensor, scale: int) -> Tensor:
    """Log mean energies ``(P, shares + 1, K)`` of the flattest blocks, and mean log energies of all."""
    members = _members(scale).sum(0)
    orders = _orders(energy, members)
    count = energy.shape[1]
    found = []
    for share in _SHARES:
        taken = max(_FEWEST, round(share * count))
        even, odd = (energy[:, order[:taken], parity].mean(1) for parity, order in enumerate(orders))
        found.append(((even + odd) / members.sum(0) + _FLOOR).log())
    found.append((energy.sum(2) / members.sum(0) + _FLOOR).log().mean(1))
    return torch.stack(found, 1)


def _orders(energy: Tensor, members: Tensor) -> list[Tensor]:
    """Numbers of the blocks, flattest first, for measuring even and odd frequencies, each judged by the other."""
    logs = (energy[:3].sum(0) / (3 * members.clamp(min=1)) + _FLOOR).log()  # (N, 2, K)
    strangeness = (logs * (members > 0)).sum(2)
    return [strangeness[:, 1].argsort(), strangeness[:, 0].argsort()]


def _by_brightness(energy: Tensor, brightness: Tensor) -> list[Tensor]:
    """Coarse log energies of the flattest blocks of dark, middle and bright parts; brightnesses; count of blocks."""
    members = _members(0).sum(0)
    coarse = _coarse()  # (K, 4)
    levels, energies = [], []
    for part in brightness.argsort().tensor_split(_PARTS):
        orders = _orders(energy[:, part], members)
        taken = max(_FEWEST // 3, round(_PART_SHARE * len(part)))
        even, odd = (energy[:3, part[order[:taken]], parity].mean((0, 1)) for parity, order in enumerate(orders))
        energies.append((((even + odd) @ coarse) / (members.sum(0) @ coarse) + _FLOOR).log())
        levels.append(brightness[part[orders[0][:taken]]].mean() / 255)
    many = torch.tensor([math.log(energy.shape[1])], dtype=energy.dtype, device=energy.device)
    return [torch.cat(energies), torch.stack(levels), many]


def _members(scale: int) -> Tensor:
    """Which coefficients belong to which parity and band, ``(64, 2, K)``."""
    place = torch.arange(_SIDE * _SIDE)
    v, u = place // _SIDE, place % _SIDE
    if scale == 0:
        group = torch.tensor([0, 1, 2, 2, 3, 3, 4, 4])
        band = group[v] * 5 + group[u] - 1  # the mean gets -1
        bands = 24
    else:
        group = torch.tensor([0, 0, 1, 1, 9, 9, 9, 9])
        band = group[v] * 2 + group[u]
        band[0], bands = -1, 4
        band[(group[v] > 1) | (group[u] > 1)] = -1
    parity = (u + v) % 2
    members = torch.zeros(_SIDE * _SIDE, 2, bands)
    known = (band >= 0).nonzero()[:, 0]
    members[known, parity[known], band[known]] = 1
    return members


def _coarse() -> Tensor:
    """Bands of scale 1 as low, middle, high in one direction, high in both: ``(24, 4)``."""
    band = torch.arange(24) + 1
    v, u = band // 5, band % 5
    kind = torch.where(
        (u >= 3) & (v >= 3), 3, torch.where((u >= 3) | (v >= 3), 2, torch.where((u >= 2) | (v >= 2), 1, 0))
    )
    return F.one_hot(kind, 4).float()


def _dct_matrix() -> Tensor:
    place = torch.arange(_SIDE, dtype=torch.float64)
    waves = torch.cos(math.pi * (place + 0.5) * place[:, None] / _SIDE) * math.sqrt(2 / _SIDE)
    waves[0] /= math.sqrt(2)
    return waves


#: Of one channel: itself, the difference of the others and the mean, each of 32 bands at 4 shares; parts of brightness.
FEATURES = 3 * 4 * 32 + _PARTS * 5 + 1

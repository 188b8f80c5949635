"""What an image says of its own noise: level, correlation between neighbours, and growth with brightness.

The means are those of Ponomarenko et al. 2007 and of Colom & Buades (IPOL 2013), for noise of any spectrum: the
8x8 blocks that look flattest *for noise of the spectrum found so far* are noise and nothing else.  Half of the DCT
coefficients of a block (a chessboard of frequencies) judge it, the other half are measured, and the other way round:
coefficients of stationary noise are close to independent, so that being chosen does not make a measured one smaller.

Level, spectrum and line are tensor operations alone and may stand in a CUDA graph: nothing asks the device for a value,
and constants are made where the image is.

Legend: B batch, C channels, H, W size, N blocks, F = 64 frequencies of a block, K some of the blocks; power in halves
is that of the even and of the odd frequencies (by the sum of both directions), each ``(B, C, 32, N)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.denoisers.noise_line import lower_line
from synthpipe.errors import ShapeError
from synthpipe.small_systems import solve_positive

__all__ = ["choose_hole", "estimate_noise_line", "estimate_sigma", "noise_correlation", "noise_spectrum"]

Halves = tuple[Tensor, Tensor]

#: Lags of :func:`noise_correlation`, 0 included.
LAGS = 6

_SIDE = 8
_FREQUENCIES = _SIDE * _SIDE
#: Share of the blocks that are taken for flat, and how few may do.
_SHARE = 0.02
_FEWEST = 16
_ROUNDS = 3
#: Power below this share of the mean is not told from none.
_FLOOR = 1e-6
#: Blocks at most, by taking fewer of the positions in a large image.
_MOST_BLOCKS = 1 << 14
#: Share of values at exactly 0 or 1 from which on a block is clipped: its noise is cut off.
_CLIPPED = 0.125
#: Power at middle over high frequencies: up to the first, noise is white (photographs add up to this much to noise of
#: 5/255), from the second on it is correlated (camera noise 3, white noise behind a 3x3 binomial filter 19).
_WHITE, _CORRELATED = 2.0, 2.8
#: Power below this share of the mean is weak.
_WEAK = 0.3
#: The mean of a block has at most so much more power than the next frequencies; binomial noise has 1.15.
_DC_RATIO = 1.3
#: Groups of blocks by brightness.
_BRIGHTNESSES = 6
#: Median of the absolute value of a standard normal number.
_NORMAL_MAD = 0.6744897501960817


@torch.no_grad()
def estimate_sigma(x: Tensor) -> Tensor:
    """Standard deviation of the noise, white or correlated between neighbours.

    Args:
        x: ``(B, C, H, W)`` on any scale.  Fine texture that leaves no flat place is taken for noise.

    Returns:
        ``(B,)``, root mean square over channels, on the scale of ``x``.  Images with a side below 8 go by the median of
        their finest diagonal Haar details (Donoho & Johnstone 1994); 0 for a single row or column.

    >>> import torch
    >>> from synthpipe.denoisers.noise_level import estimate_sigma
    >>> estimate = estimate_sigma(0.5 + 0.1 * torch.randn(1, 3, 96, 96))
    >>> bool(abs(estimate - 0.1) < 0.01)
    True
    """
    if min(x.shape[2:]) < _SIDE:
        return _haar_sigma(x)
    return noise_spectrum(x).mean((1, 2, 3)).clamp(min=0).sqrt().to(x.dtype)


@torch.no_grad()
def noise_spectrum(x: Tensor) -> Tensor:
    """Variance of the noise in each 8x8 DCT coefficient (orthonormal): white noise gives ``sigma^2`` everywhere.

    Args:
        x: ``(B, C, H, W)``, sides of at least 8.

    Returns:
        ``(B, C, 8, 8)``, vertical frequency first; its mean over frequencies is the variance of a pixel.

    Raises:
        ShapeError: smaller images.
    """
    if x.ndim != 4 or min(x.shape[2:]) < _SIDE:
        raise ShapeError(f"noise_spectrum: expected images (B, C, H, W) of at least 8x8 pixels, got {tuple(x.shape)}")
    power, clipped, _ = _blocks(x)
    flat, _ = _flat_power(power, clipped, _SHARE)
    return torch.unflatten(_without_image(flat, _coloured(flat)), 2, (_SIDE, _SIDE))


@torch.no_grad()
def noise_correlation(images: Tensor | Iterable[Tensor]) -> Tensor:
    """Autocorrelation of the noise, mean over channels and images.

    Args:
        images: ``(B, C, H, W)``, or any number of ``(C, H, W)`` of any sizes from 8x8 on.

    Returns:
        ``(6, 6)``: correlation of pixels that are so many rows and columns apart, in either direction; ``[0, 0]`` is 1.
        Correlation over more than a block is not seen.

    Raises:
        ShapeError: no images, or smaller ones.
    """
    lines = _line_correlations()
    total, count = torch.zeros(LAGS, LAGS), 0
    for image in images:
        spectrum = noise_spectrum(image[None])[0].float().cpu()  # (C, 8, 8)
        lags = torch.einsum("cuv,ud,ve->cde", spectrum, lines, lines)
        total += (lags / lags[:, :1, :1].clamp(min=1e-20)).mean(0)
        count += 1
    if count == 0:
        raise ShapeError("noise_correlation: expected at least one image, got none")
    total = total / count
    total[0, 0] = 1.0  # of images without noise too
    return total


def choose_hole(correlation: Tensor, threshold: float = 0.1) -> int:
    """The smallest hole of a blind spot that noise cannot look into.

    Args:
        correlation: ``(6, 6)`` of :func:`noise_correlation`.
        threshold: correlation that is let pass.

    Returns:
        Pixels on each side: beyond them, in rows or columns, no correlation exceeds ``threshold``.
    """
    far = (correlation.abs() > threshold).nonzero()
    return int(far.max()) if len(far) else 0


@torch.no_grad()
def estimate_noise_line(x: Tensor) -> tuple[Tensor, Tensor]:
    """Noise of variance ``a * brightness + b``, from flat places of several brightnesses.

    Args:
        x: ``(B, C, H, W)`` in [0, 1], sides of at least 8.

    Returns:
        ``a`` and ``b``, each ``(B,)`` and at least 0, one line for all channels.

    Raises:
        ShapeError: smaller images.
    """
    if x.ndim != 4 or min(x.shape[2:]) < _SIDE:
        raise ShapeError(
            f"estimate_noise_line: expected images (B, C, H, W) of at least 8x8 pixels, got {tuple(x.shape)}"
        )
    power, clipped, brightness = _blocks(x)
    coloured = _coloured(_flat_power(power, clipped, _SHARE)[0])
    order = brightness.mean(1).argsort(1)  # (B, N)
    places, variances = [], []
    for part in order.tensor_split(min(_BRIGHTNESSES, order.shape[1]), dim=1):
        here = (_of_blocks(power[0], part), _of_blocks(power[1], part))
        flat, chosen = _flat_power(here, clipped.gather(1, part), 2 * _SHARE)
        own = _of_blocks(brightness[:, :, None], part)[:, :, 0]
        places.append(torch.einsum("bcn,bn->bc", own, chosen) / chosen.sum(1, keepdim=True))
        variances.append(_without_image(flat, coloured).mean(2))
    a, b = lower_line(torch.cat(places, 1).double(), torch.cat(variances, 1).double())
    return a.to(x.dtype), b.to(x.dtype)


def _blocks(x: Tensor) -> tuple[Halves, Tensor, Tensor]:
    """Squared DCT coefficients in halves, which blocks are clipped ``(B, N)``, their means ``(B, C, N)``."""
    planes = x.float().flatten(0, 1)[:, None]  # (B C, 1, H, W)
    stride = _SIDE // 2
    while math.prod((side - _SIDE) // stride + 1 for side in x.shape[2:]) > _MOST_BLOCKS:
        stride += 1
    waves = _dct_matrix(planes.device)
    basis = torch.einsum("ui,vj->uvij", waves, waves).reshape(_FREQUENCIES, 1, _SIDE, _SIDE)
    coefficients = [
        torch.unflatten(F.conv2d(planes, basis.index_select(0, half), stride=stride).flatten(2), 0, x.shape[:2])
        for half in _halves(planes.device)
    ]
    at_end = ((planes == 0) | (planes == 1)).float()
    at_end = torch.unflatten(F.avg_pool2d(at_end, _SIDE, stride).flatten(1), 0, x.shape[:2])  # (B, C, N)
    clipped = at_end.amax(1) > _CLIPPED
    means = coefficients[0][:, :, 0] / _SIDE
    return (coefficients[0].square_(), coefficients[1].square_()), clipped, means


def _halves(device: torch.device) -> Halves:
    """Where the even and the odd frequencies stand among all, each ``(32,)``: four of each in a row."""
    place = torch.arange(_FREQUENCIES // 2, device=device)
    row, pair = place // (_SIDE // 2), place % (_SIDE // 2)
    even = _SIDE * row + 2 * pair + row % 2
    return even, even + 1 - 2 * (row % 2)


def _of_blocks(values: Tensor, places: Tensor) -> Tensor:
    """``(B, C, F, N)`` at the places ``(B, K)`` -> ``(B, C, F, K)``."""
    return values.gather(3, places[:, None, None].expand(-1, *values.shape[1:3], -1))


def _flat_power(power: Halves, clipped: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mean power of blocks that hold noise alone, from halves to ``(B, C, F)``, and which they are, ``(B, N)``.

    From the ``share`` that looks flattest a spectrum is found in a few rounds; then all blocks no stranger than noise
    of this spectrum is on average are taken, half of all in a flat image.  The power of the mean is given as 0.
    """
    batch, channels, half, count = power[0].shape
    kept = min(count, max(_FEWEST, int(share * count)))
    halves = _halves(clipped.device)
    place = torch.arange(_FREQUENCIES, device=clipped.device)
    is_odd = (place // _SIDE + place) % 2
    in_order = place // 2 + half * (1 - is_odd)  # among all odd ones, then all even ones
    found = power[0].new_ones(batch, channels, _FREQUENCIES)
    for turn in range(_ROUNDS + 1):
        judging = 1 / found.clamp(min=_FLOOR * found.mean((1, 2), keepdim=True))
        judging[..., 0].zero_()
        means = []
        # The mean, an even frequency, judges nothing.
        for measured, judge, judges in ((1, 0, half - 1), (0, 1, half)):
            weight = judging.index_select(2, halves[judge])
            strangeness = torch.einsum("bcf,bcfn->bn", weight, power[judge]).masked_fill(clipped, math.inf)
            limit = strangeness.kthvalue(kept, 1, keepdim=True).values
            if turn == _ROUNDS:
                limit = limit.clamp(min=channels * judges)
            chosen = (strangeness <= limit).to(found.dtype)
            means.append(torch.einsum("bcfn,bn->bcf", power[measured], chosen) / chosen.sum(1)[:, None, None])
        found = torch.cat(means, 2).index_select(2, in_order)
        found[..., 0].zero_()
    return found, chosen


def _coloured(power: Tensor) -> Tensor:
    """From 0, white, to 1, correlated, by the power ``(B, C, F)`` of flat blocks; ``(B, 1, 1)``."""
    middle, high = _between(power, 5, 7).mean(-1), _between(power, 9, 2 * _SIDE).mean(-1)
    # One decision for all channels of an image.
    ratio = middle.sum(-1, keepdim=True) / high.sum(-1, keepdim=True).clamp(min=1e-20)
    return ((ratio / _WHITE).log() / math.log(_CORRELATED / _WHITE)).clamp(0, 1)[..., None]


def _without_image(power: Tensor, coloured: Tensor) -> Tensor:
    """Take shading and texture, which fade with frequency, off the power ``(B, C, F)`` of flat blocks.

    White noise (``coloured`` is 0) has the variance that the high frequencies tell.  Of correlated noise the three
    lowest frequencies, full of shading, get no more than the others let expect.
    """
    white = torch.unflatten(power, -1, (_SIDE, _SIDE))[..., 4:, 4:].flatten(-2).mean(-1, keepdim=True)
    expected, own = _short_range(power), power.clone()
    lowest = slice(1, _SIDE + 1, _SIDE - 1)  # 1 and 8, the next to the mean in either direction
    own[..., lowest] = power[..., lowest].minimum(expected[..., lowest])
    own[..., 0] = expected[..., 0].minimum(_DC_RATIO * own[..., lowest].mean(-1))
    return coloured * own + (1 - coloured) * white


def _between(power: Tensor, low: int, high: int) -> Tensor:
    """The coefficients of ``(..., F)`` whose frequencies add up to ``low`` to ``high``, row by row, ``(..., K)``."""
    square = torch.unflatten(power, -1, (_SIDE, _SIDE))
    return torch.cat([square[..., row, max(0, low - row) : max(0, high + 1 - row)] for row in range(_SIDE)], -1)


def _short_range(power: Tensor) -> Tensor:
    """The spectrum nearest to ``(..., F)`` of noise whose correlation ends after two pixels, by weighted least squares.

    The three lowest frequencies have no say, and all weak ones the same: they say little of the lowest.
    """
    waves = _dct_matrix(power.device)
    lags = [waves[:, : _SIDE - lag] * waves[:, lag:] for lag in range(3)]
    # The power of noise of covariance r in wave u of a block is r_0 + 2 * sum_k r_k * (products of entries k apart).
    rows = torch.stack([products.sum(1) * (2 if lag else 1) for lag, products in enumerate(lags)], 1)  # (8, 3)
    basis = torch.einsum("uk,vl->uvkl", rows, rows).flatten(2).flatten(0, 1).to(power)  # (F, 9)
    weight = 1 / power.clamp(min=_WEAK * power.mean(-1, keepdim=True)).clamp(min=1e-30)
    weight[..., :2].zero_()
    weight[..., _SIDE].zero_()
    weight = weight / weight.amax(-1, keepdim=True)
    left = basis.T @ (weight.square()[..., None] * basis)
    right = basis.T @ (weight.square() * power)[..., None]
    ridge = (
        1e-6
        * left.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        * torch.eye(9, dtype=power.dtype, device=power.device)
    )
    covariance = solve_positive(left + ridge, right)
    return (basis @ covariance)[..., 0].clamp(min=0)


def _line_correlations() -> Tensor:
    """``(8, 6)``: mean product of the entries of each DCT wave that are 0..5 apart."""
    waves = _dct_matrix(torch.device("cpu"))
    return torch.stack([(waves[:, : _SIDE - lag] * waves[:, lag:]).mean(1) for lag in range(LAGS)], 1)


def _dct_matrix(device: torch.device) -> Tensor:
    """Orthonormal DCT-II, one wave in each row."""
    place = torch.arange(_SIDE, dtype=torch.float64, device=device)
    waves = torch.cos(math.pi * (place + 0.5) * place[:, None] / _SIDE) * math.sqrt(2 / _SIDE)
    waves[0] /= math.sqrt(2)
    return waves.float()


def _haar_sigma(x: Tensor) -> Tensor:
    if min(x.shape[2:]) < 2:
        return x.new_zeros(len(x))
    height, width = (side // 2 * 2 for side in x.shape[2:])
    a, b = x[:, :, 0:height:2, 0:width:2], x[:, :, 0:height:2, 1:width:2]
    c, d = x[:, :, 1:height:2, 0:width:2], x[:, :, 1:height:2, 1:width:2]
    details = 0.5 * (a - b - c + d)
    by_channel = details.abs().flatten(2).median(2).values / _NORMAL_MAD  # (B, C)
    return by_channel.square().mean(1).sqrt()

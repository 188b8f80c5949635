"""Flat blocks of one image, and the power that noise has in each of their DCT coefficients.

Legend: N blocks, F = 256 frequencies of a block.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise.spectrum import FREQUENCIES, SIDE, dct_matrix, radius

__all__ = ["FlatPart", "check_image", "check_values", "cut_shares", "flat_parts"]


#: Blocks at most, by taking fewer of the positions; strides are odd, so that no phase of JPEG's 8x8 grid is preferred.
_MOST_BLOCKS = 1 << 14
_STRIDE = 5
#: Blocks of like brightness are judged together: so many parts at most, of so many blocks at least.
_PARTS, _LEAST_PART = 16, 1000
#: Share of the blocks of a part that are taken for flat: the least, in any case, and the most; and how few may do.
_LEAST_SHARE, _MOST_SHARE, _FEWEST = 0.02, 0.3, 24
#: Blocks are taken for as flat as the least share up to so many times its low-frequency power.
_TOLERANCE = 1.25
#: Rounds by power alone, and those in which it counts against the block's own fine noise.
_ROUNDS, _ROUNDS_BY_OWN = 2, 2
#: A block's fine noise excuses its power up to this factor, in variance, from that of the flattest blocks.
_MOST_OWN = 2.0
#: Within this factor that fine noise differs by chance.
_CHANCE = 1.2
#: Block frequencies up to this radius judge flatness; those beyond, up to the side, are fine.
_JUDGING_RADIUS = 8
#: A block is clipped where more of a channel's values than this share are at 0, or above 247 of 255.
_AT_ZERO, _AT_TOP = 0.1, 0.03
_DARKEST, _BRIGHTEST = 8 / 255, 247.5 / 255
#: Median of the square of a standard normal number.
_MEDIAN_SQUARE = 0.45493642
#: Means of squares exceed medians by up to this factor where noise has long tails; it is seen between these radii, and
#: holds up to the smaller factor below them.
_MOST_TAIL, _LOW_TAIL, _TAIL_RADII = 1.8, 1.25, (5, 8)
#: Strong noise that was not clipped leaves [0, 1] by less than this; values beyond are of another scale.
_BEYOND = 2.0
#: So are images whose local means do: noise and the overshoot of a resize are of both signs there.
_MEAN_BEYOND, _MEAN_SHARE = 0.1, 0.05
#: Values within this of 0 or 1 may have been cut there; those beyond were not.
_AT_LIMIT = 1e-4


class FlatPart(NamedTuple):
    """What the flat blocks of like brightness in one image say."""

    #: Pixels of flat area.
    pixels: float
    #: Mean of R, G, B, on the [0, 1] scale.
    brightness: float
    #: ``(3, 3, F)`` float64: covariance of the channels in each coefficient; mean over F: in a pixel.
    power: Tensor


def check_image(image: Tensor, least: int) -> None:
    """Refuse what is not ``(3, H, W)`` with sides of ``least`` pixels, on the scale that is measured: ShapeError."""
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < least:
        raise ShapeError(
            f"flat noise: expected an image (3, H, W) of at least {least}x{least} pixels, got {tuple(image.shape)}"
        )
    check_values(image)


def check_values(image: Tensor) -> None:
    """Refuse other scales, which would pass for clipped, and what is not finite: ShapeError."""
    if image.dtype == torch.uint8 or not image.numel():
        return
    if not image.is_floating_point():
        raise ShapeError(f"flat noise: expected uint8, or floating point in [0, 1], got {image.dtype}; divide by white")
    least, most = (float(value) for value in image.detach().aminmax())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise ShapeError("flat noise: the image holds NaN or infinity; leave it out")
    if least < -_BEYOND or most > 1 + _BEYOND:
        raise ShapeError(f"flat noise: expected values in [0, 1], got {least:g} to {most:g}; divide by white")
    if least < -_MEAN_BEYOND or most > 1 + _MEAN_BEYOND:
        means = F.avg_pool2d(image.detach().float()[None], [min(side, SIDE) for side in image.shape[1:]]).flatten()
        low, high = (float(value) for value in means.quantile(means.new_tensor([_MEAN_SHARE, 1 - _MEAN_SHARE])))
        if low < -_MEAN_BEYOND or high > 1 + _MEAN_BEYOND:
            raise ShapeError(
                f"flat noise: expected values in [0, 1], got local means from {low:.2g} to {high:.2g}; undo what "
                "shifted or scaled them"
            )


def cut_shares(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the values of blocks ``(C, N, S, S)`` that may have been cut at 0 and at 1, ``(C, N)`` each.

    Values beyond count for none, as cutting would have left none of them: noise around black or white of a
    floating-point image that nothing has clipped.
    """
    at = [(blocks - limit).abs() <= _AT_LIMIT for limit in (0, 1)]
    dark, bright = (hit.flatten(2).float().mean(2) for hit in at)
    return dark, bright


def flat_parts(image: Tensor) -> list[FlatPart]:
    """Flat blocks of ``(3, H, W)``, uint8 or float in [0, 1], by parts of like brightness; it may have none.

    Raises:
        ShapeError: another shape, or below 16x16.
    """
    check_image(image, least=SIDE)
    coefficients, area = _blocks(image)
    count = coefficients.shape[1]
    if count < _FEWEST:
        return []
    brightness = coefficients[:, :, 0].mean(0) / SIDE
    found = []
    for part in brightness.argsort().tensor_split(max(1, min(_PARTS, count // _LEAST_PART))):
        chosen = _flat_blocks(coefficients[:, part])
        power = torch.zeros(3, 3, FREQUENCIES, dtype=torch.float64)
        mean = torch.zeros(3, FREQUENCIES, dtype=torch.float64)
        for half, blocks in zip(_halves(), chosen, strict=True):
            flat = coefficients[:, part[blocks]][:, :, half]
            power[:, :, half] = _robust_covariance(flat).double().cpu()
            mean[:, half] = flat.square().mean(1).double().cpu()
        blocks = torch.cat(chosen)
        power = _with_tails(power, mean)
        found.append(FlatPart(area * len(blocks) / 2, float(brightness[part[blocks]].mean()), power))
    return found


def _blocks(image: Tensor) -> tuple[Tensor, int]:
    """DCT coefficients ``(3, N, F)`` of the blocks that are not clipped, and the pixels that each stands for."""
    x = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    stride = _STRIDE
    while math.prod((side - SIDE) // stride + 1 for side in x.shape[1:]) > _MOST_BLOCKS:
        stride += 2
    blocks = x.unfold(1, SIDE, stride).unfold(2, SIDE, stride).reshape(3, -1, SIDE, SIDE)
    quarters = blocks.reshape(3, -1, 4, 4, 4, 4).mean((3, 5)).flatten(2)
    dark = (quarters < _DARKEST).any(2) | ((blocks <= 0).flatten(2).float().mean(2) > _AT_ZERO)
    bright = (blocks > _BRIGHTEST).flatten(2).float().mean(2) > _AT_TOP
    kept = ~(dark | bright).any(0)
    if int(kept.sum()) < _FEWEST:  # what is beyond black or white was not cut there
        least, most = (float(value) for value in x.aminmax())
        at_zero, at_top = cut_shares(blocks)
        dark = at_zero > _AT_ZERO if least < -_AT_LIMIT else dark
        bright = at_top > _AT_TOP if most > 1 + _AT_LIMIT else bright
        kept = ~(dark | bright).any(0)
    blocks = blocks[:, kept]
    waves = dct_matrix().to(blocks)
    return (waves @ blocks @ waves.T).flatten(2), min(stride, SIDE) ** 2


def _flat_blocks(coefficients: Tensor) -> list[Tensor]:
    """Numbers of the flat blocks of ``(3, N, F)`` for measuring the even and for measuring the odd frequencies.

    Noise may differ from place to place, as cameras that smooth leave it: of two blocks with as little structure the
    calmer one is not flatter.  So in the later rounds power counts against the block's own fine noise, which is
    compared with that of the flattest blocks.  Fine texture passes for such noise: the factor is bounded.
    """
    count = coefficients.shape[1]
    fewest, most = max(_FEWEST, int(_LEAST_SHARE * count)), max(_FEWEST, int(_MOST_SHARE * count))
    distance = radius().to(coefficients.device)
    judging = ((distance > 0) & (distance <= _JUDGING_RADIUS)).to(coefficients)
    fine = ((distance > _JUDGING_RADIUS) & (distance <= SIDE)).to(coefficients)
    squares = coefficients.square()
    weight = judging.expand(3, -1)
    even, odd = _halves()
    sides = ((even, odd), (odd, even))
    own = [torch.einsum("f,cnf->n", fine[judge], squares[:, :, judge]) for _, judge in sides]
    excuse: list[Tensor] = []
    for number in range(_ROUNDS + _ROUNDS_BY_OWN):
        found = torch.zeros_like(weight)
        chosen = []
        for side, (measured, judge) in enumerate(sides):
            strangeness = torch.einsum("cf,cnf->n", weight[:, judge], squares[:, :, judge])
            if excuse:
                strangeness = strangeness / excuse[side]
            order = strangeness.argsort()
            limit = _TOLERANCE * strangeness[order[fewest - 1]]
            kept = min(max(int((strangeness <= limit).sum()), fewest), most)
            chosen.append(order[:kept])
            found[:, measured] = squares[:, chosen[-1]][:, :, measured].median(1).values
        # The root: power where structure is strongest, low frequencies, still decides.
        weight = judging / found.clamp(min=1e-2 * found.mean(1, keepdim=True)).clamp(min=1e-12).sqrt()
        if number == _ROUNDS - 1:
            usual = [power[flat].median().clamp(min=1e-12) for power, flat in zip(own, chosen, strict=True)]
            excuse = [_excuse(power / middle) for power, middle in zip(own, usual, strict=True)]
    return chosen


def _excuse(ratio: Tensor) -> Tensor:
    """What power is divided by, of fine noise over that of the flattest blocks; 1 within what chance makes of it."""
    beyond = (ratio / _CHANCE).clamp(1, _MOST_OWN)
    return beyond * (ratio * _CHANCE).clamp(1 / _MOST_OWN, 1)


def _robust_covariance(coefficients: Tensor) -> Tensor:
    """Covariance of the channels at each frequency, ``(3, N, F)`` -> ``(3, 3, F)``, by medians over blocks."""
    power = _median_power(coefficients)
    covariance = torch.diag_embed(power.T).permute(1, 2, 0).clone()
    for a, b in ((0, 1), (1, 2), (0, 2)):
        both = torch.stack([coefficients[a] + coefficients[b], coefficients[a] - coefficients[b]])
        plus, minus = _median_power(both)
        bound = (power[a] * power[b]).sqrt()
        covariance[a, b] = covariance[b, a] = ((plus - minus) / 4).clamp(-bound, bound)
    return covariance


def _median_power(coefficients: Tensor) -> Tensor:
    """``(C, N, F)`` -> ``(C, F)``, of normal coefficients."""
    power: Tensor = coefficients.square().median(1).values / _MEDIAN_SQUARE
    return power


def _with_tails(covariance: Tensor, mean: Tensor) -> Tensor:
    """Covariances ``(3, 3, F)`` by medians, raised to what means ``(3, F)`` of the squares allow.

    Camera noise is no normal noise: it differs from place to place, and coding sets most high coefficients to 0.  High
    frequencies, where texture is weak, show how much means exceed medians for this reason; low ones get no more.
    """
    power = covariance.diagonal(dim1=0, dim2=1).T  # (3, F)
    excess = (mean / power.clamp(min=1e-12)).clamp(1, _MOST_TAIL)
    distance = radius().to(mean.device)
    known = (distance >= _TAIL_RADII[0]) & (distance < _TAIL_RADII[1])
    tail = ((power * excess)[:, known].sum(1) / power[:, known].sum(1).clamp(min=1e-12)).clamp(1, _LOW_TAIL)
    raised = torch.where(distance >= _TAIL_RADII[1], excess, excess.minimum(tail[:, None])).sqrt()
    raised = torch.where(distance < _TAIL_RADII[0], tail.sqrt()[:, None], raised)
    return covariance * raised[:, None] * raised


def _halves() -> tuple[Tensor, Tensor]:
    """Numbers of the even and of the odd frequencies, by the sum of both directions."""
    place = torch.arange(FREQUENCIES)
    odd = (place // SIDE + place) % 2 == 1
    return (~odd).nonzero()[:, 0], odd.nonzero()[:, 0]

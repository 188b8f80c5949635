"""A generator of noise against the flat areas of its noisy pile: what its correction must be.

Both sides are measured in the same way, as the pairs of real photographs are (:mod:`synthpipe.noise_statistics`): on
flat areas, without the 65-pixel local mean.  The pile's noise is what :func:`synthpipe.flat_noise.measure_flat_noise`
finds; the generator's is what it adds to clean tiles, which is known.

Legend: L groups of noise levels, K nodes of brightness, N tiles.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import TrainingError, counted
from synthpipe.flat_noise import measure_flat_noise, noise_level
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.flat_correction import FlatCorrection, covariance_map, filtered, local_brightness, node_weights
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.images import to_float
from synthpipe.noise_statistics import LOCAL_MEAN_WINDOW, flat_mask, local_mean
from synthpipe.training.data.folder_domain import FolderDomain
from synthpipe.training.data.unpaired import UnpairedData

__all__ = [
    "FlatCalibration",
    "LevelGroup",
    "PileNoise",
    "check_flat_areas",
    "correction_for",
    "group_levels",
    "measure_pile",
    "most_flat",
]

logger = logging.getLogger("synthpipe.training")

#: Groups of levels: at most so many, and no two nearer than this ratio.
MOST_GROUPS, GROUP_RATIO = 6, 1.15
#: Images of one group that are measured, at most.
GROUP_IMAGES = 12
#: Pixels of a group at a node that count as much as what the other groups, scaled to its level, say there.
PRIOR_PIXELS = 20_000
#: Clean crops that are looked at, those of them that are degraded, their side, and how many at once.
CANDIDATES, TILES, TILE, BATCH = 128, 24, 192, 4
#: Side of the filters; 1 would leave the spatial correlation as it is.
SIDE = 5
#: Largest factor between what the correction does to noise in any direction of colour and what it does on the
#: (geometric) mean of the three.  The mean is free: a flow may start from weights of a camera with far weaker noise.
WIDEST = 4.0
#: Variance of rounding to 8 bits, which comes after the correction.
_ROUNDING = 1 / 12 / 255**2

Degrade = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class LevelGroup:
    """Noisy images of about one level."""

    #: Their geometric mean, [0, 1] scale.
    level: float
    #: Numbers of the images.
    members: tuple[int, ...]

    @property
    def measured(self) -> tuple[int, ...]:
        """Those whose flat areas are looked at, evenly spaced."""
        return self.members[:: -(-len(self.members) // GROUP_IMAGES)]


@dataclass(frozen=True)
class PileNoise:
    """The pile's noise, float64, [0, 1] scale."""

    #: ``(L,)``, ascending; 1 where the images were not measured one by one.
    levels: Tensor
    #: Nodes ``(K,)``.
    brightness: Tensor
    #: ``(L, K, 3, 3)`` of R, G, B.
    covariance: Tensor
    #: ``(L, 3, S, S)``, 1 in the middle.
    autocorrelation: Tensor
    #: ``(L,)``: what the images of each group say together.
    measured: tuple[float, ...]


class FlatCalibration:
    """Gives models the correction that flat areas of the piles of a run ask for.

    The piles are measured when the first model comes; all get the same tiles and seeds.

    Args:
        data: of the run.
    """

    def __init__(self, data: UnpairedData) -> None:
        self._data = data

    @cached_property
    def _pile(self) -> PileNoise:
        return measure_pile(*_groups_of(self._data))

    @cached_property
    def _tiles(self) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1]."""
        return most_flat(to_float(self._data.clean_tiles(CANDIDATES, TILE)), self._pile.brightness, TILES)

    def __call__(self, model: DeFlow) -> dict[str, Any]:
        """Correct ``model``; a correction that it has is replaced.

        Returns:
            What the header says of it: numbers of 255.

        Raises:
            OptionError: images in shards.
            TrainingError: no flat areas on one of the sides.
        """
        model.correct(None)
        pile, tiles = self._pile, self._tiles
        device = next(model.parameters()).device
        frozen = FrozenDeFlow(model)

        def degrade(x: Tensor, level: float) -> Tensor:
            """In small batches, each tile with a seed of its own."""
            asked = level if model.pile is not None else None
            return torch.cat(
                [
                    frozen.degrade_with(part.to(device), SeededNoise(seeds.to(device), "calibrate"), level=asked).cpu()
                    for part, seeds in zip(torch.split(x, BATCH), torch.split(torch.arange(len(x)), BATCH), strict=True)
                ]
            )

        log_levels = pile.levels if model.pile is None else model.pile.log_ratio(pile.levels.to(device)).cpu()
        correction = correction_for(degrade, tiles, pile, log_levels)
        model.correct(correction.to(device, next(model.parameters()).dtype))
        gains = torch.linalg.eigvalsh(correction.maps)
        return {
            "levels": [round(255 * level, 3) for level in pile.measured],
            "tiles": len(tiles),
            "least_gain": float(gains.min()),
            "largest_gain": float(gains.max()),
        }


def check_flat_areas(data: UnpairedData) -> None:
    """Refuse piles on which :class:`FlatCalibration` would fail.

    No more than :data:`GROUP_IMAGES` noisy images of a level are looked at, up to the first flat area of either side.

    Raises:
        OptionError: images in shards.
        TrainingError: no flat areas on one of the sides.
    """
    groups, read = _groups_of(data)
    for group in groups:
        if all(noise_level(read(number)) is None for number in group.measured):
            raise TrainingError(
                f"calibrate: none of {counted(len(group.measured), 'noisy image')} of about one level has a flat area "
                "on which its noise can be measured; set it to false"
            )
    side, looked_at = 0, 0
    for tile in data.each_clean_tile(CANDIDATES, TILE):
        if bool(flat_mask(tile).any()):
            return
        side, looked_at = tile.shape[-1], looked_at + 1
    raise _none_flat(looked_at, side)


def _groups_of(data: UnpairedData) -> tuple[list[LevelGroup], Callable[[int], Tensor]]:
    """Noisy images by their levels, and what reads one by its number in them.

    Where levels were measured every image has been read, and which cannot be is known; else a few stand for all.
    """
    noisy = data.noisy
    count = len(noisy.files)
    images = [n for n in range(count) if not noisy.is_broken(n)] if data.levels else _readable_few(noisy)
    if not images:
        raise TrainingError(
            f"calibrate: none of {counted(count, 'noisy image')} can be read; check data.noisy; {noisy.advice()}"
        )
    levels = [data.levels.get(noisy.files[number], 1.0) for number in images]
    return group_levels(levels), lambda number: _read_again(noisy, images[number])


def _readable_few(noisy: FolderDomain) -> list[int]:
    """Numbers of images that can be read, evenly spaced over the pile, the next one in place of one that cannot."""
    count = len(noisy.files)
    step = -(-count // GROUP_IMAGES)
    near = [range(first, min(first + step, count)) for first in range(0, count, step)]
    found = [next((n for n in numbers if noisy.image(n) is not None), None) for numbers in near]
    few = [number for number in found if number is not None]
    if few and step > 1:
        logger.info("calibrate: the noise of the pile is measured on %d of %d images, evenly spaced", len(few), count)
    return few


def _read_again(noisy: FolderDomain, number: int) -> Tensor:
    image = noisy.image(number)
    if image is None:
        raise TrainingError(f"calibrate: {noisy.files[number]!r} could be read before and cannot be now; put it back")
    return image


def group_levels(levels: Sequence[float]) -> list[LevelGroup]:
    """Images by their levels, in groups that span equal ratios; ascending, none empty."""
    logs = [math.log(level) for level in levels]
    low, span = min(logs), max(logs) - min(logs)
    count = min(MOST_GROUPS, 1 + int(span / math.log(GROUP_RATIO)))
    width = span / count if count > 1 else math.inf
    groups: dict[int, list[int]] = {}
    for number, log in enumerate(logs):
        groups.setdefault(min(int((log - low) / width), count - 1), []).append(number)
    return [
        LevelGroup(math.exp(sum(logs[n] for n in members) / len(members)), tuple(members))
        for _, members in sorted(groups.items())
    ]


def measure_pile(groups: Sequence[LevelGroup], read: Callable[[int], Tensor]) -> PileNoise:
    """The noise of each group, where a group has few pixels filled up by the others, scaled to its level.

    Args:
        groups: of :func:`group_levels`.
        read: number of an image -> ``(3, H, W)`` uint8.
    """
    found = []
    for group in groups:
        found.append(measure_flat_noise(read(number) for number in group.measured))
    squares = torch.tensor([group.level**2 for group in groups], dtype=torch.float64)
    covariance = torch.stack([noise.covariance.double() for noise in found])
    counts = torch.stack([torch.as_tensor(noise.counts).double() for noise in found])  # (L, K)
    relative = covariance / squares[:, None, None, None]
    shared = torch.einsum("lk,lkij->kij", counts, relative) / counts.sum(0).clamp(min=1)[:, None, None]
    shared = _filled(shared, counts.sum(0))
    own = (counts / (counts + PRIOR_PIXELS))[..., None, None]
    mixed = (own * relative + (1 - own) * shared) * squares[:, None, None, None]
    half, middle = SIDE // 2, found[0].autocorrelation.shape[-1] // 2
    kept = slice(middle - half, middle + half + 1)
    return PileNoise(
        levels=squares.sqrt(),
        brightness=found[0].nodes.double(),
        covariance=mixed,
        autocorrelation=torch.stack([noise.autocorrelation.double()[:, kept, kept] for noise in found]),
        measured=tuple(noise.level for noise in found),
    )


def most_flat(tiles: Tensor, nodes: Tensor, count: int) -> Tensor:
    """Those ``count`` of the clean tiles ``(N, 3, H, W)`` in [0, 1] that show most flat area at every brightness.

    Raises:
        TrainingError: none has a flat area.
    """
    area = _node_weights(tiles, nodes).flatten(2).sum(2)  # (N, K)
    if not bool(area.any()):
        raise _none_flat(len(tiles), tiles.shape[-1])
    shares = area / area.sum(0).clamp(min=1)
    return tiles[shares.sum(1).topk(min(count, len(tiles))).indices.sort().values]


def _none_flat(count: int, side: int) -> TrainingError:
    return TrainingError(
        f"calibrate: none of {counted(count, 'clean crop')} of {side} pixels has a flat area; set it to false"
    )


def correction_for(degrade: Degrade, tiles: Tensor, pile: PileNoise, log_levels: Tensor) -> FlatCorrection:
    """The correction that gives what ``degrade`` adds the pile's covariance and correlation.

    Args:
        degrade: ``(tiles, level)`` -> noisy tiles, without a correction.
        tiles: clean ``(N, 3, H, W)`` in [0, 1], of :func:`most_flat`.
        pile: what is to come out.
        log_levels: ``(L,)``, the pile's levels as the model counts them.
    """
    correction = FlatCorrection(len(pile.brightness), len(pile.levels), SIDE)
    correction.brightness.copy_(pile.brightness)
    correction.levels.copy_(log_levels)
    weights = _node_weights(tiles, pile.brightness)  # (N, K, H, W)
    for number, level in enumerate(pile.levels.tolist()):
        residual = torch.stack([r - local_mean(r, LOCAL_MEAN_WINDOW) for r in (degrade(tiles, level) - tiles).double()])
        made = _autocorrelations(residual, weights)
        filters = torch.stack([_fit_filters(at_node, pile.autocorrelation[number]) for at_node in made])
        correction.filters[number] = filters
        correction.maps[number] = _fit_maps(residual, filters, weights, pile.covariance[number])
    return correction


def _node_weights(tiles: Tensor, nodes: Tensor) -> Tensor:
    """Weight of each pixel at each node, 0 off flat areas: ``(N, K, H, W)`` float64."""
    flat = torch.stack([flat_mask(tile) for tile in tiles])
    return node_weights(local_brightness(tiles.double()), nodes.double()) * flat[:, None]


def _fit_maps(residual: Tensor, filters: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
    """``(K, 3, 3)`` from the covariance at each node of the filtered ``residual`` ``(N, 3, H, W)`` to that wanted."""
    area = weights.sum((0, 2, 3))
    sums = []
    for node in range(len(filters)):
        after = filtered(residual, filters[node].expand(len(residual), 1, *filters.shape[1:]))[:, :, 0]
        values = after.transpose(0, 1).flatten(1)
        sums.append((values * weights[:, node].flatten()) @ values.T)
    made = _filled(torch.stack(sums) / area.clamp(min=1)[:, None, None], area)
    wanted = wanted - torch.eye(3, dtype=wanted.dtype) * _ROUNDING
    maps = covariance_map(_floored(made), _floored(wanted))
    values, vectors = torch.linalg.eigh(maps)
    mean = values.log().mean(-1, keepdim=True).exp()
    values = torch.minimum(torch.maximum(values, mean / WIDEST), mean * WIDEST)
    bounded: Tensor = (vectors * values[:, None, :]) @ vectors.mT
    return bounded


def _floored(covariance: Tensor) -> Tensor:
    """With no direction of less than a thousandth of the mean variance, and none below a hundredth of rounding's."""
    values, vectors = torch.linalg.eigh(covariance)
    least = (values.mean(-1, keepdim=True) * 1e-3).clamp(min=_ROUNDING / 100)
    floored: Tensor = (vectors * torch.maximum(values, least)[..., None, :]) @ vectors.mT
    return floored


def _filled(values: Tensor, area: Tensor) -> Tensor:
    """``(K, ...)``, each node without pixels as the nearest that has some."""
    known = [k for k, pixels in enumerate(area.tolist()) if pixels > 0]
    if not known:
        return values
    return values[[min(known, key=lambda k: abs(k - wanted)) for wanted in range(len(values))]]


def _autocorrelations(residual: Tensor, weights: Tensor) -> Tensor:
    """Of each channel at each node, which leans on all of them: ``(K, 3, T, T)`` with T what the filters reach."""
    lags = 3 * (SIDE // 2)
    everywhere = _autocorrelation(residual, weights.sum(1), lags)
    area = weights.sum((0, 2, 3))
    own = (area / (area + PRIOR_PIXELS)).view(-1, 1, 1, 1)
    at_nodes = [
        _autocorrelation(residual, weights[:, k], lags) if pixels > 0 else everywhere
        for k, pixels in enumerate(area.tolist())
    ]
    found: Tensor = own * torch.stack(at_nodes) + (1 - own) * everywhere
    return found


def _autocorrelation(residual: Tensor, flat: Tensor, lags: int) -> Tensor:
    """Of each channel over flat areas ``(N, H, W)``: ``(3, 2 lags + 1, 2 lags + 1)``, 1 in the middle."""
    masked = residual * flat[:, None]
    shape = [side + lags for side in residual.shape[2:]]  # so far apart no pair comes about by wrapping around

    def products(x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, s=shape).abs().square().sum(0)
        sums: Tensor = torch.fft.irfft2(spectrum, s=shape)
        return sums

    sums, pairs = products(masked), products(flat[:, None])
    near = torch.arange(-lags, lags + 1)
    found: Tensor = (sums / pairs.clamp(min=1))[:, near[:, None], near[None]]
    middle = found[:, lags : lags + 1, lags : lags + 1]
    correlation: Tensor = found / middle
    return correlation


def _fit_filters(made: Tensor, wanted: Tensor) -> Tensor:
    """Symmetric filters ``(3, S, S)`` that turn one autocorrelation into another, near the filter that does nothing.

    Args:
        made: ``(3, T, T)``, T at least ``3 S - 2``.
        wanted: ``(3, S, S)``.
    """
    half = SIDE // 2
    quadrant = torch.zeros(3, half + 1, half + 1, dtype=made.dtype)
    quadrant[:, 0, 0] = 1
    quadrant.requires_grad_(True)
    places = torch.arange(-half, half + 1).abs()
    middle, reach = made.shape[-1] // 2, 3 * half
    source = made[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    start = quadrant.detach().clone()
    optimizer = torch.optim.LBFGS([quadrant], max_iter=200, line_search_fn="strong_wolfe")

    def filters() -> Tensor:
        return quadrant[:, places[:, None], places[None]]

    def loss() -> Tensor:
        optimizer.zero_grad()
        g = filters()
        pairs = F.conv2d(F.pad(g, (2 * half,) * 4)[None], g[:, None], groups=3)[0]  # g with itself, (3, 2 S - 1, ...)
        out = F.conv2d(source[None], pairs[:, None], groups=3)[0]  # (3, S, S)
        out = out / out[:, half : half + 1, half : half + 1]
        value = (out - wanted).square().sum() + 1e-3 * (quadrant - start).square().sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return filters().detach()

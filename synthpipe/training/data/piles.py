"""How two unpaired piles of images differ beside the degradation, and what a training does about it.

Unpaired learning takes whatever one pile has and the other lacks for degradation.  Measured here: whether the clean
pile is sharper, which brightnesses it lacks, whether the noisy pile's JPEG blocks lie on a grid, whether its noise has
a direction, and how many levels of noise it holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.errors import ShapeError, counted
from synthpipe.flat_noise import LAGS, estimate_noise, measure_flat_noise
from synthpipe.flat_noise.measure import flat_power
from synthpipe.flat_noise.spectrum import SIDE, dct_matrix, radius
from synthpipe.images import to_float, to_uint8
from synthpipe.training.data.block_grid import block_grid

__all__ = ["Piles", "measure_piles"]

#: Factors by which the clean pile is tried, and below which ratio to 1 the piles are alike.
_FACTORS = (0.5, 0.6, 0.7, 0.85, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5, 3.0)
_ALIKE = 1.15
#: Crops of a pile that are resized, and their side.
_RESIZED, _RESIZED_SIDE = 16, 192
#: Cycles per pixel between which sharpness shows, in so many rings; structure must exceed this share of the noise.
_FROM, _TO, _RINGS = 0.08, 0.4, 8
_LEAST_SIGNAL = 1.0
#: By how much another factor than 1 must fit better, in variance of the natural logarithm of power.
_BETTER = 0.04
#: Share of the blocks, those of the strongest structure, that sharpness is seen in.
_STRONG = 0.2
_BRIGHTNESS_BINS = 16
#: A brightness is covered where the clean pile has this share of the noisy pile's.
_COVERED = 0.1
#: Groups of crops whose noise is measured apart, for the error of their mean; what direction must exceed.
_GROUPS = 6
_ERRORS, _LEAST_DIRECTION = 2.5, 0.02
#: Levels of one setting differ by this, as a logarithm, beside what each is expected to be off by; the least that is
#: told, of 255.  Images that stand alone make levels of their own from one in so many on; fewer of them are outliers.
_SAME_LEVEL, _LEAST_LEVEL, _FEW = 0.15, 0.25, 4
#: Pixels of flat area of an image that tell its level as it is measured for a training; fewer may hold texture alone.
_MUCH_FLAT = 50_000


@dataclass(frozen=True)
class Piles:
    """What was found; see :meth:`words`."""

    #: Factor by which the clean pile, enlarged, is as soft as the noisy one; below 1 the noisy pile is sharper.
    softness: float
    #: What ``resize_range: auto`` is for the clean pile.
    resize_range: tuple[float, float] | None
    #: Share of the noisy pile's brightness that the clean pile has, too.
    coverage: float
    #: Side of the noisy pile's JPEG blocks in pixels, 8 or 16 (with reduced chroma); None where there are none.
    grid: int | None
    #: Row and column at which blocks begin, counted from the images' corners.
    grid_phase: tuple[int, int] | None
    #: Lag-1 correlation of the noise, horizontal and vertical, and the error of their difference; None: no flat area.
    lag1: tuple[float, float, float] | None
    #: Level of each noisy image that was looked at, sigma on the [0, 1] scale, ascending; and the fewest that explain
    #: them within what each is uncertain by.
    levels: tuple[float, ...]
    distinct_levels: int

    @property
    def directed(self) -> bool:
        """Whether the noise differs between rows and columns by more than the error."""
        if self.lag1 is None:
            return True
        across, down, error = self.lag1
        return abs(across - down) > max(_ERRORS * error, _LEAST_DIRECTION)

    @property
    def augment(self) -> Literal["flips", "dihedral"]:
        """What ``augment: auto`` is."""
        return "flips" if self.directed else "dihedral"

    @property
    def align(self) -> int:
        """What ``align: auto`` is: pixels of which the corners of crops are multiples."""
        return self.grid if self.grid is not None and self.grid_phase == (0, 0) else 1

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and ``None``: what JSON can hold; what follows from them included."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return plain | {"directed": self.directed, "augment": self.augment, "align": self.align}

    def words(self) -> list[str]:
        """What was found and what follows, a line each."""
        return [
            self._of_sharpness(),
            self._of_brightness(),
            self._of_grid(),
            f"direction: {self.direction_words()}",
            f"levels: {self.level_words()}",
        ]

    def _of_sharpness(self) -> str:
        if self.resize_range is None:
            return f"sharpness: the piles are alike (clean resized by {self.softness:.2f}): no resize_range"
        sharper, verb = ("clean", "enlarged") if self.softness > 1 else ("noisy", "reduced")
        return (
            f"sharpness: the {sharper} pile is sharper; clean images {verb} by {self.softness:.2f} are like the noisy "
            f"ones: resize_range {list(self.resize_range)}"
        )

    def _of_brightness(self) -> str:
        more = "" if self.coverage > 0.95 else ": noise at the others is not learned; add such clean images"
        return f"brightness: the clean pile has {self.coverage:.0%} of the noisy pile's brightnesses{more}"

    def _of_grid(self) -> str:
        if self.grid is None:
            return "blocks: no JPEG grid in the noisy pile: crops anywhere"
        if self.align == 1:
            return f"blocks: a JPEG grid that begins at {self.grid_phase}, not at the images' corners: crops anywhere"
        return f"blocks: a JPEG grid of {self.grid} pixels: crops begin at multiples of {self.align}"

    def direction_words(self) -> str:
        """Correlation of the noise along rows and columns, and what follows for crops."""
        if self.lag1 is None:
            return "no flat area to measure noise in: crops are mirrored, not transposed"
        across, down, error = self.lag1
        found = f"lag-1 correlation {across:.2f} along rows, {down:.2f} along columns (error {error:.3f})"
        return found + (": crops are mirrored, not transposed" if self.directed else ": crops may be transposed")

    def level_words(self) -> str:
        """Range of the noise levels."""
        if not self.levels:
            return "no noise can be measured"
        low, high = 255 * self.levels[0], 255 * self.levels[-1]
        found = f"sigma {low:.1f} to {high:.1f} of 255 in {counted(len(self.levels), 'image')}"
        return f"{found}, " + (f"{self.distinct_levels} different" if self.distinct_levels > 1 else "as of one level")


@torch.no_grad()
def measure_piles(
    clean: Sequence[Tensor], noisy: Sequence[Tensor], noisy_images: Iterable[Tensor] | None = None
) -> Piles:
    """Compare two piles.

    Args:
        clean: crops ``(3, H, W)`` uint8, of 64 pixels at least, that begin at multiples of 16 pixels of their images.
        noisy: the same of the other pile.
        noisy_images: images ``(3, H, W)`` uint8 whose levels are told, one by one; those of crops differ by what is in
            them.  By default the noisy crops.

    Raises:
        ShapeError: no crops, or too small ones.
    """
    for name, crops in (("clean", clean), ("noisy", noisy)):
        if not crops or any(crop.ndim != 3 or min(crop.shape[1:]) < 64 for crop in crops):
            shapes = sorted({tuple(crop.shape) for crop in crops})
            raise ShapeError(
                f"measure_piles: expected {name} crops (3, H, W) of at least 64x64 pixels, got {shapes[:3]}"
            )
    softness = _softness(clean, noisy)
    grid = block_grid(noisy)
    told = [level for level in map(_level_of, noisy if noisy_images is None else noisy_images) if level is not None]
    return Piles(
        softness=softness,
        resize_range=_range(softness),
        coverage=_coverage(clean, noisy),
        grid=None if grid is None else grid.side,
        grid_phase=None if grid is None else grid.phase,
        lag1=_direction(noisy),
        levels=tuple(sorted(level for level, _ in told)),
        distinct_levels=_distinct(told),
    )


def _range(softness: float) -> tuple[float, float] | None:
    if 1 / _ALIKE < softness < _ALIKE:
        return None
    # Of factors drawn log-uniformly the middle is the one that was found.
    other_end = min(4.0, max(0.25, round(softness**2, 2)))
    return min(1.0, other_end), max(1.0, other_end)


def _softness(clean: Sequence[Tensor], noisy: Sequence[Tensor]) -> float:
    """The factor whose resizing of ``clean`` gives structure that falls with frequency as that of ``noisy``."""
    power, scale = _structure(noisy)
    try:
        noise_by_node, counts = flat_power(noisy)
        noise = scale * torch.einsum("k,kabf->f", counts, noise_by_node) / 9 / counts.sum()
    except ShapeError:
        noise = torch.zeros_like(power)
    structure, noise = _rings(power - noise), _rings(noise)
    seen = structure > _LEAST_SIGNAL * noise
    if int(seen.sum()) < _RINGS // 2:
        return 1.0
    wanted = structure[seen].log()
    chosen = [_middle(crop, _RESIZED_SIDE) for crop in clean[:_RESIZED]]

    def excess(factor: float) -> Tensor:
        """Of the noisy pile's structure over the resized clean one's, a logarithm for each ring that is seen."""
        got = _rings(_structure([_resized(crop, factor) for crop in chosen])[0])[seen]
        return wanted - got.clamp(min=1e-12).log()

    as_they_are = excess(1.0)
    rings = torch.arange(len(wanted), dtype=wanted.dtype)
    # No factor fits images that are far softer: then one that enlarges them would fit as well as any.
    softer = float(((rings - rings.mean()) * as_they_are).sum()) > 0
    misfits = {1.0: float(as_they_are.var())}
    misfits |= {factor: float(excess(factor).var()) for factor in _FACTORS if (factor < 1) == softer and factor != 1}
    best = min(misfits, key=misfits.__getitem__)
    # Reducing changes little in photographs that are sharp already, so that the best factor alone would be chance.
    return best if misfits[1.0] - misfits[best] >= _BETTER else 1.0


def _structure(crops: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Mean squares of the grey value's 16x16 DCT coefficients, ``(F,)`` float64, over blocks of strong structure.

    Each counts in units of its own low frequencies, which choose it: so all have a say, and few sharp edges not all of
    it.  Also the mean of one over these units, by which the power of noise in them is multiplied.
    """
    waves = dct_matrix()
    squares = []
    for crop in crops:
        grey = to_float(crop).mean(0).double()
        blocks = grey.unfold(0, SIDE, SIDE).unfold(1, SIDE, SIDE).reshape(-1, SIDE, SIDE)
        squares.append((waves @ blocks @ waves.T).square().flatten(1))
    power = torch.cat(squares)
    frequency = radius() / (2 * SIDE)
    unit = power[:, (frequency > 0) & (frequency < _FROM)].mean(1)
    strong = unit.topk(max(1, round(_STRONG * len(unit)))).indices
    inverse = 1 / unit[strong].clamp(min=1e-9)
    return (inverse[:, None] * power[strong]).mean(0), float(inverse.mean())


def _rings(power: Tensor) -> Tensor:
    """Means over rings of frequency, ``(F,)`` -> ``(rings,)``."""
    frequency = radius() / (2 * SIDE)
    edges = torch.logspace(math.log10(_FROM), math.log10(_TO), _RINGS + 1)
    return torch.stack([power[(frequency >= a) & (frequency < b)].mean() for a, b in pairwise(edges)])


def _resized(crop: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return crop
    size = [max(SIDE, round(side * factor)) for side in crop.shape[1:]]
    return to_uint8(F.interpolate(to_float(crop[None]), size=size, mode="bicubic", antialias=True).clamp(0, 1))[0]


def _middle(crop: Tensor, side: int) -> Tensor:
    top, left = (max(0, (n - side) // 2) for n in crop.shape[1:])
    return crop[:, top : top + side, left : left + side]


def _coverage(clean: Sequence[Tensor], noisy: Sequence[Tensor]) -> float:
    ours, theirs = _brightness(clean), _brightness(noisy)
    return float(theirs[ours >= _COVERED * theirs].sum())


def _brightness(crops: Sequence[Tensor]) -> Tensor:
    """Shares of 8x8 means in equal bins."""
    means = torch.cat([F.avg_pool2d(to_float(crop).mean(0)[None], 8).flatten() for crop in crops])
    counts = torch.histc(means, _BRIGHTNESS_BINS, 0, 1).double()
    return counts / counts.sum()


def _direction(noisy: Sequence[Tensor]) -> tuple[float, float, float] | None:
    """Horizontal and vertical lag-1, and the standard error of their difference."""
    found = []
    for group in range(min(_GROUPS, len(noisy))):
        try:
            mean = measure_flat_noise(noisy[group::_GROUPS]).autocorrelation.mean(0)
        except ShapeError:
            continue
        found.append(torch.stack([mean[LAGS, LAGS + 1], mean[LAGS + 1, LAGS]]))
    if len(found) < 2:
        return None
    lags = torch.stack(found)
    across, down = lags.mean(0).tolist()
    return across, down, float((lags[:, 0] - lags[:, 1]).std()) / math.sqrt(len(found))


def _level_of(image: Tensor) -> tuple[float, float] | None:
    """Sigma of ``(3, H, W)`` on the [0, 1] scale, and by how much its logarithm may be off; None: nothing to measure.

    Frames of cameras have flat areas, which tell it best.  Small and textured pictures have none to speak of.
    """
    if image[0].numel() >= _MUCH_FLAT:
        try:
            flat = measure_flat_noise([image])
        except ShapeError:  # none at all
            pass
        else:
            if flat.pixels >= _MUCH_FLAT:
                return flat.level, 0.0
    found = estimate_noise(image)
    return None if found is None else (found.level, found.error)


def _distinct(told: Sequence[tuple[float, float]]) -> int:
    """The fewest levels of which each image has one within its uncertainty; 0 without images."""
    middles = [math.log(max(255 * level, _LEAST_LEVEL)) for level, _ in told]
    reaches = [_SAME_LEVEL + error for _, error in told]
    sizes: list[int] = []
    last = -math.inf
    for high, low in sorted((m + r, m - r) for m, r in zip(middles, reaches, strict=True)):
        if low > last:
            sizes.append(0)
            last = high
        sizes[-1] += 1
    alone = sizes.count(1)
    return len(sizes) if _FEW * alone >= len(told) else len(sizes) - alone

"""Blur by kernels of many kinds, and by medians."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from synthpipe.array_file import read_npy
from synthpipe.config.stages.blur import BlurKinds, BlurStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering.convolve import filter_canvas, filter_image, filter_lines
from synthpipe.transforms.chains.filtering.kernels import (
    IN_PLACE,
    box_kernels,
    gaussian_line,
    gaussian_shape,
    generalized_shape,
    lens_kernels,
    lens_side,
    motion_kernels,
    motion_side,
    off_centre,
    plateau_shape,
    sinc_kernels,
    squared_distances,
    unit_sum,
    within,
)
from synthpipe.transforms.chains.filtering.median import median_filter
from synthpipe.transforms.chains.filtering.reach import check_reach
from synthpipe.transforms.chains.laws import between, pick, whole_between
from synthpipe.transforms.chains.stage import Context, Extent, Params, Size, Stage

__all__ = ["KINDS", "Blur", "read_bank"]

#: What ``kind`` counts from 0.
KINDS = tuple(BlurKinds.model_fields)
_GAUSSIAN, _GENERALIZED, _PLATEAU = (0, 1), (2, 3), (4, 5)
_SINC, _LENS, _MOTION, _BOX, _MEDIAN, _BANK = range(6, 12)

#: By setting, the kinds that it shapes; of ``angle`` also the lens, where it has blades.
_SMOOTH = (*_GAUSSIAN, *_GENERALIZED, *_PLATEAU)
_SHAPES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("sigma_x", "sigma_y"), _SMOOTH),
    "angle": (*(kind for kind in _SMOOTH if kind % 2 == 1), _LENS, _MOTION),
    "beta": (*_GENERALIZED, *_PLATEAU),
    "cutoff": (_SINC,),
    "radius": (_LENS,),
    **dict.fromkeys(("length", "shake", "bends"), (_MOTION,)),
    "index": (_BANK,),
}

#: Real-ESRGAN's cutoffs of sinc kernels, by their size.
_CUTOFF_SMALL, _CUTOFF_LARGE, _LARGE_FROM = (math.pi / 3, math.pi), (math.pi / 5, math.pi), 13
_LARGEST_IN_BANK = 101


class Blur(Stage):
    """Each sample with a kernel, or a median, of its own.

    Draws, all ``(B,)``, 0 where the drawn kind does not use it:

    ========================  ==================================================================================
    ``kind``                  its number in :data:`KINDS`
    ``size``                  side of the kernel or window in pixels, odd
    ``sigma_x``, ``sigma_y``  pixels, along ``angle`` and across; alike for round kinds
    ``angle``                 degrees; 0 for round kinds
    ``beta``                  exponent of the generalized and plateau kinds; 1 for the Gaussian ones
    ``cutoff``                radians for each pixel, of sinc
    ``radius``                pixels, of lens
    ``length``, ``shake``     pixels and degrees, of motion; ``bends`` ``(B, 4)`` is the course of its turns
    ``index``                 of the kernel in the bank
    ========================  ==================================================================================

    The first seven are always there, the others where a kind that uses them has a weight above 0.

    Args:
        options: weights and ranges.
        bank: ``(N, side, side)`` float64, from :func:`read_bank`; None: no bank.
    """

    numbers = 17
    words: ClassVar = {"kind": KINDS}

    bank: Tensor | None

    def __init__(self, options: BlurStageOptions, bank: Tensor | None = None) -> None:
        super().__init__()
        self.options = options
        self._weights = list(options.kinds.weights().values())
        self._possible = [kind for kind, weight in enumerate(self._weights) if weight > 0]
        self.register_buffer("bank", bank, persistent=False)
        self._side = max(self._largest(kind) for kind in self._possible)
        self.aligned = bank is None or _BANK not in self._possible or off_centre(bank) <= IN_PLACE

    def draw(self, u: Tensor) -> Params:
        """As the class says."""
        options, kind = self.options, pick(self._weights, u[:, 0])
        smooth = kind <= _PLATEAU[1]
        uneven = smooth & (kind % 2 == 1)
        sigma_x = self._sigma(options.sigma, u[:, 2])
        sigma_y = torch.where(uneven, self._sigma(options.sigma_y or options.sigma, u[:, 3]), sigma_x)
        size = _odd_between(options.size, u[:, 1])
        turned = uneven | (kind == _MOTION) | ((kind == _LENS) & (options.blades is not None))
        drawn = {
            "kind": kind,
            "size": torch.where((kind == _BOX) | (kind == _MEDIAN), _odd_between(options.window, u[:, 15]), size),
            "sigma_x": torch.where(smooth, sigma_x, 0),
            "sigma_y": torch.where(smooth, sigma_y, 0),
            "angle": torch.where(turned, between(options.angle, u[:, 4]), 0),
            "beta": self._beta(kind, u[:, 5], u[:, 6]),
            "cutoff": torch.where(kind == _SINC, self._cutoff(size, u[:, 7]), 0),
        }
        if _LENS in self._possible:
            radius = between(options.radius, u[:, 8])
            drawn["radius"] = torch.where(kind == _LENS, radius, 0)
            drawn["size"] = torch.where(kind == _LENS, lens_side(radius, options.blades), drawn["size"])
        if _MOTION in self._possible:
            length = between(options.length, u[:, 9])
            drawn["length"] = torch.where(kind == _MOTION, length, 0)
            drawn["shake"] = torch.where(kind == _MOTION, between(options.shake, u[:, 10]), 0)
            drawn["bends"] = torch.where((kind == _MOTION)[:, None], 2 * u[:, 11:15] - 1, 0)
            drawn["size"] = torch.where(kind == _MOTION, motion_side(length), drawn["size"])
        if self.bank is not None:
            drawn["index"] = torch.where(kind == _BANK, whole_between((0, len(self.bank) - 1), u[:, 16]), 0)
            drawn["size"] = torch.where(kind == _BANK, self.bank.shape[-1], drawn["size"])
        return drawn

    def unused(self, drawn: Mapping[str, Any]) -> Collection[str]:
        """What other kinds have."""
        kind = KINDS.index(drawn["kind"])
        round_lens = {"angle"} if kind == _LENS and self.options.blades is None else set()
        return {name for name, kinds in _SHAPES.items() if kind not in kinds} | round_lens

    def on_canvas(self, canvas: Canvas, params: Params, context: Context) -> Canvas:
        """Kernels of all kinds and medians of all windows, each where it was drawn."""
        kind = params["kind"]
        result = canvas
        kernels = [other for other in self._possible if other != _MEDIAN]
        if kernels:
            chosen = self.kernels(kernels[0], params, self._side)
            for other in kernels[1:]:
                chosen = torch.where((kind == other)[:, None, None], self.kernels(other, params, self._side), chosen)
            result = filter_canvas(canvas, chosen, self.options.border)
        if _MEDIAN in self._possible:
            for window in range(self.options.window[0], self.options.window[1] + 1, 2):
                half = window // 2
                made = median_filter(canvas.extended(half, half, half, half, self.options.border), window)
                result = canvas.holding(made).where((kind == _MEDIAN) & (params["size"] == window), result)
        return result

    def on_image(self, x: Tensor, params: Params, context: Context) -> Tensor:
        """The one kind that was drawn."""
        kind, size, border = int(params["kind"]), int(params["size"]), self.options.border
        if kind == _MEDIAN:
            half = size // 2
            return median_filter(Canvas(x).extended(half, half, half, half, border), size)
        if kind == _BOX:
            return filter_lines(x, torch.full((size,), 1 / size, dtype=torch.float64), border)
        if kind == _GAUSSIAN[0]:
            return filter_lines(x, gaussian_line(size, float(params["sigma_x"])), border)
        return filter_image(x, self.kernels(kind, params, size)[0], border)

    def kernels(self, kind: int, params: Params, side: int) -> Tensor:
        """``(B, side, side)`` float64, with the sum 1: as if all samples had drawn this kind.

        Args:
            kind: any but the median, of a weight above 0.
            params: from :meth:`draw`.
            side: at least every ``size`` of those that drew the kind; odd.
        """
        size, angle = params["size"], torch.deg2rad(params["angle"])
        if kind == _SINC:
            return sinc_kernels(side, size, params["cutoff"])
        if kind == _LENS:
            return lens_kernels(side, params["radius"], self.options.blades, angle)
        if kind == _MOTION:
            points = max(8, 4 * math.ceil(self.options.length[1]))
            shake = torch.deg2rad(params["shake"])
            return motion_kernels(side, params["length"], angle, shake, params["bends"], points)
        if kind == _BOX:
            return box_kernels(side, size)
        if kind == _BANK:
            return self._from_bank(params["index"], side)
        distances = squared_distances(side, params["sigma_x"], params["sigma_y"], angle)
        if kind in _GAUSSIAN:
            shape = gaussian_shape(distances)
        else:
            shape = (generalized_shape if kind in _GENERALIZED else plateau_shape)(distances, params["beta"])
        return unit_sum(within(shape, size))

    def extent(self, before: Extent, lr: Size) -> Extent:
        """The same.

        Raises:
            OptionError: images so small that the kernel covers them several times over.
        """
        check_reach("blur", self._side, "size, radius, length, window", before)
        return before

    def _largest(self, kind: int) -> int:
        """Side of the largest kernel or window of a kind."""
        options = self.options
        if kind == _LENS:
            return int(lens_side(torch.tensor(options.radius[1], dtype=torch.float64), options.blades))
        if kind == _MOTION:
            return int(motion_side(torch.tensor(options.length[1], dtype=torch.float64)))
        if kind == _BANK and self.bank is not None:
            return self.bank.shape[-1]
        return options.window[1] if kind in (_BOX, _MEDIAN) else options.size[1]

    def _sigma(self, limits: tuple[float, float], u: Tensor) -> Tensor:
        if self.options.sigma_law == "uniform":
            return between(limits, u)
        return between((limits[0] ** 2, limits[1] ** 2), u).sqrt()

    def _beta(self, kind: Tensor, half: Tensor, u: Tensor) -> Tensor:
        generalized, plateau = (
            _about_one(limits, half, u) for limits in (self.options.beta_generalized, self.options.beta_plateau)
        )
        beta = torch.where(kind < _GENERALIZED[0], 1, torch.where(kind < _PLATEAU[0], generalized, plateau))
        return torch.where(kind <= _PLATEAU[1], beta, 0)

    def _cutoff(self, size: Tensor, u: Tensor) -> Tensor:
        if self.options.cutoff is not None:
            return between(self.options.cutoff, u)
        return torch.where(size < _LARGE_FROM, between(_CUTOFF_SMALL, u), between(_CUTOFF_LARGE, u))

    def _from_bank(self, index: Tensor, side: int) -> Tensor:
        if self.bank is None:
            raise OptionError("blur: kinds.bank has a weight, but no kernels were given; name their file under bank")
        kernels = self.bank.index_select(0, index.to(self.bank.device))
        rim = (side - kernels.shape[-1]) // 2
        return torch.nn.functional.pad(kernels, (rim, rim, rim, rim))


def read_bank(path: str | Path) -> Tensor:
    """Kernels ``(N, side, side)`` float64 in a ``.npy`` file, each scaled to the sum 1.

    Raises:
        OptionError: no such file, another format, another shape, or a kernel whose sum is not above 0.
    """
    try:
        array = read_npy(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"blur: bank {path}: expected a .npy file of kernels: {error}") from error
    if array.ndim != 3 or array.shape[1] != array.shape[2] or array.shape[1] % 2 == 0 or len(array) == 0:
        raise OptionError(f"blur: bank {path}: expected (number, side, side) with an odd side, got {array.shape}")
    if array.dtype.kind not in "fiu" or array.shape[1] > _LARGEST_IN_BANK:
        raise OptionError(
            f"blur: bank {path}: expected numbers, and sides of up to {_LARGEST_IN_BANK}, got {array.dtype} and "
            f"{array.shape[1]}"
        )
    kernels = torch.from_numpy(array.astype(np.float64))
    sums = kernels.sum((1, 2))
    bad = [number for number, total in enumerate(sums.tolist()) if not 0 < total < math.inf]
    if bad:
        raise OptionError(f"blur: bank {path}: kernels must have a sum above 0; number {bad[0]} has {sums[bad[0]]:g}")
    return unit_sum(kernels)


def _odd_between(limits: tuple[int, int], u: Tensor) -> Tensor:
    """Odd numbers, all alike."""
    return whole_between((limits[0] // 2, limits[1] // 2), u) * 2 + 1


def _about_one(limits: tuple[float, float], half: Tensor, u: Tensor) -> Tensor:
    """Half of them uniform below 1 and half above, where 1 lies between the limits; else uniform."""
    low, high = limits
    if not low <= 1 <= high:
        return between(limits, u)
    return torch.where(half < 0.5, between((low, 1.0), u), between((1.0, high), u))

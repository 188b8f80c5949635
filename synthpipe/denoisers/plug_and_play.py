"""Restoration of degraded images with any denoiser as the prior ("plug and play").

All methods look for ``argmin_x ||K x - y||^2 / (2 sigma^2) - log p(x)`` and meet p through ``denoise(x, level)`` alone:

* :class:`Splitting` alternates the operator's data step with denoising: ADMM at one level, which with a MAP denoiser
  is the method of Bigdeli et al. (VISAPP 2020); or along a falling schedule of levels, which with half-quadratic
  splitting is DPIR (Zhang et al., TPAMI 2021).
* :class:`MeanShift` descends along the denoiser's residual: DMSP (Bigdeli et al., NeurIPS 2017).

Values are on the [0, 1] scale.  A method is a generator of estimates; :func:`restore` drives it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.degradation_operators import DegradationOperator
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.errors import DivergenceError, OptionError, ShapeError
from synthpipe.images import check_values

__all__ = ["METHODS", "MeanShift", "Method", "Problem", "Restoration", "Splitting", "method_named", "psnr", "restore"]

#: Noisy images ``(B, C, H, W)`` and the level of their noise ``(B,)`` -> clean images.
Denoise = Callable[[Tensor, Tensor], Tensor]

#: Observations are never trusted more than this, which is below the rounding of 8 bits: the data step needs a weight.
_LEAST_SIGMA = 0.255 / 255
#: Where the penalty of a schedule is stated.
_USUAL_SIGMA = 2.55 / 255


@dataclass(frozen=True)
class Problem:
    """What was observed, and how.

    Args:
        operator: K.
        y: ``(B, C, h, w)``, of 1 or 3 channels.
        sigma: standard deviation of the noise on ``y``, ``(B,)`` or for all; None: estimated from ``y``.

    Raises:
        ShapeError: no such images or levels, images of another scale than [0, 1], or a noise that must be known: that
            of images with missing pixels.
    """

    operator: DegradationOperator
    y: Tensor
    sigma: Tensor | float | None = None
    #: ``(B,)``, the noise as it is reckoned with.
    level: Tensor = field(init=False)

    def __post_init__(self) -> None:
        y, sigma = self.y, self.sigma
        if y.ndim != 4 or not y.is_floating_point() or not bool(torch.isfinite(y).all()):
            raise ShapeError(f"Problem: expected finite floating-point (B, C, h, w), got {y.dtype} {tuple(y.shape)}")
        check_values(y, "Problem")
        if sigma is None:
            if bool((self.operator.measurements(y) < y[0].numel()).any()):
                raise ShapeError("Problem: the noise of images with missing pixels is not estimated; give sigma")
            sigma = estimate_sigma(y)
        level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
        if level.ndim > 1 or (level.ndim == 1 and len(level) != len(y)) or not bool((level >= 0).all()):
            raise ShapeError(
                f"Problem: expected one noise level of at least 0, or one for each of {len(y)} images, got {sigma}"
            )
        object.__setattr__(self, "level", level.expand(len(y)).clamp(min=_LEAST_SIGMA))


class Method(ABC):
    """A way to restore."""

    iterations: int

    @abstractmethod
    def estimates(self, problem: Problem, denoise: Denoise, start: Tensor) -> Iterator[Tensor]:
        """The estimate ``(B, C, H, W)`` after each iteration, from ``start``."""


@dataclass(frozen=True)
class Splitting(Method):
    """Data step and denoising in turn, for ``||K x - y||^2 / (2 sigma^2) + rho / 2 ||x - z||^2``.

    The order is the paper's: data step, dual variable, denoising.  The dual variable is kept scaled, follows rho, and
    starts once there is a denoised image: it would carry the error of the start through a short schedule.

    Args:
        iterations: of both steps.
        first: level at which the first iteration denoises, in [0, 1] units.
        last: of the last iteration, with logarithmic spacing between; None: the noise of the observation, but not
            under ``floor``.
        penalty: rho is this over the level squared.  A MAP denoiser of a level is the proximal map for 1; the paper
            takes 0.83 and 1.5, "a small perturbation helps convergence", DPIR 0.23.
        dual: ADMM; without, half-quadratic splitting.
        floor: lowest level when ``last`` is None.
        noise_exponent: the penalty is for observations with noise of 2.55/255, the field's usual test, and for others
            falls with this power of the noise: a schedule tuned there ties noisy observations too closely.

    Raises:
        OptionError: settings that make no method.
    """

    iterations: int = 8
    first: float = 49 / 255
    last: float | None = None
    penalty: float = 0.23
    dual: bool = False
    floor: float = 2.55 / 255
    noise_exponent: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not min(self.first, self.penalty, self.floor, self.last or 1) > 0:
            raise OptionError(f"{self}: expected at least one iteration, and positive levels and penalty")

    def levels(self, sigma: Tensor) -> Tensor:
        """``(iterations, B)`` for observations with noise of ``sigma`` ``(B,)``."""
        last = sigma.clamp(min=self.floor) if self.last is None else torch.full_like(sigma, self.last)
        # Noise beyond the first level leaves nothing to descend.
        first = last.clamp(min=self.first) if self.last is None else torch.full_like(sigma, self.first)
        place = torch.linspace(0, 1, self.iterations, dtype=sigma.dtype, device=sigma.device)[:, None]
        return (first.log() + place * (last.log() - first.log())).exp()

    def penalty_at(self, sigma: Tensor) -> Tensor:
        """``(B,)``, rho times the level squared for observations with noise of ``sigma`` ``(B,)``."""
        return self.penalty * (_USUAL_SIGMA / sigma) ** self.noise_exponent

    def estimates(self, problem: Problem, denoise: Denoise, start: Tensor) -> Iterator[Tensor]:
        """See :class:`Method`: ``iterations`` denoised images ``(B, C, H, W)``, not clipped."""
        z, dual = start, torch.zeros_like(start)
        before: Tensor | None = None
        penalty = self.penalty_at(problem.level)
        for level in self.levels(problem.level):
            rho = penalty / level.square()
            if before is not None:
                dual = dual * (before / rho)[:, None, None, None]
            x = problem.operator.data_step(z - dual, problem.y, problem.level.square() * rho)
            if self.dual and before is not None:
                dual = dual + x - z
            z = denoise(x + dual, level)
            before = rho
            yield z


@dataclass(frozen=True)
class MeanShift(Method):
    """Gradient descent with momentum on the data term and a smoothed log density: DMSP.

    ``step <- momentum * step - rate * gradient``, with
    ``gradient = w K^T (K x - y) + (1 - w) (x - denoise(x + n, level))``, fresh noise n of the level,
    and ``w = sigma^-2 / (sigma^-2 + level^-2)``; estimates are clipped to [0, 1].

    Args:
        iterations: gradient steps.
        level: of the denoiser.
        rate, momentum: of the descent.
        blind: whether sigma is measured anew at each step, as the root mean square of ``K (x + n) - y``.  The residual
            of x alone would fall to 0 with estimates that fit the noise.
        seed: of the noise; images of a batch meet the same, so that each is restored as it would be alone.

    Raises:
        OptionError: settings that make no method.
    """

    iterations: int = 300
    level: float = 11 / 255
    rate: float = 0.1
    momentum: float = 0.9
    blind: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not min(self.level, self.rate) > 0 or not 0 <= self.momentum < 1:
            raise OptionError(
                f"{self}: expected at least one iteration, a positive level and rate, and momentum in [0, 1)"
            )

    def estimates(self, problem: Problem, denoise: Denoise, start: Tensor) -> Iterator[Tensor]:
        """See :class:`Method`: ``iterations`` images ``(B, C, H, W)`` in [0, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        operator, y = problem.operator, problem.y
        count = operator.measurements(y)
        x, step = start, torch.zeros_like(start)
        level = torch.full_like(problem.level, self.level)
        for _ in range(self.iterations):
            noisy = x + self.level * torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).to(x)
            variance = problem.level.square()
            if self.blind:
                variance = (operator(noisy) - y).square().sum((1, 2, 3)) / count
            w = (self.level**2 / (self.level**2 + variance))[:, None, None, None]
            gradient = w * operator.adjoint(operator(x) - y) + (1 - w) * (x - denoise(noisy, level))
            step = self.momentum * step - self.rate * gradient
            x = (x + step).clamp(0, 1)
            yield x


#: The methods by name, as ``synthpipe restore --method`` takes them.
METHODS: dict[str, Method] = {
    "annealed": Splitting(iterations=6, first=35 / 255, penalty=0.5, dual=True, floor=5 / 255, noise_exponent=0.5),
    "map": Splitting(iterations=40, first=11 / 255, last=11 / 255, penalty=1.0, dual=True),
    "dpir": Splitting(),
    "dmsp": MeanShift(),
}


def method_named(name: str, **settings: Any) -> Method:
    """One of :data:`METHODS`, with some of its settings replaced; a setting of None stays as it is.

    Raises:
        OptionError: no such method, or a setting that it does not have.
    """
    if name not in METHODS:
        raise OptionError(f"method: expected one of {sorted(METHODS)}, got {name!r}")
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        return replace(METHODS[name], **given)  # type: ignore[type-var]
    except TypeError as error:
        raise OptionError(f"method {name!r}: {error}") from error


@dataclass(frozen=True)
class Restoration:
    """What came of it.

    Args:
        image: ``(B, C, H, W)``, the part under the observation, not clipped.
        iterations: how many were done.
        sigma: ``(B,)``, the noise that was reckoned with.
        change: root mean square change of each iteration in [0, 1] units, that of the image that changed most.
        psnr: ``(iterations, B)`` in dB where a reference was given.
    """

    image: Tensor
    iterations: int
    sigma: Tensor
    change: list[float]
    psnr: Tensor | None


@torch.no_grad()
def restore(
    problem: Problem,
    denoiser: Denoiser | Denoise,
    method: Method | str = "annealed",
    *,
    start: Tensor | None = None,
    reference: Tensor | None = None,
    border: int = 0,
    tolerance: float = 0.0,
    callback: Callable[[int, Tensor], object] | None = None,
) -> Restoration:
    """Restore the images of ``problem``; everything happens on their device, where the denoiser must be too.

    Args:
        problem: what was observed.
        denoiser: the prior: a :class:`Denoiser`, or any function of images ``(B, C, H, W)`` and levels ``(B,)``.
        method: a method, or the name of one with its default settings.
        start: ``(B, C, H, W)`` to begin with; None: the operator's first guess.
        reference: the true images, ``(B, C, H, W)``; gives ``psnr``.
        border: pixels on each side that ``psnr`` leaves out.
        tolerance: stop when no image changes by more than this, root mean square, in an iteration.
        callback: called with the number of iterations done and the estimate, cut as ``image`` is.

    Raises:
        OptionError: no such method.
        ShapeError: a start on another scale than [0, 1].
        DivergenceError: the iteration left the scale of images, or the finite numbers.

    >>> import torch
    >>> from synthpipe import checkpoints
    >>> from synthpipe.denoisers import Problem, restore
    >>> from synthpipe.denoisers.blur_operators import CircularBlur
    >>> operator = CircularBlur(torch.full((5, 5), 1 / 25))
    >>> y = operator(torch.rand(1, 3, 48, 64))
    >>> restore(Problem(operator, y, sigma=0.02), checkpoints.load("map_small")).image.shape
    torch.Size([1, 3, 48, 64])
    """
    method = method_named(method) if isinstance(method, str) else method
    if start is not None:
        check_values(start, "restore", "images to start from")
    height, width = problem.y.shape[2:]
    estimate = problem.operator.first_guess(problem.y) if start is None else start
    change: list[float] = []
    quality: list[Tensor] = []
    denoise = _told_apart(denoiser.denoise if isinstance(denoiser, Denoiser) else denoiser, method, change)
    for new in method.estimates(problem, denoise, estimate):
        moved = float((new - estimate).square().mean((1, 2, 3)).sqrt().max())
        if not math.isfinite(moved):
            raise _ran_away(method, len(change) + 1)
        change.append(moved)
        estimate = new
        image = problem.operator.aligned(estimate, height, width)
        if reference is not None:
            quality.append(psnr(image, reference, border))
        if callback is not None:
            callback(len(change), image)
        if change[-1] <= tolerance:
            break
    return Restoration(image, len(change), problem.level, change, torch.stack(quality) if quality else None)


def psnr(image: Tensor, reference: Tensor, border: int = 0) -> Tensor:
    """``(B,)`` in dB over all channels, for a peak of 1, of the clipped images without ``border`` pixels a side."""
    error = (image.clamp(0, 1) - reference).square()
    if border:
        error = error[..., border:-border, border:-border]
    return -10 * error.mean((1, 2, 3)).log10()


def _ran_away(method: Method, iteration: int) -> DivergenceError:
    return DivergenceError(
        f"restore: {method} left the scale of images at iteration {iteration}; the denoiser does not contract at these "
        "levels: take others, or a higher penalty"
    )


def _told_apart(
    denoise: Callable[[Tensor, Tensor], Tensor], method: Method, change: Sequence[float]
) -> Callable[[Tensor, Tensor], Tensor]:
    """``denoise``, whose refusal of an iterate that left the scale of images is no word on what was observed.

    Args:
        denoise: of images and levels.
        method: that asks it.
        change: of the iterations that are done; a shape that was taken in the first is not what is refused later.
    """

    def asked(x: Tensor, sigma: Tensor) -> Tensor:
        try:
            return denoise(x, sigma)
        except ShapeError as error:
            if not change:
                try:
                    check_values(x, "restore")
                except ShapeError:
                    pass
                else:
                    raise
            raise _ran_away(method, len(change) + 1) from error

    return asked

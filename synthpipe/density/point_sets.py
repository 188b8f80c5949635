"""Point sets in the plane whose smoothed density is known exactly: where a density estimate can be held to the truth.

Two spirals, eight Gaussians, checkerboard and rings as in FFJORD (arXiv 1810.01367) and the code of arXiv 2001.02728;
all lie in about [-4, 4]^2.  ``p_sigma`` is the set's density convolved with Gaussian noise of standard deviation
``sigma``: closed form for all but the spirals, which take one integral along the arm.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from synthpipe.errors import OptionError, ShapeError

__all__ = ["POINT_SETS", "Checkerboard", "EightGaussians", "PointSet", "Rings", "TwoSpirals", "point_set"]

#: Points evaluated at once; bounds memory (times the nodes of the spirals' quadrature).
_CHUNK = 512
#: Densities below this lose digits as plain numbers.
_UNDERFLOW = 1e-280


class PointSet(ABC):
    """A law of points in the plane, to draw from and to know exactly."""

    name: str

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` independent points, ``(n, 2)`` float32 on the generator's device."""

    def log_smoothed_density(self, points: Tensor, sigma: float | Tensor) -> Tensor:
        """``log p_sigma``, normalised, in nats; twice differentiable in ``points``.

        Args:
            points: ``(B, 2)``.
            sigma: one number or ``(B,)``, at least 0 (the checkerboard: above 0, its own density has edges).

        Returns:
            ``(B,)`` of the dtype of ``points``; computed in float64, and finite far outside too.

        Raises:
            ShapeError: other shapes, or a ``sigma`` out of range.
        """
        if points.ndim != 2 or points.shape[1] != 2:
            raise ShapeError(f"{self.name}: expected points (B, 2), got {tuple(points.shape)}")
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=points.device)
        if levels.ndim > 0 and levels.shape != points.shape[:1]:
            raise ShapeError(
                f"{self.name}: expected sigma as one number or ({len(points)},), got {tuple(levels.shape)}"
            )
        if not bool((levels > 0 if self.has_edges else levels >= 0).all()):
            raise ShapeError(f"{self.name}: sigma must be {'above' if self.has_edges else 'at least'} 0, got {sigma}")
        wide = points.double()
        chunks = zip(torch.split(wide, _CHUNK), torch.split(levels.expand(len(points)), _CHUNK), strict=True)
        parts = [self._log_density(y, s) for y, s in chunks]
        return torch.cat([*parts, wide.new_zeros(0)]).to(points.dtype)

    #: The set's own density jumps, so that ``sigma`` must be above 0.
    has_edges = False

    @abstractmethod
    def _log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        """As :meth:`log_smoothed_density`, for a chunk: ``y`` ``(B, 2)`` and ``sigma`` ``(B,)`` in float64."""


class TwoSpirals(PointSet):
    """Two arms of 1.5 turns, one the other turned by half a turn, up to radius pi; each arm is thickened by a uniform
    square of side 1/6 at its one corner and by Gaussian noise of standard deviation 0.1.
    """

    name = "two_spirals"
    _TURN = 3 * math.pi  # angle at the outer end
    _SIDE = 1 / 6
    _STD = 0.1
    _NODES = 320  # 2e-8 nats from 1024 nodes at sigma 0, less at more

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See :class:`PointSet`."""
        u = torch.rand(n, 4, generator=generator, device=generator.device)
        arm = self._arm(self._TURN * u[:, 0].sqrt()) + self._SIDE * u[:, 1:3]
        arm = torch.where(u[:, 3:] < 0.5, arm, -arm)
        return arm + self._STD * torch.randn(n, 2, generator=generator, device=generator.device)

    def _log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        nodes, weights = np.polynomial.legendre.leggauss(self._NODES)
        angle = torch.from_numpy(nodes + 1).to(y.device) * (self._TURN / 2)
        # The angle has density 2 angle / TURN^2; leggauss integrates over a length of 2; the other arm is this one
        # turned, and has the other half of the weight.
        share = torch.from_numpy(weights).to(y.device) * angle / (2 * self._TURN)
        arm = self._arm(angle) + self._SIDE / 2
        both = torch.stack([y, -y])
        x_offset, y_offset = (both[:, :, None, i] - arm[:, i] for i in range(2))  # (2, B, nodes)
        width = (self._STD**2 + sigma.square()).sqrt()[:, None]
        density = (share * _box(x_offset, self._SIDE, width) * _box(y_offset, self._SIDE, width)).sum((0, 2))
        far = density < _UNDERFLOW
        if not bool(far.any()):
            return density.log()
        log_box = _log_box(x_offset[:, far], self._SIDE, width[far]) + _log_box(
            y_offset[:, far], self._SIDE, width[far]
        )
        value = density.where(~far, 1.0).log()
        return value.index_put((far,), torch.logsumexp(log_box + share.log(), (0, 2)))

    @staticmethod
    def _arm(angle: Tensor) -> Tensor:
        return torch.stack([-angle.cos() * angle, angle.sin() * angle], -1) / 3


class EightGaussians(PointSet):
    """Eight modes of equal weight on a circle of radius 2.83, each of standard deviation 0.35."""

    name = "eight_gaussians"
    _STD = 0.5 / math.sqrt(2)
    _RADIUS = 4 / math.sqrt(2)

    def centres(self, like: Tensor) -> Tensor:
        """The modes, ``(8, 2)``, in the dtype and on the device of ``like``."""
        angle = torch.arange(8, dtype=like.dtype, device=like.device) * (math.pi / 4)
        return self._RADIUS * torch.stack([angle.cos(), angle.sin()], 1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See :class:`PointSet`."""
        device = generator.device
        mode = torch.randint(8, (n,), generator=generator, device=device)
        noise = torch.randn(n, 2, generator=generator, device=device)
        return self.centres(noise)[mode] + self._STD * noise

    def _log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        variance = self._STD**2 + sigma.square()
        squares = (y[:, None] - self.centres(y)).square().sum(2)
        terms = torch.logsumexp(-squares / (2 * variance[:, None]), 1)
        return terms - (2 * math.pi * variance).log() - math.log(8)


class Checkerboard(PointSet):
    """Uniform over 8 of the 16 squares of side 2 in [-4, 4]^2, those with an even sum of row and column."""

    name = "checkerboard"
    has_edges = True

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See :class:`PointSet`."""
        u = torch.rand(n, 2, generator=generator, device=generator.device)
        cell = torch.randint(8, (n,), generator=generator, device=generator.device)
        return self._corners(u)[cell] + 2 * u

    def _log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        centre = self._corners(y) + 1
        column, row = (_log_box(y[:, None, i] - centre[:, i], 2.0, sigma[:, None]) for i in range(2))
        return torch.logsumexp(column + row, 1) - math.log(8)

    @staticmethod
    def _corners(like: Tensor) -> Tensor:
        cells = [(2 * i, 2 * j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
        return torch.tensor(cells, dtype=like.dtype, device=like.device)


class Rings(PointSet):
    """Four circles of equal weight with radii 0.75, 1.5, 2.25 and 3, blurred by 0.08.

    The authors' sampler draws two points at a time, which leaves it only the innermost circle; this is what it means.
    """

    name = "rings"
    _RADII = (0.75, 1.5, 2.25, 3.0)
    _STD = 0.08

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """See :class:`PointSet`."""
        device = generator.device
        ring = torch.randint(4, (n,), generator=generator, device=device)
        angle = 2 * math.pi * torch.rand(n, generator=generator, device=device)
        circle = torch.stack([angle.cos(), angle.sin()], 1) * angle.new_tensor(self._RADII)[ring][:, None]
        return circle + self._STD * torch.randn(n, 2, generator=generator, device=device)

    def _log_density(self, y: Tensor, sigma: Tensor) -> Tensor:
        # A circle blurred by a Gaussian of variance v: exp(-(r - R)^2 / 2v) I0(rR / v) e^(-rR / v) / (2 pi v).
        variance = (self._STD**2 + sigma.square())[:, None]
        radius = (y.square().sum(1, keepdim=True) + 1e-30).sqrt()  # differentiable at the origin
        ring = y.new_tensor(self._RADII)
        terms = torch.special.i0e(radius * ring / variance).log() - (radius - ring).square() / (2 * variance)
        return torch.logsumexp(terms - (2 * math.pi * variance).log(), 1) - math.log(4)


#: Name -> set, for option files and command lines.
POINT_SETS: dict[str, PointSet] = {s.name: s for s in (TwoSpirals(), EightGaussians(), Checkerboard(), Rings())}


def point_set(name: str) -> PointSet:
    """The set of that name.

    Raises:
        OptionError: unknown name; lists the known.
    """
    if name not in POINT_SETS:
        raise OptionError(f"unknown point set {name!r}; known: {sorted(POINT_SETS)}")
    return POINT_SETS[name]


def _box(distance: Tensor, side: float, std: Tensor) -> Tensor:
    """Density, at ``distance`` from the centre, of a uniform law on ``side`` blurred by a Gaussian of ``std``.

    The difference of two normal distribution functions, both taken in the lower tail, so that nothing cancels.
    """
    root = std * math.sqrt(2)
    away = distance.abs()
    return (torch.erfc((away - side / 2) / root) - torch.erfc((away + side / 2) / root)) / (2 * side)


def _log_box(distance: Tensor, side: float, std: Tensor) -> Tensor:
    """The logarithm of :func:`_box`, without underflow at any distance; five times slower."""
    near = (-distance.abs() + side / 2) / std
    far = (-distance.abs() - side / 2) / std
    upper: Tensor = torch.special.log_ndtr(near)
    lower: Tensor = torch.special.log_ndtr(far)
    return upper + torch.log(-torch.expm1(lower - upper)) - math.log(side)

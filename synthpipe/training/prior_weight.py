"""The weight of a density against the data, as a multiple kappa of what maximum a posteriori says.

A weight too small leaves noise, one too large takes texture away, and what is right depends on how good the density is
(for a small flow a quarter, within a fifth).  No clean image is needed to find it: a denoiser of least squared error
has an error that is uncorrelated with its residual ``r = y - D(y)``, and Stein's lemma says what that means,

    E <r, e> = tr(S (I - J)),      J the Jacobian of D, S the covariance of the noise e.

So along one parameter the best denoiser has ``E |r|^2 = tr(S (I - J))``, and between neighbours ``E r_i r_j = (S (I -
J))_ij``.  ``<p, (I - J) p>`` for a fresh draw p of the noise estimates the right-hand sides.
"""

from __future__ import annotations

import math
from typing import NamedTuple, assert_never

import torch
from torch import Tensor, nn

from synthpipe.config.flow_prior import AutomaticWeightOptions, ExactWeightOptions, FixedWeightOptions

__all__ = ["AutomaticWeight", "FixedWeight", "ResidualMoments", "build_weight", "residual_moments"]

#: The published target of the residual's variance, the middle of 0.8 to 0.95 of that of the noise.
_PUBLISHED = 0.875
#: Deviations from a rule that move kappa at full rate; below them it moves in proportion.
_TOLERANCE = {"orthogonal": 0.1, "white": 0.05, "variance": 0.1}
#: Variance of the residual, of the noise's, below which ``white`` raises kappa whatever the correlation.
_LEAST_RESIDUAL = 0.3
#: Share of a step in the running means.
_NEW = 0.1
#: kappa stays within exp(+-7): beyond it one of data and density is not there.
_RANGE = 7.0


class ResidualMoments(NamedTuple):
    """Second moments over each image in units of the noise's variance, ``(B,)`` each."""

    #: Of the residual with itself, and with its right and lower neighbours.
    own: Tensor
    neighbour: Tensor
    #: What Stein's lemma says of both.
    own_due: Tensor
    neighbour_due: Tensor


def residual_moments(residual: Tensor, probe: Tensor, response: Tensor, level: Tensor) -> ResidualMoments:
    """Moments of a residual, and what they should be.

    Args:
        residual: ``y - D(y)``, ``(B, C, H, W)``.
        probe: a draw p of the noise.
        response: ``J p``.
        level: standard deviation of the noise, ``(B,)``.
    """
    kept = probe - response
    scale = 1 / level.square()
    own, neighbour = _products(residual, residual)
    own_due, neighbour_due = _products(kept, probe)
    return ResidualMoments(own * scale, neighbour * scale, own_due * scale, neighbour_due * scale)


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Means of ``a_i b_i`` and of ``a_i b_j`` over neighbours, both ways round, ``(B,)``."""
    beside = [a[..., 1:] * b[..., :-1], a[..., :-1] * b[..., 1:]]
    below = [a[..., 1:, :] * b[..., :-1, :], a[..., :-1, :] * b[..., 1:, :]]
    return (a * b).flatten(1).mean(1), sum((p.flatten(1).mean(1) for p in beside + below), a.new_zeros(())) / 4


class FixedWeight(nn.Module):
    """The same kappa at every level and step."""

    #: Whether :meth:`follow` needs moments.
    follows = False

    def __init__(self, kappa: float) -> None:
        super().__init__()
        self.kappa = kappa

    def forward(self, level: Tensor) -> Tensor:
        """kappa for noise levels ``(B,)``."""
        return torch.full_like(level, self.kappa)

    def follow(self, level: Tensor, moments: ResidualMoments) -> None:
        """Nothing."""


class AutomaticWeight(nn.Module):
    """kappa that follows the residual: up where the residual is smaller, or whiter, than it should be; else down.

    With ``knots`` each of some noise levels has its own, interpolated linearly in the logarithm of the level.  The
    state is in buffers, and so in a run's checkpoints; several processes take the mean of their moments.

    Args:
        options: rule, rate, start and knots.
    """

    follows = True
    log_kappa: Tensor
    moments: Tensor
    knots: Tensor

    def __init__(self, options: AutomaticWeightOptions) -> None:
        super().__init__()
        self.rule, self.rate = options.rule, options.rate
        count = max(1, len(options.knots))
        self.register_buffer("knots", torch.tensor(options.knots or (1.0,)).log())
        self.register_buffer("log_kappa", torch.full((count,), math.log(options.start)))
        self.register_buffer("moments", torch.full((count, len(ResidualMoments._fields)), math.nan))

    def forward(self, level: Tensor) -> Tensor:
        """kappa for noise levels ``(B,)``."""
        return (self._shares(level) @ self.log_kappa.to(level.dtype)).exp()

    @torch.no_grad()
    def follow(self, level: Tensor, moments: ResidualMoments) -> None:
        """Move kappa by one step, from the levels ``(B,)`` and moments of the images of this step."""
        shares = self._shares(level)  # (B, knots)
        sums = torch.cat([shares.T @ torch.stack(moments, 1), shares.sum(0)[:, None]], 1).to(self.moments)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        if not bool(torch.isfinite(sums).all()):
            return
        means, weight = sums[:, :-1] / sums[:, -1:].clamp_min(1e-6), sums[:, -1:].clamp(max=1.0)
        known = ~self.moments[:, :1].isnan()
        new = torch.where(known, self.moments + _NEW * weight * (means - self.moments), means)
        self.moments.copy_(torch.where(weight > 0, new, self.moments))
        step = (self._deviation() / _TOLERANCE[self.rule]).clamp(-1, 1).nan_to_num(0.0)
        self.log_kappa.sub_(self.rate * weight[:, 0] * step).clamp_(-_RANGE, _RANGE)

    def level_ratio(self) -> float:
        """The noise level that the residual speaks of, over the one it was told; 1 where the told one is right.

        Means something once ``rule: white`` has settled, which does not use the level.
        """
        own, _, own_due, _ = self.moments.nanmean(0)
        return float((own / own_due).clamp_min(0).sqrt())

    def _deviation(self) -> Tensor:
        own, neighbour, own_due, neighbour_due = self.moments.unbind(1)
        match self.rule:
            case "variance":
                return own - _PUBLISHED
            case "orthogonal":
                return own - own_due
            case "white":
                white = neighbour / own - neighbour_due / own_due
                # Of almost no residual, ratios say nothing: without this a denoiser that has given up stays as it is.
                return torch.where(own < _LEAST_RESIDUAL, own - _LEAST_RESIDUAL - _TOLERANCE["white"], white)
            case _:
                assert_never(self.rule)

    def _shares(self, level: Tensor) -> Tensor:
        """``(B, knots)``: what each knot has to say at each level; rows add up to 1."""
        if len(self.knots) == 1:
            return torch.ones(len(level), 1, dtype=level.dtype, device=level.device)
        place = level.log().clamp(self.knots[0], self.knots[-1]).contiguous()
        upper = torch.searchsorted(self.knots, place).clamp(1, len(self.knots) - 1)
        low, high = self.knots[upper - 1], self.knots[upper]
        share = ((place - low) / (high - low)).to(level.dtype)[:, None]
        rows = torch.zeros(len(level), len(self.knots), dtype=level.dtype, device=level.device)
        return rows.scatter(1, upper[:, None] - 1, 1 - share).scatter(1, upper[:, None], share)


def build_weight(
    options: ExactWeightOptions | FixedWeightOptions | AutomaticWeightOptions,
) -> FixedWeight | AutomaticWeight:
    """The weight that ``options`` describe."""
    match options:
        case ExactWeightOptions():
            return FixedWeight(1.0)
        case FixedWeightOptions():
            return FixedWeight(options.kappa)
        case AutomaticWeightOptions():
            return AutomaticWeight(options)
        case _:
            assert_never(options)

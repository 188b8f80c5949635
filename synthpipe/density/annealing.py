"""``log Z`` by annealed importance sampling, for densities that no single proposal covers.

Neal, "Annealed importance sampling", 2001.  Particles start from a proposal ``q`` and follow the geometric path
``q^(1 - b) exp(S)^b``, ``b`` from 0 to 1, by Hamiltonian moves; the weights they gather are unbiased for ``Z`` whatever
the moves.  A pilot run with particles of its own chooses the path's steps and the step sizes, so that the main run,
which holds them fixed, stays unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthpipe.density.importance import (
    LogDensity,
    LogNormalizer,
    StudentT,
    effective_draws,
    from_log_weights,
)
from synthpipe.errors import EffectiveSampleError

__all__ = ["annealed_log_normalizer"]

_ACCEPTANCE = 0.75  # of the moves, aimed at
_FIRST_STEP = 0.5  # of the leapfrog, in units of the proposal's scale


@dataclass(frozen=True)
class _Stage:
    """One step of the path: the inverse temperature reached, and the step size of the moves there."""

    beta: float
    step: float


def annealed_log_normalizer(
    log_density: LogDensity,
    proposal: StudentT,
    generator: torch.Generator,
    *,
    particles: int = 2048,
    pilot: int = 1024,
    refits: int = 1,
    moves: int = 2,
    leapfrog: int = 4,
    similarity: float = 0.95,
    max_stages: int = 300,
    min_effective: float = 100.0,
) -> LogNormalizer:
    """``log integral exp S`` along a path from ``proposal``.

    Args:
        log_density: ``S``, differentiable.
        proposal: where the particles start; covers the target, if roughly.
        generator: source of randomness, on the proposal's device.
        particles: of the main run.
        pilot: particles that choose the path.
        refits: pilot runs after which the proposal is fitted anew, to the particles at the path's end.
        moves: Hamiltonian moves at each stage.
        leapfrog: steps of a move.
        similarity: share of effective particles that one stage leaves; nearer 1 makes more stages.
        max_stages: give up above.
        min_effective: refuse below this many effective particles.

    Raises:
        EffectiveSampleError: too few effective particles, or a path that does not end.
    """
    for _ in range(refits):
        _, y = _plan(_Walk(log_density, proposal, generator, moves, leapfrog), pilot, similarity, max_stages)
        proposal = StudentT.fit(y, proposal.dof)
    walk = _Walk(log_density, proposal, generator, moves, leapfrog)
    stages, _ = _plan(walk, pilot, similarity, max_stages)
    y = proposal.sample(particles, generator)
    log_weights = torch.zeros(particles, dtype=torch.float64, device=y.device)
    before = 0.0
    for stage in stages:
        log_weights += (stage.beta - before) * walk.log_ratio(y)
        before = stage.beta
        if stage.beta < 1:
            y, _ = walk.move(y, stage)
    return from_log_weights(log_weights, min_effective, "use more particles, moves, or a similarity nearer 1")


def _plan(walk: _Walk, particles: int, similarity: float, max_stages: int) -> tuple[list[_Stage], Tensor]:
    """A path, and its end's population: stages that leave the weights alike, step sizes by the acceptance of moves."""
    y = walk.proposal.sample(particles, walk.generator)
    stages: list[_Stage] = []
    beta, step = 0.0, _FIRST_STEP
    while beta < 1:
        if len(stages) == max_stages:
            raise EffectiveSampleError(
                f"annealed log Z: the path has come to {beta:.3f} of 1 after {max_stages} stages; the density may "
                "not be integrable; raise max_stages, or start from a proposal nearer the target"
            )
        ratio = walk.log_ratio(y)
        beta = _next_beta(ratio, beta, similarity)
        weights = torch.softmax((beta - (stages[-1].beta if stages else 0.0)) * ratio, 0)
        y = y[torch.multinomial(weights, particles, replacement=True, generator=walk.generator)]
        stages.append(_Stage(beta, step))
        y, accepted = walk.move(y, stages[-1])
        step *= 2.0 ** (2 * (accepted - _ACCEPTANCE))
    return stages, y


def _next_beta(ratio: Tensor, beta: float, similarity: float) -> float:
    """The largest ``b`` at which the weights ``exp((b - beta) ratio)`` leave that share effective, by bisection."""
    low, high = beta, 1.0

    def share(b: float) -> float:
        """Of the particles that ``b`` leaves effective, in [0, 1]."""
        return effective_draws((b - beta) * ratio) / len(ratio)

    if share(1.0) >= similarity:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) >= similarity else (low, middle)
    return max(low, beta + 1e-6)


class _Walk:
    """Hamiltonian moves in the proposal's own units, where it is round."""

    def __init__(
        self, log_density: LogDensity, proposal: StudentT, generator: torch.Generator, moves: int, leapfrog: int
    ) -> None:
        self.log_density, self.proposal, self.generator = log_density, proposal, generator
        self.moves, self.leapfrog = moves, leapfrog

    @torch.no_grad()
    def log_ratio(self, y: Tensor) -> Tensor:
        """``S - log q``, ``(N,)`` float64."""
        return self.log_density(y).double() - self.proposal.log_prob(y).double()

    def move(self, y: Tensor, stage: _Stage) -> tuple[Tensor, float]:
        """``moves`` Hamiltonian moves, which leave the stage's law as it is: points ``(N, d)``, share accepted."""
        accepted = 0.0
        value, slope = self._target(y, stage.beta)
        for _ in range(self.moves):
            momentum = torch.randn(y.shape, generator=self.generator, dtype=y.dtype, device=y.device)
            start = value - 0.5 * momentum.square().sum(1)
            new_y, new_value, new_slope = y, value, slope
            for _ in range(self.leapfrog):
                momentum = momentum + 0.5 * stage.step * new_slope
                new_y = new_y + stage.step * momentum @ self.proposal.scale.T
                new_value, new_slope = self._target(new_y, stage.beta)
                momentum = momentum + 0.5 * stage.step * new_slope
            gain = new_value - 0.5 * momentum.square().sum(1) - start
            luck = torch.rand(gain.shape, generator=self.generator, dtype=y.dtype, device=y.device)
            keep = luck.log() < gain  # False where gain is not a number
            accepted += float(keep.double().mean()) / self.moves
            y = torch.where(keep[:, None], new_y, y)
            value = torch.where(keep, new_value, value)
            slope = torch.where(keep[:, None], new_slope, slope)
        return y, accepted

    def _target(self, y: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """log-density of the stage's law, and its gradient in the proposal's units."""
        with torch.enable_grad():
            y = y.detach().requires_grad_(True)
            value = (1 - beta) * self.proposal.log_prob(y) + beta * self.log_density(y)
            (gradient,) = torch.autograd.grad(value.sum(), y)
        return value.detach(), gradient @ self.proposal.scale

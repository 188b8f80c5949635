"""Three ways to a normalised likelihood of one trained network, against the exact density.

    python recipes/dde_toy/likelihood.py        # about a minute of one core

One network for noise levels 0.1 to 10 on the eight Gaussians.  Its log Z at 0.1: by sums over a grid, by importance
sampling, by annealing, and from the integral of the denoising error, which needs no importance weights.
"""

from __future__ import annotations

import argparse

import torch

from synthpipe.density.annealing import annealed_log_normalizer
from synthpipe.density.base import dde_loss
from synthpipe.density.grid import compare_on_grid
from synthpipe.density.importance import StudentT, at_level, log_normalizer
from synthpipe.density.normalizer import GaussianLaw, log_normalizer_from_likelihood, negative_log_likelihood
from synthpipe.density.point_sets import EightGaussians
from synthpipe.density.vector import VectorDDE

LEVELS = (0.1, 10.0)


def train(steps: int, batch: int = 1024) -> VectorDDE:
    """As in run.py, with noise levels drawn evenly in log sigma."""
    torch.manual_seed(0)
    points, model = EightGaussians(), VectorDDE(sigma_range=LEVELS)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    low, high = LEVELS
    for _ in range(steps):
        x = points.sample(batch // 2, generator).repeat(2, 1)
        e = torch.randn(batch // 2, 2, generator=generator)
        sigma = (low * (high / low) ** torch.rand(batch // 2, generator=generator)).repeat(2)
        loss = dde_loss(model, x, sigma, torch.cat([e, -e])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--points", type=int, default=5000, help="test points")
    args = parser.parse_args()
    torch.set_num_threads(1)
    points, sigma = EightGaussians(), LEVELS[0]
    model = train(args.steps)
    generator = torch.Generator().manual_seed(1)
    x = points.sample(args.points, generator)
    noised = x + sigma * torch.randn(x.shape, generator=generator)
    likelihood = negative_log_likelihood(model, x, GaussianLaw.fit(x), LEVELS, generator, levels=20, common_noise=False)
    grid = compare_on_grid(model, points, sigma)
    print(f"KL on the grid {grid.kl:.4f}, slope {grid.slope:.3f}, log Z {grid.log_z:.3f}")
    proposal = StudentT.fit(noised)
    for name, found in (
        ("importance", log_normalizer(at_level(model, sigma), proposal, generator)),
        ("annealing", annealed_log_normalizer(at_level(model, sigma), proposal, generator)),
    ):
        print(f"log Z by {name} {found.log_z:.3f} +- {found.standard_error:.3f}, effective {found.effective_draws:.0f}")
    log_z, error = log_normalizer_from_likelihood(model, x, likelihood, generator)
    print(f"log Z by the integral {log_z:.3f} +- {error:.3f}")
    value, error = likelihood.mean
    exact = -points.log_smoothed_density(noised.double(), sigma)
    print(f"NLL of {len(x)} points {value:.3f} +- {error:.3f}; exact density {float(exact.mean()):.3f}")


if __name__ == "__main__":
    main()

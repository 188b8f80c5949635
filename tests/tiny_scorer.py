"""A scorer small enough for tests, whose numbers mean nothing but differ from image to image."""

from __future__ import annotations

import torch

from synthpipe.density.scorer import DensityScorer
from tests.contracts import perturbed

__all__ = ["tiny_scorer"]


def tiny_scorer(tile: int = 16, channels: int = 1, seed: int = 0, norm_levels: tuple[float, ...] = ()) -> DensityScorer:
    """Random weights, and quantiles of standard normal numbers over the square root of the number of tiles."""
    dde = {"channels": channels, "width": 4, "depth": 3, "outputs": 2, "domains": ["clean", "bad"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scorer = perturbed(DensityScorer(dde, (0.03, 0.1), tile=tile, norm_levels=norm_levels), seed).float()
    assert isinstance(scorer, DensityScorer)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(64, 3, tile, tile, generator=generator) - 0.5
    parts = scorer.parts(0.5 + noise * torch.linspace(0.05, 1, 64)[:, None, None, None])
    scorer.calibration.mean.copy_(parts.mean(0))
    scorer.calibration.std.copy_(parts.std(0))
    normal = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 101))
    for row, tiles in zip(scorer.quantile_table, scorer.quantiles, strict=True):
        row.copy_(normal / tiles**0.5)
    return scorer.eval().requires_grad_(False)

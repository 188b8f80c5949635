"""A scorer by kinds small enough for tests, whose probabilities mean nothing but differ from image to image."""

from __future__ import annotations

import torch

from synthpipe.density.kinds import KindScorer
from synthpipe.density.kinds.scorer import FEATURE_NAMES

__all__ = ["tiny_kind_scorer"]


def tiny_kind_scorer(seed: int = 0) -> KindScorer:
    """Random weights over all statistics, standardised by those of noise of all contrasts."""
    scorer = KindScorer(FEATURE_NAMES, hidden=(8,))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(32, 3, 64, 64, generator=generator) - 0.5
    found = scorer.statistics(0.5 + noise * torch.linspace(0.05, 1, 32)[:, None, None, None])
    with torch.no_grad():
        scorer.center.copy_(found.mean(0))
        scorer.spread.copy_(found.std(0).clamp_min(0.1))
        for layer in scorer.layers:
            for parameter in layer.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        scorer.pooling.copy_(0.3 * torch.rand(scorer.pooling.shape, generator=generator))
        normal = torch.special.ndtri(torch.linspace(0.0005, 0.9995, 101))
        for row, tiles in zip(scorer.quantile_table, scorer.quantiles, strict=True):
            row.copy_(normal / tiles**0.5)
    return scorer.eval().requires_grad_(False)

"""How well a number tells degraded from clean: AUROC, accuracy on pairs, and what is caught at a price.

Everywhere a higher number is meant to say "degraded".  Ties count half.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["auroc", "caught_share", "pair_accuracy"]


def auroc(clean: Tensor, degraded: Tensor) -> float:
    """Chance that a degraded sample has the higher number than a clean one; 0.5 is blind, below prefers the degraded.

    Args:
        clean: ``(N,)``.
        degraded: ``(M,)``.

    Raises:
        ShapeError: empty or not flat, or NaN.
    """
    clean, degraded = _checked(clean, "auroc"), _checked(degraded, "auroc")
    ordered = clean.sort().values
    below = torch.searchsorted(ordered, degraded, right=False)
    up_to = torch.searchsorted(ordered, degraded, right=True)
    # Integers: exact, whatever the order of the samples.
    return int((below + up_to).sum()) / (2 * len(clean) * len(degraded))


def pair_accuracy(clean: Tensor, degraded: Tensor) -> float:
    """Share of clean samples whose own degraded copy has the higher number.

    Args:
        clean, degraded: ``(N,)``, the copy of a sample at the sample's place.

    Raises:
        ShapeError: not as many of both, empty or not flat, or NaN.
    """
    clean, degraded = _checked(clean, "pair_accuracy"), _checked(degraded, "pair_accuracy")
    if len(clean) != len(degraded):
        raise ShapeError(
            f"pair_accuracy: expected a degraded copy of each sample, got {len(clean)} and {len(degraded)}"
        )
    return (2 * int((degraded > clean).sum()) + int((degraded == clean).sum())) / (2 * len(clean))


def caught_share(clean: Tensor, degraded: Tensor, false_rejects: float = 0.05) -> float:
    """Share of the degraded above a threshold that rejects at most ``false_rejects`` of the clean.

    Args:
        clean: ``(N,)``.
        degraded: ``(M,)``.
        false_rejects: share of the clean in [0, 1).

    Raises:
        ShapeError: empty or not flat, or NaN; a share out of range.
    """
    clean, degraded = _checked(clean, "caught_share"), _checked(degraded, "caught_share")
    if not 0 <= false_rejects < 1:
        raise ShapeError(f"caught_share: expected false_rejects in [0, 1), got {false_rejects}")
    rejected = int(false_rejects * len(clean))
    threshold = clean.sort(descending=True).values[rejected]  # rejecting only what lies above it
    return int((degraded > threshold).sum()) / len(degraded)


def _checked(values: Tensor, name: str) -> Tensor:
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"{name}: expected a flat tensor with at least one number, got shape {tuple(values.shape)}")
    if bool(torch.isnan(values).any()):
        raise ShapeError(f"{name}: {int(torch.isnan(values).sum())} of {len(values)} numbers are NaN; drop them first")
    return values.detach().double().cpu()

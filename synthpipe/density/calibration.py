"""From parts of a quality score to one number: a quadratic logistic regression, and quantiles of the clean set.

Raw density must not decide what is kept (it ranks every blurred copy above its original); a small fixed vector of
parts does, in a combination fitted on synthetic corruptions of the user's own clean images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthpipe.errors import ShapeError, TrainingError

__all__ = ["Calibration", "fit_calibration"]

#: Standard deviations from the clean mean beyond which a part counts no more: a quadratic grows without end.
_CLIP = 4.0
_MAX_ITERATIONS = 500


class Calibration(nn.Module):
    """``logit = b + w . q(z)``: ``z`` the standardised, clipped parts, ``q`` all of them, their squares and products.

    Args:
        parts: number F of parts.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.register_buffer("mean", torch.zeros(parts))
        self.register_buffer("std", torch.ones(parts))
        self.weight = nn.Parameter(torch.zeros(parts + parts * (parts + 1) // 2))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, parts: Tensor) -> Tensor:
        """Log-odds that a tile is degraded, ``(N,)``, from its parts ``(N, F)``; higher is worse.

        Raises:
            ShapeError: another number of parts.
        """
        return self.expand(parts) @ self.weight + self.bias

    def expand(self, parts: Tensor) -> Tensor:
        """``q(z)``, ``(N, F + F (F + 1) / 2)``."""
        if parts.ndim != 2 or parts.shape[1] != self.parts:
            raise ShapeError(f"Calibration: expected parts (N, {self.parts}), got {tuple(parts.shape)}")
        z = ((parts - self.mean) / self.std).clamp(-_CLIP, _CLIP)
        rows, columns = torch.triu_indices(self.parts, self.parts, device=z.device)
        return torch.cat([z, z[:, rows] * z[:, columns]], 1)


def fit_calibration(
    clean: Tensor,
    degraded: Tensor,
    weight: Tensor | None = None,
    ridge: float = 1e-3,
    ignored: Sequence[int] = (),
) -> Calibration:
    """Fit by penalised maximum likelihood (LBFGS; the problem is convex).

    Args:
        clean: ``(N, F)`` parts of clean tiles.
        degraded: ``(M, F)`` parts of degraded tiles.
        weight: ``(M,)`` weights of the degraded tiles, for families that shall count alike; equal by default.  Both
            classes count alike in all.
        ridge: weight of ``||w||^2 / 2`` against the mean loss.
        ignored: parts that shall not count.

    Raises:
        TrainingError: parts that are not finite, or fewer tiles of a class than parts.
    """
    if min(len(clean), len(degraded)) <= clean.shape[1]:
        raise TrainingError(
            f"calibration: expected more than {clean.shape[1]} tiles, as many as there are parts, of each class; got "
            f"{len(clean)} clean and {len(degraded)} degraded; give more or larger images"
        )
    parts = torch.cat([clean, degraded]).double()
    if not bool(torch.isfinite(parts).all()):
        column = int((~torch.isfinite(parts)).any(0).nonzero()[0])
        raise TrainingError(f"calibration: part {column} is not finite on some tile; the density's weights are damaged")
    labels = torch.cat([torch.zeros(len(clean)), torch.ones(len(degraded))]).double()
    share = torch.ones(len(degraded)) if weight is None else weight
    shares = torch.cat([torch.full((len(clean),), 0.5 / len(clean)), 0.5 * share / share.sum()]).double()
    model = Calibration(clean.shape[1]).double()
    model.mean.copy_(clean.double().mean(0))
    model.std.copy_(clean.double().std(0).clamp_min(1e-6))
    model.std[list(ignored)] = math.inf  # standardised, such a part is 0 everywhere
    expanded = model.expand(parts).detach()
    parameters = [model.weight, model.bias]
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        parameters, max_iter=_MAX_ITERATIONS, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-7
    )

    def closure() -> float:
        """The loss at the present weights, with its gradient in them."""
        optimizer.zero_grad()
        logit = expanded @ model.weight + model.bias
        losses = nn.functional.binary_cross_entropy_with_logits(logit, labels, reduction="none")
        loss = (shares * losses).sum() + 0.5 * ridge * model.weight.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    with torch.enable_grad():
        final = optimizer.step(closure)
    if not math.isfinite(final):
        raise TrainingError("calibration: the fit did not converge; raise ridge")
    return model.float().requires_grad_(False)

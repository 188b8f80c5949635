"""The objective of DeFlow: the sum of two marginal likelihoods under one flow.

Wolf et al., "DeFlow", CVPR 2021, section 3.  The loss is the mean negative log-likelihood of both domains in true bits
per dimension; every batch holds as many clean as noisy images, so the mean over images weighs the domains equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from synthpipe.config.training import OptimizerOptions
from synthpipe.errors import TrainingError
from synthpipe.images import to_float
from synthpipe.training.base import Objective
from synthpipe.training.data.unpaired import CLEAN, NOISY
from synthpipe.transforms.base import Batch, generator_for

__all__ = ["DeFlowObjective"]


class DeFlowObjective(Objective):
    """Mean bits per dimension of a half clean, half noisy batch.

    Args:
        model: a :class:`synthpipe.flows.deflow.DeFlow`, or anything with its ``nll``, ``bits_per_dim``, ``initialize``
            and ``degrade``.
    """

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> tuple[Tensor, dict[str, Tensor]]:
        """Bits per dimension, averaged over ``batch["x"]`` ``(B, 3, H, W)`` uint8 with ``batch["domain"]`` ``(B,)``."""
        x, domain = to_float(batch["x"]), batch["domain"]
        model = cast(Any, self.model)
        bits = model.bits_per_dim(model.nll(x, domain, generators), x.shape)  # (B,)
        detached = bits.detach()
        numbers = {"bpd_clean": detached[domain == CLEAN].mean(), "bpd_noisy": detached[domain == NOISY].mean()}
        return bits.mean(), numbers

    def initialize(self, batch: Batch, generators: Sequence[torch.Generator]) -> None:
        """Data-dependent ActNorm scales from the first batch."""
        cast(Any, self.model).initialize(to_float(batch["x"]), batch["domain"], generators)

    def parameter_groups(self, options: OptimizerOptions) -> list[dict[str, Any]]:
        """Everything at ``lr``; the conditioning network (``model.encoder``) at ``encoder_lr`` where that is set."""
        if options.encoder_lr is None:
            return super().parameter_groups(options)
        encoder = getattr(self.model, "encoder", None)
        if not isinstance(encoder, nn.Module):
            raise TrainingError(
                f"optimizer.encoder_lr is {options.encoder_lr}, but {type(self.model).__name__} has no module 'encoder'"
            )
        own = [p for p in encoder.parameters() if p.requires_grad]
        ids = {id(p) for p in own}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in ids]
        return [{"params": rest, "lr": options.lr}, {"params": own, "lr": options.encoder_lr}]

    def numbers(self) -> dict[str, float]:
        """Norms of the learned shifts, where the model offers them: a covariance that stays at 0 never trains."""
        norms = getattr(self.model, "shift_norms", None)
        return {name: float(value) for name, value in norms().items()} if callable(norms) else {}

    def pictures(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Rows of clean | degraded by the model | another image that is really noisy."""
        x = to_float(batch["x"])
        clean, noisy = x[batch["domain"] == CLEAN], x[batch["domain"] == NOISY]
        generators = [generator_for(seed, f"picture{i}") for i in range(len(clean))]
        degraded = cast(Any, model).degrade(clean, generators).to(clean).clamp(0, 1)
        return _grid(torch.stack([clean, degraded, noisy], dim=1))


def _grid(images: Tensor, gap: int = 2) -> Tensor:
    """``(rows, columns, 3, H, W)`` -> one picture ``(3, rows * H + gaps, columns * W + gaps)`` on white."""
    rows, columns, channels, height, width = images.shape
    canvas = images.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            canvas[:, top : top + height, left : left + width] = images[row, column]
    return canvas

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
from synthpipe.seeds import picture_generators
from synthpipe.training.base import Objective
from synthpipe.training.data.unpaired import CLEAN, NOISY
from synthpipe.training.pictures import picture_grid
from synthpipe.transforms.batch import Batch

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
        generators = picture_generators(seed, len(clean))
        degraded = cast(Any, model).degrade(clean, generators).to(clean).clamp(0, 1)
        return picture_grid(torch.stack([clean, degraded, noisy], dim=1), gap=2)

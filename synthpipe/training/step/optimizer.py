"""The optimiser of a run: fused, and told on the device whether a step counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from synthpipe.config.run import RunOptions
from synthpipe.training.base import Objective

__all__ = ["build_optimizer", "load_optimizer", "skip_if"]

#: How the library computes the same update: no part of a run's state.
_WAYS = ("fused", "foreach", "capturable")


def build_optimizer(options: RunOptions, objective: Objective[Any]) -> torch.optim.Optimizer:
    """Adam or AdamW over the objective's groups, on their device.

    Fused except where the loss is scaled: there the library's scaler decides which steps count.
    """
    chosen = options.optimizer
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[chosen.kind](
        objective.parameter_groups(chosen),
        betas=chosen.betas,
        eps=chosen.eps,
        weight_decay=chosen.weight_decay,
        fused=True if options.precision != "16-mixed" else None,
    )


def skip_if(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """Let the next step of a fused ``optimizer`` change nothing, its own state included, where ``bad`` is 1.

    Args:
        optimizer: of :func:`build_optimizer`.
        bad: float32 scalar, 0 or 1, on the parameters' device; it is not read here.
    """
    optimizer.found_inf = bad  # type: ignore[attr-defined]  # how the library's own loss scaling tells it


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Continue from a state, computing as ``optimizer`` does and not as what wrote the state did."""
    groups = [
        {**saved, **{way: group[way] for way in _WAYS if way in group}}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})

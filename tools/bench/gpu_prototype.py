"""What the stream could have for a degradation: the frozen DeFlow, noise from seeds, one CUDA graph for each shape."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.flows import DeFlow, FrozenDeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.images import downscale_bicubic, quantize_8bit
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.captured import CapturedFunction

__all__ = ["CapturedDeFlowDegrade"]


class CapturedDeFlowDegrade(BatchTransform):
    """As :class:`synthpipe.transforms.DeFlowDegrade`, from reduction to ``lq`` in one launch; looks for no NaN.

    Args:
        weights: of a DeFlow.
        scale: height of ``gt`` over height of ``lq``.
        condition_dtype: see :class:`FrozenDeFlow`.
    """

    def __init__(self, weights: str, scale: int, condition_dtype: torch.dtype | None = None) -> None:
        model = checkpoints.load(weights, kind="deflow")
        assert isinstance(model, DeFlow)
        self._frozen = FrozenDeFlow(model, condition_dtype)
        self._scale = scale
        self._captured = CapturedFunction(self._degrade)

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """The samples' own seeds."""
        return {"seed": batch["seed"]}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Add ``lq`` ``(B, 3, H / scale, W / scale)``."""
        seeds = params["seed"].to(batch["gt"].device, non_blocking=True)
        return {**batch, "lq": self._captured(batch["gt"], seeds)}

    def to(self, device: torch.device | str) -> CapturedDeFlowDegrade:
        """Move the flow."""
        self._frozen.to(device)
        return self

    def _degrade(self, gt: Tensor, seeds: Tensor) -> Tensor:
        clean = quantize_8bit(downscale_bicubic(gt, self._scale))
        return self._frozen.degrade_with(clean, SeededNoise(seeds))

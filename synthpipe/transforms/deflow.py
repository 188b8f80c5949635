"""A trained DeFlow as a batched degradation: high-resolution tile -> bicubic reduction -> flow -> low-quality tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import check_images, downscale_bicubic, quantize_8bit
from synthpipe.seeds import generator_for
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch

__all__ = ["DeFlowDegrade"]


class DeFlowDegrade(BatchTransform):
    """Adds ``lq``: the reduced ``gt`` as the noisy domain would have shown it.

    The reduced tile is rounded to 8 bits before it meets the flow, as all images were that the flow was trained on.
    ``lq`` leaves unrounded and may leave [0, 1] slightly; the stream quantises it.  A tile that the flow turns into NaN
    leaves as it is, for the stream to drop and count, so that it takes no other tile with it.

    Args:
        model: a trained DeFlow (``checkpoints.load(path, kind="deflow")``).
        scale: height of ``gt`` over height of ``lq``; 1 degrades at full size (a denoiser's pairs).
        strength: see :meth:`synthpipe.flows.DeFlow.degrade`.

    Raises:
        ShapeError: ``model`` is no DeFlow, or is untrained, or ``scale`` is below 1.

    >>> import torch
    >>> from synthpipe import checkpoints
    >>> from synthpipe.transforms import DeFlowDegrade
    >>> degrade = DeFlowDegrade(checkpoints.load("deflow_small"), scale=4)
    >>> batch = degrade({"gt": torch.rand(2, 3, 128, 160), "seed": torch.tensor([5, 6])})
    >>> batch["lq"].shape
    torch.Size([2, 3, 32, 40])
    """

    salt = "deflow"

    def __init__(self, model: nn.Module, scale: int, strength: float = 1.0) -> None:
        if not isinstance(model, DeFlow):
            raise ShapeError(f"DeFlowDegrade: expected a DeFlow, got {type(model).__name__}")
        if not model.initialized:
            raise ShapeError("DeFlowDegrade: the DeFlow was never trained; load weights with checkpoints.load")
        if scale < 1:
            raise ShapeError(f"DeFlowDegrade: scale must be at least 1, got {scale}")
        self.model = model.eval().requires_grad_(False)
        self.scale = scale
        self.strength = strength

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """One generator per sample, seeded by the sample alone."""
        return {"generators": [generator_for(seed, self.salt) for seed in batch["seed"]]}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Add ``lq`` ``(B, 3, H / scale, W / scale)`` float32.

        Raises:
            ShapeError: sides of ``gt`` that ``scale`` does not divide, or NaN in ``gt``.
        """
        gt = batch["gt"]
        check_images(gt, "DeFlowDegrade")
        clean = quantize_8bit(downscale_bicubic(gt, self.scale))
        lq = self.model.degrade(clean, params["generators"], self.strength, refuse_nonfinite=False)
        return {**batch, "lq": lq}

    def to(self, device: torch.device | str) -> DeFlowDegrade:
        """Move the flow."""
        self.model.to(device)
        return self

"""Degradation options -> the transform that they describe."""

from __future__ import annotations

from synthpipe import checkpoints
from synthpipe.config.degrade import ClassicalDegradeOptions, DeFlowDegradeOptions
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

__all__ = ["build_degrade"]


def build_degrade(options: DeFlowDegradeOptions | ClassicalDegradeOptions, scale: int) -> BatchTransform:
    """The transform, on the CPU (``.to(device)`` moves it); ``scale`` is the ratio of ``gt`` to ``lq``.

    Raises:
        CheckpointError: DeFlow weights that are missing, damaged or of another kind.
    """
    if isinstance(options, ClassicalDegradeOptions):
        return ClassicalDegrade(options, scale)
    return DeFlowDegrade(checkpoints.load(options.weights, kind="deflow"), scale, options.strength)

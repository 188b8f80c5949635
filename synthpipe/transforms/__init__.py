"""Batched transforms: degradations that turn clean tiles into pairs."""

from synthpipe.transforms.base import Batch, BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade

__all__ = ["Batch", "BatchTransform", "ClassicalDegrade", "DeFlowDegrade"]

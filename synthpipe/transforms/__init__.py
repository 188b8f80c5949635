"""Batched transforms: degradations that turn clean tiles into pairs, and scores of the clean tiles."""

from synthpipe.transforms.base import Batch, BatchTransform
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade
from synthpipe.transforms.density import DensityFilter, DensityScore

__all__ = ["Batch", "BatchTransform", "ClassicalDegrade", "DeFlowDegrade", "DensityFilter", "DensityScore"]

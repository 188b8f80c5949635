"""Batched transforms: what cleans and judges the clean tiles, and degradations that turn them into pairs."""

from synthpipe.transforms.base import BatchTransform, DeviceTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.density import DensityFilter, DensityScore

__all__ = [
    "Batch",
    "BatchTransform",
    "ClassicalDegrade",
    "DeFlowDegrade",
    "Denoise",
    "DensityFilter",
    "DensityScore",
    "DeviceTransform",
]

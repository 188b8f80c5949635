"""The contract of batched transforms: draw the randomness first, apply it second.

A batch is a dictionary.  Keys that every stage after ``device`` sees:

=========  =======================================  ==========================================
``gt``     ``(B, 3, H, W)`` float32, RGB, [0, 1]    the clean high-resolution tiles
``lq``     ``(B, 3, H/s, W/s)`` float32, [0, 1]     added by a degradation
``key``    list of B strings                        the sample's key, unique within the corpus
``seed``   ``(B,)`` int64, CPU                      the sample's own seed: all its randomness
=========  =======================================  ==========================================

A transform MUST

* draw everything random in :meth:`BatchTransform.sample_params`, from the samples' own seeds alone, so that a
  sample's result depends neither on its neighbours in the batch nor on what came before;
* be deterministic in :meth:`BatchTransform.apply`, given the parameters;
* add keys and never edit a tensor of the batch in place;
* refuse wrong shapes and NaN with :class:`synthpipe.errors.ShapeError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from synthpipe.transforms.batch import Batch

__all__ = ["Batch", "BatchTransform"]


class BatchTransform(ABC):
    """One stage on the device; see the module's docstring for what a subclass must keep."""

    #: Folded into every sample's seed, so that two transforms never share random numbers.
    salt: str = ""

    @abstractmethod
    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """Draw all randomness for ``batch`` from ``batch["seed"]``."""

    @abstractmethod
    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Return a new dictionary with this stage's keys added."""

    def __call__(self, batch: Batch) -> Batch:
        """Draw, then apply."""
        return self.apply(batch, self.sample_params(batch))

    def to(self, device: torch.device | str) -> BatchTransform:
        """Move the transform's weights, if it has any; returns self."""
        return self

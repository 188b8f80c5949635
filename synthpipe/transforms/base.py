"""The contract of batched transforms.

A batch is a dictionary.  Keys that every stage after ``device`` sees:

=========  =======================================  ==========================================
``gt``     ``(B, 3, H, W)`` float32, RGB, [0, 1]    the clean high-resolution tiles
``lq``     ``(B, 3, H/s, W/s)`` float32, [0, 1]     added by a degradation
``key``    list of B strings                        the sample's key, unique within the corpus
``seed``   ``(B,)`` int64                           the sample's own seed: all its randomness
``seen``   ``(B,)`` int64                           images that the stream had read before, where a degradation asks
=========  =======================================  ==========================================

A transform MUST

* draw everything random from the samples' own seeds alone, in :meth:`BatchTransform.sample_params` or
  :meth:`DeviceTransform.compute`, so that a sample's result depends neither on its neighbours in the batch nor on what
  came before;
* be deterministic in :meth:`BatchTransform.apply`, given the parameters;
* add keys and never edit a tensor of the batch in place;
* refuse wrong shapes, other scales and NaN with :class:`synthpipe.errors.ShapeError`.

Those that are tensor operations alone are :class:`DeviceTransform`: a stream captures them in one CUDA graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.transforms.batch import Batch, repeated, select_samples

__all__ = ["Batch", "BatchTransform", "DeviceTransform", "check_rows"]


class BatchTransform(ABC):
    """One stage on the device; see the module's docstring for what a subclass must keep."""

    #: Folded into every sample's seed, so that two transforms never share random numbers.
    salt: str = ""

    #: Rows that come out for each sample, one after the other: above 1 for a degradation that makes several versions.
    samples: int = 1

    #: Whether the batch must hold ``seen``: draws that change while a stream runs.
    needs_seen: bool = False

    #: Whether :meth:`ways` has something to say.
    has_choices: bool = False

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

    def check_tiles(self, height: int, width: int) -> None:  # noqa: B027  # most take any size
        """Refuse tiles of a size that the transform cannot work on, before any is read; by default none.

        Raises:
            OptionError: says what to change.
        """

    def ways(self, seed: Tensor, seen: Tensor) -> Counter[str]:
        """How many of these samples go each of several ways, by name; empty where there is only one.

        Args:
            seed: ``(B,)`` int64, on the CPU.
            seen: likewise.
        """
        return Counter()


class DeviceTransform(BatchTransform):
    """A transform of tensors alone, whose randomness is a function of the samples' seeds: it can be a CUDA graph.

    :meth:`compute` MUST

    * ask the device for no value (``item``, ``tolist``, ``bool``, ``nonzero``, indices that are masks);
    * make no tensor of the host's data (``torch.tensor``, ``new_tensor``, a CPU tensor moved): constants are buffers of
      a module, or filled;
    * drop no sample (it is :attr:`samples` rows in what comes out), and compute each from itself alone.
    """

    @abstractmethod
    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A new dictionary with this stage's keys added.

        Args:
            batch: ``gt`` ``(B, 3, H, W)`` float32 in [0, 1], ``seed`` ``(B,)`` int64, and what earlier transforms
                added, all on one device.

        Returns:
            The same and more.  ``keep`` ``(B,)`` bool, where it is there, is false for samples to drop.  NaN that comes
            in goes out.
        """

    def check(self, batch: Batch) -> None:
        """Refuse what :meth:`compute` cannot work on; raises :class:`synthpipe.errors.ShapeError`."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        """Nothing: the seeds are all that is random."""
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        """Check, compute, and leave out what is to be dropped."""
        self.check(batch)
        out = self.all_rows(batch)
        keep = out.pop("keep", None)
        if keep is None or bool(keep.all()):
            return out
        return select_samples(out, keep.nonzero()[:, 0])

    def all_rows(self, batch: Batch) -> Batch:
        """:meth:`apply` of a batch that needs no check; what is to be dropped is still there, beside ``keep``."""
        device = batch["gt"].device
        computed = self.computed({key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)})
        lists = {key: value for key, value in batch.items() if not isinstance(value, Tensor)}
        out = {**{key: repeated(value, self.samples) for key, value in lists.items()}, **computed}
        if "seed" in batch:
            out["seed"] = repeated(batch["seed"], self.samples)
        return out

    def computed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What :meth:`compute` gives, with ``seed``; its shapes and dtypes are checked, which asks the device nothing.

        Raises:
            ShapeError: :meth:`compute` breaks its contract.
        """
        name, rows = type(self).__name__, len(batch["gt"]) * self.samples
        made = dict(self.compute(batch))
        if "seed" in batch:
            made.setdefault("seed", repeated(batch["seed"], self.samples))
        check_rows(name, made, rows)
        keep = made.get("keep")
        if keep is not None and (keep.dtype != torch.bool or keep.shape != (rows,)):
            raise ShapeError(f"{name}: keep must be {rows} bools, got {keep.dtype} of shape {tuple(keep.shape)}")
        return made


def check_rows(name: str, batch: Batch, rows: int) -> None:
    """Refuse what a transform made if it is no batch of so many samples.

    Args:
        name: of the transform, for the error.
        batch: what it made.
        rows: how many samples it must hold.

    Raises:
        ShapeError: no ``gt``, images that are not floating-point, or tensors and lists of another length.
    """
    if "gt" not in batch:
        raise ShapeError(f"{name}: gave {sorted(batch)} and no gt; hand on what the batch holds")
    for key in ("gt", "lq", "seed", "key", "gt_path"):
        if key in batch and len(batch[key]) != rows:
            raise ShapeError(f"{name}: {key} must have {rows} rows, got {len(batch[key])}")
        if key in ("gt", "lq") and key in batch and not batch[key].is_floating_point():
            raise ShapeError(f"{name}: {key} must be floating-point in [0, 1], got {batch[key].dtype}")

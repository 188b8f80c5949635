"""What a generator imitates: points of a known law, a file of samples, or crops of images, as batches with state.

Batches are ``{"x": (B, *shape), "slot": numbers, "step": int}``.  A slot is a block of samples that share one
generator: one image, or up to ``BLOCK`` points, for which one generator each would cost more than the networks.
"""

from __future__ import annotations

from typing import Any, TypeAlias, assert_never

import numpy as np
import torch
from torch import Tensor

from synthpipe.array_file import read_npy
from synthpipe.config.dde_generator import ArrayData, ImageData, PointData
from synthpipe.density.point_sets import PointSet, point_set
from synthpipe.errors import OptionError, TrainingError, shortened
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.base import BatchSource, resumed_step
from synthpipe.training.data.readers import read_domain
from synthpipe.transforms.batch import Batch

__all__ = ["BLOCK", "ArraySource", "ImageSource", "PointSource", "build_source", "read_array", "sample_shape"]

#: Options of what a generator imitates.
GeneratorData: TypeAlias = PointData | ArrayData | ImageData
#: Points that share a generator.
BLOCK = 256
#: Points that a picture shows for every image that is asked for.
_POINTS_PER_IMAGE = 5000


def sample_shape(options: GeneratorData) -> tuple[int, ...]:
    """Shape of one sample: ``(d,)`` or ``(C, H, W)``.

    Raises:
        OptionError: a file that cannot be used.
    """
    match options:
        case PointData():
            return (2,)
        case ArrayData():
            return tuple(read_array(options.file).shape[1:])
        case ImageData():
            return (options.channels, options.crop, options.crop)
        case _:
            assert_never(options)


def build_source(options: GeneratorData, seed: int, rank: int = 0, world_size: int = 1) -> BatchSource:
    """The source that ``options`` describe, for the only process of a run.

    Raises:
        OptionError: a file or name that cannot be used, or several processes.
        TrainingError: no usable images.
    """
    if world_size != 1:
        raise OptionError(
            f"kind dde_generator trains in one process, got {world_size}: the generator rests in most steps, which "
            "data-parallel training does not allow; start it without torchrun"
        )
    match options:
        case PointData():
            return PointSource(point_set(options.name), options.batch_size, seed)
        case ArrayData():
            return ArraySource(options.file, options.batch_size, seed)
        case ImageData():
            return ImageSource(options, seed)
        case _:
            assert_never(options)


def read_array(file: str) -> Tensor:
    """``(N, d)`` or ``(N, C, H, W)`` float32 from a ``.npy`` file; uint8 becomes [0, 1].

    Raises:
        OptionError: no such file, or an array of another kind.
    """
    try:
        array = read_npy(file)
    except (OSError, ValueError) as error:
        raise OptionError(f"data.file {file!r}: expected a NumPy file (.npy), {shortened(str(error))}") from error
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "fu":
        kind = f"{array.dtype} {array.shape}"
        raise OptionError(
            f"data.file {file!r}: expected points (N, d) or images (N, H, W) or (N, C, H, W) in floating point or "
            f"uint8, got {kind}"
        )
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        raise OptionError(f"data.file {file!r}: expected floating point or uint8, got {array.dtype}")
    if array.dtype.itemsize > 8:
        raise OptionError(f"data.file {file!r}: expected numbers of at most 64 bits, got {array.dtype}")
    # Torch knows the machine's own order of bytes alone.
    values = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False)).float()
    values = values / 255 if array.dtype == np.uint8 else values
    values = values[:, None] if values.ndim == 3 else values
    if values.numel() == 0 or not bool(values.isfinite().all()):
        raise OptionError(f"data.file {file!r}: expected finite values, got {tuple(array.shape)} with NaN or none")
    if values.ndim == 4 and not 0 <= float(values.min()) <= float(values.max()) <= 1:
        raise OptionError(
            f"data.file {file!r}: images must be in [0, 1], got {float(values.min()):g} to {float(values.max()):g}"
        )
    return values


class PointSource:
    """Fresh points in every step, a function of (seed, step).

    Args:
        points: the law.
        batch_size: points per step.
        seed: of the run.
    """

    def __init__(self, points: PointSet, batch_size: int, seed: int) -> None:
        self._points, self._batch_size, self._seed = points, batch_size, seed
        self._step = 0

    def next_batch(self) -> Batch:
        """``x`` ``(B, 2)`` float32."""
        generator = generator_for(sample_seed(self._seed, self._step, "points"), self._points.name)
        x = self._points.sample(self._batch_size, generator)
        batch = {"x": x, "slot": list(range(-(-len(x) // BLOCK))), "step": self._step}
        self._step += 1
        return batch

    def example(self, count: int) -> Batch:
        """Some thousand points that no step uses."""
        generator = generator_for(sample_seed(self._seed, -1, "points"), self._points.name)
        return {"x": self._points.sample(_POINTS_PER_IMAGE * count, generator), "slot": [0], "step": 0}

    def describe(self) -> dict[str, Any]:
        """The set's name."""
        return {"points": self._points.name}

    def state_dict(self) -> dict[str, Any]:
        """The number of the next step."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the step of ``state``."""
        self._step = resumed_step(state)

    def close(self) -> None:
        """Nothing to stop."""


class ArraySource:
    """Samples drawn with replacement from a file, a function of (seed, step).

    Args:
        file: as :func:`read_array` takes it.
        batch_size: samples per step.
        seed: of the run.

    Raises:
        OptionError: a file that cannot be used.
    """

    def __init__(self, file: str, batch_size: int, seed: int) -> None:
        self._file, self._batch_size, self._seed = file, batch_size, seed
        self._values = read_array(file)
        self._step = 0

    def next_batch(self) -> Batch:
        """``x`` ``(B, *shape)`` float32."""
        batch = self._drawn(self._step, self._batch_size)
        self._step += 1
        return batch

    def example(self, count: int) -> Batch:
        """``count`` images, or some thousand points, that are the same at every call."""
        return self._drawn(-1, count if self._values.ndim == 4 else _POINTS_PER_IMAGE * count)

    def describe(self) -> dict[str, Any]:
        """The file and the shape of what is in it."""
        return {"file": self._file, "shape": list(self._values.shape)}

    def state_dict(self) -> dict[str, Any]:
        """The number of the next step, and what the file held."""
        return {"step": self._step, "shape": list(self._values.shape), "sum": float(self._values.double().sum())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the step of ``state``.

        Raises:
            TrainingError: the file holds something else than when the state was saved.
        """
        now = self.state_dict()
        if (state["shape"], state["sum"]) != (now["shape"], now["sum"]):
            raise TrainingError(
                f"data.file {self._file!r} does not hold what the run that is to be resumed used: was "
                f"{state['shape']} with sum {state['sum']}, is {now['shape']} with {now['sum']}; put it back, or "
                "start a new run_dir"
            )
        self._step = resumed_step(state)

    def close(self) -> None:
        """Nothing to stop."""

    def _drawn(self, step: int, count: int) -> Batch:
        generator = generator_for(sample_seed(self._seed, step, "array"), "rows")
        rows = torch.randint(len(self._values), (count,), generator=generator)
        slots = count if self._values.ndim == 4 else -(-count // BLOCK)
        return {"x": self._values[rows], "slot": list(range(slots)), "step": step}


class ImageSource:
    """Crops of images as :mod:`synthpipe.training.data.unpaired` reads them, of one domain.

    Args:
        options: where from, and how they are cropped.
        seed: of the run.

    Raises:
        TrainingError: no usable images.
    """

    def __init__(self, options: ImageData, seed: int) -> None:
        self._slots = range(options.batch_size)
        self._reader = read_domain("data", options.source, options, options.crop, self._slots, seed)
        self._step = 0

    def next_batch(self) -> Batch:
        """``x`` ``(B, 3, crop, crop)`` uint8."""
        x, keys = self._reader.next()
        batch = {"x": x, "key": keys, "slot": list(self._slots), "step": self._step}
        self._step += 1
        return batch

    def example(self, count: int) -> Batch | None:
        """``count`` crops that no step uses; None with shards."""
        crops = self._reader.example(count)
        return None if crops is None else {"x": crops[0], "slot": list(range(count)), "step": 0}

    def describe(self) -> dict[str, Any]:
        """Folders or shards, images used and skipped."""
        return self._reader.describe()

    def state_dict(self) -> dict[str, Any]:
        """Where the reader stands."""
        return {"step": self._step, "reader": self._reader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self._step = resumed_step(state)
        self._reader.load_state_dict(state["reader"])

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.close()

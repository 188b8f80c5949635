"""What a CUDA graph would not take of a transform, found without a GPU; for every ``DeviceTransform``.

:class:`RefuseHost` watches each operation of a block and refuses

* questions that only the host can go on from: ``.item()``, ``bool(tensor)``, ``torch.equal`` (``.tolist()`` and
  ``.numpy()`` of a CPU tensor are no operations: they fail on ``meta``, below), and what has a size that depends on
  values (``nonzero``, ``masked_select``, ``unique``, ``repeat_interleave`` by a tensor);
* indexing by a mask or a list of Python numbers, reading and writing;
* tensors made from data of the host (``torch.tensor``, ``new_tensor``), and copies between devices;
* operations on tensors of two devices, numbers of the host (0 dimensions) included;
* random numbers from a generator: they would not be the sample's own;
* solvers and decompositions off the CPU: libraries behind them wait for the device.

:func:`check_capturable` runs ``compute`` under it twice: on the CPU, with numbers, and on the ``meta`` device, which
has shapes alone, so that the paths that are not the CPU's are walked as well and constants that ``to`` left behind are
found.  Then it records the operations for one batch and replays them on another: what depends on values by way of the
host comes out wrong there, as it would from a CUDA graph.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol
from unittest import mock

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Recording", "RefuseHost", "check_capturable"]

Tensors = dict[str, Tensor]

#: Tags of PyTorch's own table of operations.
_TAGS = {
    torch.Tag.data_dependent_output: "asks the device for a value",
    torch.Tag.dynamic_output_shape: "has a size that depends on values",
    torch.Tag.nondeterministic_seeded: "draws from a generator instead of the samples' seeds",
}
_FROM_HOST = ("lift", "lift_fresh", "lift_fresh_copy")
_MAY_INDEX = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
_SOLVERS = ("linalg_", "_linalg_", "cholesky", "triangular_solve", "lu_", "inverse", "geqrf", "ormqr")
_NO_SOLVERS = ("linalg_vector_norm", "linalg_cross", "linalg_diagonal")


class Computes(Protocol):
    """What is asked of a transform here; a ``DeviceTransform`` has it."""

    samples: int

    def compute(self, batch: Tensors) -> Tensors: ...
    def to(self, device: torch.device | str) -> Any: ...


class RefuseHost(TorchDispatchMode):
    """AssertionError at the first operation in the block that a CUDA graph would not take; see the module."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        reason = _reason(func, args, kwargs)
        assert reason is None, f"{func}: {reason}; a CUDA graph cannot hold it"
        return func(*args, **kwargs)


def _reason(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why this call is refused; None where it is not."""
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if name in _MAY_INDEX:
        places = [place for place in args[1] if place is not None]
        if any(place.dtype in (torch.bool, torch.uint8) for place in places):
            return "indexes by a mask"
        if any(place.device != args[0].device for place in places):
            return "indexes by numbers of the host"
    elif name in _FROM_HOST:
        return "makes a tensor from data of the host"
    else:
        tag = next((tag for tag in _TAGS if tag in func.tags), None)
        if tag is not None:
            return _TAGS[tag]
    devices = {tensor.device for tensor in tensors}
    if name.startswith(_SOLVERS) and name not in _NO_SOLVERS and devices != {torch.device("cpu")}:
        return "solves by a library that may wait for the device"
    if "device" in kwargs and kwargs["device"] is not None:
        devices.add(torch.device(kwargs["device"]))
    return f"meets tensors of {sorted(map(str, devices))}" if len(devices) > 1 else None


class Recording(TorchDispatchMode):
    """Notes each operation in the block, as a CUDA graph does, to be done again on other inputs."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self, inputs: Sequence[Tensor], others: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
        """What ``outputs``, made from ``inputs`` in the block, are for ``others``; what is neither is a constant."""
        known = {_memory(old): new for old, new in zip(inputs, others, strict=True)}

        def now(leaf: Any) -> Any:
            """The tensor that stands for one of then."""
            return known.get(_memory(leaf), leaf) if isinstance(leaf, Tensor) else leaf

        for func, args, kwargs, out in self._calls:
            again = func(*tree_map(now, args), **tree_map(now, kwargs))
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor):
                    known[_memory(old)] = new
        return [now(output) for output in outputs]


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Tells tensors apart while all are alive; autograd makes further objects of one."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def check_capturable(transform: Computes, batch: Tensors, other: Tensors, *, atol: float = 0.0) -> None:
    """The contract of ``compute``, as far as it can be told without a GPU.

    Args:
        transform: on the CPU.
        batch: ``gt`` ``(B, 3, H, W)``, ``seed`` ``(B,)`` and whatever else the transform reads; B of at least 2.
        other: different values of the same shapes.
        atol: by how much a sample may differ when it is computed alone: convolutions of another batch may sum in
            another order.
    """
    assert all(batch[key].shape == other[key].shape for key in batch), "two batches of the same shapes, please"
    given = {key: value.clone() for key, value in batch.items()}
    with torch.no_grad(), RefuseHost():
        result = transform.compute(dict(batch))
    assert all(torch.equal(batch[key], given[key]) for key in batch), "the batch was edited"
    _check_lengths(result, len(batch["gt"]) * transform.samples)
    _check_apart(transform, batch, result, atol)
    _check_elsewhere(transform, batch, result)
    _check_replay(transform.compute, batch, other)


def _check_lengths(result: Tensors, count: int) -> None:
    """Every key has ``count`` samples; ``keep`` is a mask."""
    lengths = {key: len(value) for key, value in result.items()}
    assert lengths == dict.fromkeys(result, count), f"of {count} samples came {lengths}"
    if "keep" in result:
        kept = result["keep"]
        assert (kept.dtype, kept.shape) == (torch.bool, (count,)), f"keep is {kept.dtype} {tuple(kept.shape)}"


def _check_apart(transform: Computes, batch: Tensors, result: Tensors, atol: float) -> None:
    """A sample alone, and the first ones before repeated rows (a padded batch), come out as they did."""
    count = len(batch["gt"])
    for rows in ([0], [count - 1], [*range(count - 1), count - 2, count - 2]):
        with torch.no_grad():
            few = transform.compute({key: value[rows] for key, value in batch.items()})
        copies = [row * transform.samples + copy for row in rows for copy in range(transform.samples)]
        for key, value in few.items():
            assert_close(
                value, result[key][copies], atol=atol, rtol=0, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}"
            )


def _check_elsewhere(transform: Computes, batch: Tensors, result: Tensors) -> None:
    """On another device nothing of the CPU is met, and shapes are the same."""
    moved = copy.deepcopy(transform)
    moved.to("meta")
    given = {key: value.to("meta") for key, value in batch.items()}
    # Autocast knows no meta device.
    with torch.no_grad(), RefuseHost(), mock.patch("torch.autocast", return_value=contextlib.nullcontext()):
        there = moved.compute(given)
    shapes = {key: (value.dtype, value.shape) for key, value in result.items()}
    shapes_there = {key: (value.dtype, value.shape) for key, value in there.items()}
    assert shapes_there == shapes, f"elsewhere {shapes_there}, on the CPU {shapes}"
    assert {value.device.type for value in there.values()} == {"meta"}, "a result is not where the batch is"


def _check_replay(compute: Callable[[Tensors], Tensors], batch: Tensors, other: Tensors) -> None:
    """The operations recorded for ``batch`` give for ``other`` what ``compute`` gives for it."""
    with torch.no_grad():
        with Recording() as recording:
            result = compute(dict(batch))
        expected = compute(dict(other))
        replayed = recording.replay([batch[key] for key in batch], [other[key] for key in batch], [*result.values()])
    for name, found in zip(result, replayed, strict=True):
        same = expected[name]
        assert_close(found, same, atol=0, rtol=0, equal_nan=True, msg=lambda m, k=name: f"replayed {k}: {m}")

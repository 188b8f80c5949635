"""What a CUDA graph would not take of a transform, found without a GPU; for every ``DeviceTransform``.

:class:`RefuseHost` watches each operation of a block and refuses

* questions that only the host can go on from: ``.item()``, ``bool(tensor)``, ``torch.equal`` (``.tolist()`` and
  ``.numpy()`` of a CPU tensor are no operations: they fail on ``meta``, below), and what has a size that depends on
  values (``nonzero``, ``masked_select``, ``unique``, ``repeat_interleave`` by a tensor);
* indexing by a mask or a list of Python numbers, reading and writing;
* tensors made from data of the host (``torch.tensor``, ``new_tensor``), and copies between devices;
* operations on tensors of two devices, numbers of the host (0 dimensions) included;
* random numbers from a generator: they would not be the sample's own;
* solvers and decompositions: libraries behind them wait for the device.

:func:`check_capturable` runs ``compute`` under it twice: on the CPU, with numbers, and on the ``meta`` device, which
has shapes alone, so that the paths that are not the CPU's are walked as well and constants that ``to`` left behind are
found.  Then it records the operations for one batch and replays them on another: what depends on values by way of the
host comes out wrong there, as it would from a CUDA graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["RefuseHost", "check_capturable"]

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
    if name.startswith(_SOLVERS) and name not in _NO_SOLVERS:
        return "solves by a library that may wait for the device"
    devices = {tensor.device for tensor in tensors}
    if "device" in kwargs and kwargs["device"] is not None:
        devices.add(torch.device(kwargs["device"]))
    return f"meets tensors of {sorted(map(str, devices))}" if len(devices) > 1 else None


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
    _check_lengths(result, len(batch["gt"]))
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
        for key, value in few.items():
            assert_close(value, result[key][rows], atol=atol, rtol=0, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}")


def _check_elsewhere(transform: Computes, batch: Tensors, result: Tensors) -> None:
    """On another device nothing of the CPU is met, and shapes are the same."""
    moved = copy.deepcopy(transform)
    moved.to("meta")
    given = {key: value.to("meta") for key, value in batch.items()}
    with torch.no_grad(), RefuseHost():
        there = moved.compute(given)
    shapes = {key: (value.dtype, value.shape) for key, value in result.items()}
    shapes_there = {key: (value.dtype, value.shape) for key, value in there.items()}
    assert shapes_there == shapes, f"elsewhere {shapes_there}, on the CPU {shapes}"
    assert {value.device.type for value in there.values()} == {"meta"}, "a result is not where the batch is"


def _check_replay(compute: Callable[[Tensors], Tensors], batch: Tensors, other: Tensors) -> None:
    """The operations recorded for ``batch`` give for ``other`` what ``compute`` gives for it."""
    keys = list(batch)
    names: list[str] = []

    def of_tensors(*values: Tensor) -> list[Tensor]:
        """As a graph sees it: tensors in, tensors out."""
        result = compute(dict(zip(keys, values, strict=True)))
        names[:] = result
        return [result[name] for name in names]

    with torch.no_grad():
        recorded = make_fx(of_tensors)(*(batch[key] for key in keys))
        replayed = dict(zip(names, recorded(*(other[key] for key in keys)), strict=True))
        expected = compute(dict(other))
    for name, value in expected.items():
        assert_close(replayed[name], value, atol=0, rtol=0, equal_nan=True, msg=lambda m, k=name: f"replayed {k}: {m}")

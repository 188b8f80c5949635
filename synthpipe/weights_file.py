"""Safetensors files of synthpipe: the header that says what they hold, and the tensors, each checked."""

from __future__ import annotations

import json
import mmap
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from synthpipe.errors import CheckpointError, excerpt, shortened
from synthpipe.json_text import parse_json

__all__ = ["HEADER_KEY", "MAX_HEADER_BYTES", "halved", "read_header", "read_weights", "write_header"]

#: In the metadata of the safetensors format.
HEADER_KEY = "synthpipe"
#: Of the format's own header, with ours in it.
MAX_HEADER_BYTES = 1 << 24

#: Numbers of a tensor from which on it is worth halving; smaller ones, biases and logarithms of scales, stay whole.
_LEAST_HALVED = 256
#: Rounding of float16, relative to the number.
_HALF_ROUNDING = 2.0**-11

_REQUIRED: dict[str, type] = {"kind": str, "config": dict, "synthpipe": str, "size_multiple": int, "info": dict}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def write_header(header: dict[str, Any]) -> dict[str, str]:
    """The format's metadata that :func:`read_header` reads."""
    return {HEADER_KEY: json.dumps(header, sort_keys=True)}


def halved(tensors: dict[str, Tensor], exact: Container[str] = ()) -> dict[str, Tensor]:
    """Large tensors of float32 as float16, all others as they are.

    A number is off by at most 2^-11 of the largest one of its tensor.  A tensor stays as it is where float16 cannot
    hold that (numbers beyond 65504, or all of them near 0), and where it has fewer than 256 numbers.

    Args:
        tensors: by name.
        exact: names of those that become float16 only where nothing is lost.
    """
    return {name: _half_or_whole(value, 0.0 if name in exact else _HALF_ROUNDING) for name, value in tensors.items()}


def _half_or_whole(value: Tensor, error: float) -> Tensor:
    if value.dtype != torch.float32 or value.numel() < _LEAST_HALVED:
        return value
    half = value.to(torch.float16)
    # Infinity is no smaller than anything, so that what float16 cannot hold stays whole.
    near_enough = (half.to(torch.float32) - value).abs().max() <= error * value.abs().max()
    return half if bool(near_enough) else value


def read_header(path: Path) -> dict[str, Any]:
    """Our header: ``kind``, ``config``, ``synthpipe``, ``size_multiple`` and ``info``, of these types.

    Raises:
        CheckpointError: not safetensors, not written by synthpipe, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({shortened(str(error))})") from error
    return _header(path, metadata)


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if HEADER_KEY not in metadata:
        raise CheckpointError(
            f"{path}: safetensors without a synthpipe header; official DeFlow weights are brought in "
            "by `synthpipe import-deflow`"
        )
    try:
        header = parse_json(metadata[HEADER_KEY], MAX_HEADER_BYTES)
    except ValueError as error:
        raise CheckpointError(f"{path}: the synthpipe header is damaged ({shortened(str(error))})") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the synthpipe header is damaged: expected an object, got {excerpt(header)}")
    missing = [key for key in _REQUIRED if key not in header]
    if missing:
        raise CheckpointError(f"{path}: the synthpipe header lacks {missing}")
    for key, kind in _REQUIRED.items():
        if not isinstance(header[key], kind) or (kind is int and (isinstance(header[key], bool) or header[key] < 1)):
            expected = {str: "a text", dict: "an object", int: "a number from 1"}[kind]
            raise CheckpointError(
                f"{path}: the synthpipe header is damaged: expected {expected} as {key!r}, got {excerpt(header[key])}"
            )
    return header


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header, and all tensors of a file by name, finite; views of the mapped file, to be copied.

    Raises:
        CheckpointError: as :func:`read_header`; a type of numbers that no model has, NaN or infinity.
    """
    entries = _entries(path)
    header = _header(path, entries.pop("__metadata__", None) or {})
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    begin = 8 + int.from_bytes(mapped[:8], "little")
    tensors = {}
    for name, entry in entries.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(
                f"{path}: tensor {shortened(name)!r} is of type {entry['dtype']}, expected one of {', '.join(_DTYPES)}"
            )
        first, last = entry["data_offsets"]
        if first == last:
            tensors[name] = torch.empty(entry["shape"], dtype=dtype)
        else:
            count = (last - first) // dtype.itemsize
            flat = torch.frombuffer(mapped, dtype=dtype, count=count, offset=begin + first)
            tensors[name] = flat.view(entry["shape"])
    _require_finite(path, tensors)
    return header, tensors


def _entries(path: Path) -> dict[str, Any]:
    """What the format's header says of each tensor; the library has checked types, sizes and places."""
    try:
        with safe_open(path, framework="pt"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(f"{path}: expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}")
            entries: dict[str, Any] = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({shortened(str(error))})") from error
    return entries


def _require_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    floating = {name: value for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    # One look at all sums; where one is not finite, it may still be a sum of large numbers.
    sums = [value.sum() for value in floating.values()]
    if len({value.dtype for value in sums}) > 1:
        sums = [value.double() for value in sums]
    if not sums or bool(torch.stack(sums).isfinite().all()):
        return
    for name, value in floating.items():
        if not bool(value.isfinite().all()):
            raise CheckpointError(f"{path}: tensor {shortened(name)!r} holds NaN or infinity; the weights are damaged")

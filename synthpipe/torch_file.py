"""Files of ``torch.save`` that anyone may have written: plain values and tensors, nothing in them executed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthpipe.errors import CheckpointError, shortened

__all__ = ["read_torch_file", "require_plain_tensor"]

#: Times the bytes of the file that its records may come to: torch.save compresses nothing.
MAX_EXPANSION = 2


def read_torch_file(path: str | Path) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        CheckpointError: a file that cannot be read, is torn or no such file, would become much larger in memory, or
            holds Python objects, which are never executed.
    """
    path = Path(path)
    _refuse_expanding(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load has no one exception for a file that is not its own
        raise CheckpointError(
            f"{path}: expected plain values and tensors of torch.save; the file is damaged or holds other Python "
            f"objects, which are never executed here ({type(error).__name__}: {shortened(_first_sentence(error))})"
        ) from error


def require_plain_tensor(value: Any, name: str) -> Tensor:
    """``value`` where it is a dense tensor on the CPU with memory of its own for every number.

    Raises:
        CheckpointError: anything else, such as a view that repeats one number a billion times.
    """
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{name}: expected a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
        raise CheckpointError(f"{name}: expected a dense tensor on the CPU, got {value.layout} on {value.device}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{name}: a tensor {tuple(value.shape)} that repeats {value.untyped_storage().nbytes()} bytes; expected "
            "one with memory for each number"
        )
    return value


def _refuse_expanding(path: Path) -> None:
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # no archive, or a torn one: torch says so
    if expanded > MAX_EXPANSION * size:
        raise CheckpointError(
            f"{path}: {size} bytes that come to {expanded} in memory, expected at most {MAX_EXPANSION} times as many"
        )


def _first_sentence(error: BaseException) -> str:
    """What follows in torch's messages is how to execute what the file holds."""
    return str(error).partition("\n")[0].partition(". ")[0]

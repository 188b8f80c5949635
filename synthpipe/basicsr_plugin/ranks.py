"""What the ranks of one distributed run agree on and wait for; with one rank, nothing happens here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

__all__ = ["barrier", "first_rank_first", "first_rank_only", "from_first_rank"]


def from_first_rank(value: Any) -> Any:
    """The first rank's value, on every rank."""
    if not torch.distributed.is_initialized():
        return value
    holder = [value]
    torch.distributed.broadcast_object_list(holder, src=0)
    return holder[0]


def barrier() -> None:
    """Wait for all ranks."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def first_rank_first(function: Callable[..., None]) -> Callable[..., None]:
    """``function``, after which all ranks wait for each other."""

    def wrapper(*args: Any) -> None:
        """``function``, then wait for all ranks."""
        function(*args)
        barrier()

    return wrapper


def first_rank_only(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` on the first rank, for which the others wait."""

    def wrapper(*args: Any) -> None:
        """``function`` on the first rank; the others wait for it."""
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            function(*args)
        barrier()

    return wrapper

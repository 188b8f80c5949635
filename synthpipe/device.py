"""Names of devices: ``auto`` is CUDA where there is a CUDA device, and the CPU elsewhere."""

from __future__ import annotations

import torch

from synthpipe.errors import OptionError

__all__ = ["AUTO", "resolve_device"]

AUTO = "auto"


def resolve_device(name: str, option: str = "device") -> str:
    """The device that ``name`` stands for, tried.

    Args:
        name: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        option: what messages call it.

    Raises:
        OptionError: no such device here; says what PyTorch says.
    """
    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"{option}: {name!r} cannot be used here: {error}") from error
    return name

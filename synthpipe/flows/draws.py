"""Noise of a tensor's shape from explicit generators, on whatever device they and the tensor live."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from synthpipe.errors import ShapeError

__all__ = ["Generators", "normal_like", "uniform_like"]

#: One generator for each image, so that its noise does not depend on its neighbours; or one for all.
Generators = Sequence[torch.Generator] | torch.Generator


def normal_like(like: Tensor, generators: Generators | None, name: str) -> Tensor:
    """Standard normal numbers of ``like``'s shape, dtype and device.

    Args:
        like: ``(B, ...)``.
        generators: one per image, or one for all; None: torch's default generator.
        name: of the caller, for the error.

    Raises:
        ShapeError: a wrong number of generators.
    """
    return _draw(torch.randn, like, generators, name)


def uniform_like(like: Tensor, generators: Generators | None, name: str) -> Tensor:
    """Numbers from the uniform law on [0, 1), of ``like``'s shape ``(B, ...)``; as :func:`normal_like` otherwise."""
    return _draw(torch.rand, like, generators, name)


def _draw(kind: Callable[..., Tensor], like: Tensor, generators: Generators | None, name: str) -> Tensor:
    if generators is None or isinstance(generators, torch.Generator):
        device = like.device if generators is None else generators.device
        return kind(like.shape, generator=generators, device=device, dtype=like.dtype).to(like.device)
    if len(generators) != len(like):  # one would give all images the same noise
        raise ShapeError(f"{name}: expected one generator per image, {len(like)}, got {len(generators)}")
    rows = [kind(like.shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in generators]
    return torch.stack(rows).to(like.device)

"""Noise of a tensor's shape: from explicit generators, or from seeds; on whatever device the tensor lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.philox import normals, normals_of, uniforms
from synthpipe.seeds import stream_number

__all__ = ["GeneratorNoise", "Generators", "Noise", "SeededNoise", "as_noise", "normal_like", "uniform_like"]

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


@runtime_checkable
class Noise(Protocol):
    """Random numbers of the shape ``(B, ...)``, dtype and device of ``like``; ``purpose`` tells draws apart.

    The numbers of one image do not depend on the others.
    """

    def normal(self, like: Tensor, purpose: int) -> Tensor:
        """From the standard normal law."""

    def uniform(self, like: Tensor, purpose: int) -> Tensor:
        """From the uniform law on [0, 1)."""


class GeneratorNoise:
    """Numbers drawn in turn, whatever they are for.

    Args:
        generators: one per image, or one for all; None: torch's default generator.
    """

    def __init__(self, generators: Generators | None) -> None:
        self._generators = generators

    def normal(self, like: Tensor, purpose: int) -> Tensor:
        """The next numbers; raises :class:`ShapeError` for a wrong number of generators."""
        return normal_like(like, self._generators, "noise")

    def uniform(self, like: Tensor, purpose: int) -> Tensor:
        """The next numbers; raises as :meth:`normal`."""
        return uniform_like(like, self._generators, "noise")


class SeededNoise:
    """Numbers that are functions of an image's seed, their purpose and their place: the same in any order and batch.

    Nothing is read from the device, so that this can stand inside a CUDA graph.

    Args:
        seeds: ``(B,)`` int64, on the device of the images.
        salt: keeps apart what draws from the same seeds.
        sample: number of the draw, where several are made of one image; 0..2^32 - 1.

    Raises:
        ShapeError: seeds of another type or shape; (by the draws) not one for each image.
    """

    def __init__(self, seeds: Tensor, salt: str = "", sample: int = 0) -> None:
        if seeds.dtype != torch.int64 or seeds.ndim != 1:
            raise ShapeError(f"SeededNoise: expected seeds (B,) int64, got {seeds.dtype} of shape {tuple(seeds.shape)}")
        self._seeds, self._salt, self._sample = seeds, salt, sample

    def normal(self, like: Tensor, purpose: int) -> Tensor:
        """See :func:`synthpipe.philox.normals`."""
        return normals(self._for(like), stream_number(self._salt, purpose), like.shape[1:], like.dtype, self._sample)

    def ahead(self, shapes: Mapping[int, Sequence[int]], dtype: torch.dtype) -> Noise:
        """The same noise with the normal numbers of these purposes, of these shapes, drawn at once.

        Args:
            shapes: of a row, by purpose.
            dtype: float32 or float64.
        """
        streams = {stream_number(self._salt, purpose): shape for purpose, shape in shapes.items()}
        drawn = normals_of(self._seeds, streams, dtype, self._sample)
        return _DrawnAhead(self, dict(zip(shapes, drawn.values(), strict=True)))

    def uniform(self, like: Tensor, purpose: int) -> Tensor:
        """See :func:`synthpipe.philox.uniforms`."""
        return uniforms(self._for(like), stream_number(self._salt, purpose), like.shape[1:], like.dtype, self._sample)

    def _for(self, like: Tensor) -> Tensor:
        if len(self._seeds) != len(like):  # one would give all images the same noise
            raise ShapeError(f"SeededNoise: expected one seed per image, {len(like)}, got {len(self._seeds)}")
        return self._seeds


def as_noise(source: Generators | Noise | None) -> Noise:
    """Noise as it is given, or drawn from generators; None: from torch's default generator."""
    return source if isinstance(source, Noise) else GeneratorNoise(source)


class _DrawnAhead:
    """Some numbers of a noise that are there already."""

    def __init__(self, noise: Noise, drawn: Mapping[int, Tensor]) -> None:
        self._noise, self._drawn = noise, drawn

    def normal(self, like: Tensor, purpose: int) -> Tensor:
        """Those that are there, or what the noise gives."""
        drawn = self._drawn.get(purpose)
        if drawn is None or (drawn.shape, drawn.dtype) != (like.shape, like.dtype):
            return self._noise.normal(like, purpose)
        return drawn

    def uniform(self, like: Tensor, purpose: int) -> Tensor:
        """What the noise gives."""
        return self._noise.uniform(like, purpose)

"""Seeds: every random number of synthpipe comes from one, by a hash that is the same on every machine."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["generator_for", "picture_generators", "sample_seed", "stream_number", "uniforms"]


def sample_seed(seed: int, epoch: int, key: str) -> int:
    """The 63-bit seed of one sample in one epoch, the same on every machine and in every Python."""
    return _hash63(f"{seed}/{epoch}/{key}")


def generator_for(seed: int | Tensor, salt: str) -> torch.Generator:
    """A CPU generator for one sample and one transform; ``salt`` keeps transforms apart.

    >>> import torch
    >>> from synthpipe.seeds import generator_for, sample_seed
    >>> seed = sample_seed(0, epoch=3, key="cat")
    >>> draw, again, other = (torch.rand(4, generator=generator_for(seed, salt)) for salt in ("crop", "crop", "blur"))
    >>> torch.equal(draw, again), torch.equal(draw, other)
    (True, False)
    """
    return torch.Generator().manual_seed(_hash63(f"{int(seed)}/{salt}"))


def picture_generators(seed: int, count: int) -> list[torch.Generator]:
    """CPU generators for ``count`` sample pictures of a training run, the same at every look."""
    return [generator_for(seed, f"picture{place}") for place in range(count)]


def stream_number(salt: str, purpose: int) -> int:
    """32 bits for the draws of one transform and purpose, in counter-based noise (:mod:`synthpipe.philox`)."""
    return _hash63(f"{salt}/{purpose}") & 0xFFFFFFFF


def uniforms(*key: int | str) -> tuple[float, ...]:
    """Eight numbers in [0, 1) from a hash of ``key``: the same on every machine and in every version."""
    digest = hashlib.blake2b(_bytes("/".join(map(str, key))), digest_size=64).digest()
    return tuple((int.from_bytes(digest[at : at + 8], "little") >> 11) * 2.0**-53 for at in range(0, 64, 8))


def _hash63(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(_bytes(text), digest_size=8).digest(), "little") >> 1


def _bytes(text: str) -> bytes:
    # A file's name need not be UTF-8; Python then holds its bytes as lone surrogates.
    return text.encode("utf-8", "surrogatepass")

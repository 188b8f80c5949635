"""The fields of :mod:`synthpipe.philox` by NumPy: the same words on the CPU in a fraction of the time.

A block of counters at a time stays in the processor's cache.  Four words c0 to c3 stand in two of 64 bits, c0 c1 and
c2 c3: a round multiplies the upper halves, and the products meet the lower halves and the key in their own upper
halves, ``(c2 M1) ^ (c1 ^ k0) << 32`` and ``(c0 M0) ^ (c3 ^ k1) << 32``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthpipe.philox import KEY_STEPS, MULTIPLIERS, ROUNDS, WORD

__all__ = ["normal_fields", "uniform_fields"]

_Words = NDArray[np.uint64]
_Floats = NDArray[np.float32]

_HALF = np.uint64(32)
_BOTH = np.array(MULTIPLIERS, np.uint64)[:, None, None]
# Counters of a block: all that is worked on is then less than a megabyte.
_BLOCK = 12_000


def normal_fields(seeds: Tensor, stream: int, channels: int, height: int, width: int) -> Tensor:
    """What :func:`synthpipe.philox.normal_fields` gives, within float rounding; ``seeds`` on the CPU."""
    return _of_each(_normal_field, seeds, stream, channels, height, width)


def uniform_fields(seeds: Tensor, stream: int, channels: int, height: int, width: int) -> Tensor:
    """What :func:`synthpipe.philox.uniform_fields` gives; ``seeds`` on the CPU."""
    return _of_each(_uniform_field, seeds, stream, channels, height, width)


def _of_each(field: Callable[..., _Floats], seeds: Tensor, *place: int) -> Tensor:
    fields = [torch.from_numpy(field(seed, *place))[None] for seed in seeds.tolist()]
    return fields[0] if len(fields) == 1 else torch.cat(fields)


def _normal_field(seed: int, stream: int, channels: int, height: int, width: int) -> _Floats:
    field, quads = _empty(channels, height, width)
    for rows, words in _blocks(seed, stream, channels, height, field.shape[-1] // 4):
        radius, angle = ((half + np.float32(0.5)) * np.float32(2.0**-32) for half in _halves(words, 0))
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        angle *= np.float32(2 * math.pi)
        np.multiply(radius, np.cos(angle), out=quads[:, rows, :, 0])
        np.multiply(radius, np.sin(angle), out=quads[:, rows, :, 1])
    return field[..., :width]


def _uniform_field(seed: int, stream: int, channels: int, height: int, width: int) -> _Floats:
    field, quads = _empty(channels, height, width)
    for rows, words in _blocks(seed, stream, channels, height, field.shape[-1] // 4):
        for place, half in enumerate(_halves(words, 8)):
            np.multiply(half, np.float32(2.0**-24), out=quads[:, rows, :, place])
    return field[..., :width]


def _empty(channels: int, height: int, width: int) -> tuple[_Floats, _Floats]:
    """A field as wide as whole counters, and the same memory as ``(2, channels * height, counters, 2)``."""
    across = -(-width // 4)
    field = np.empty((channels, height, 4 * across), np.float32)
    return field, field.reshape(channels * height, across, 2, 2).transpose(2, 0, 1, 3)


def _halves(words: _Words, dropped: int) -> Iterator[_Floats]:
    """Upper and lower 32 bits, without the last ``dropped`` ones."""
    for half in (words >> _HALF, words & np.uint64(WORD)):
        yield (half >> np.uint64(dropped) if dropped else half).astype(np.float32)


def _blocks(seed: int, stream: int, channels: int, height: int, across: int) -> Iterator[tuple[slice, _Words]]:
    """Rows of all channels, some at a time, and their words ``(2, rows, across)``, to be used before the next come."""
    first, second, *others = _round_keys(seed)
    place = np.arange(channels * height, dtype=np.uint64)[:, None]
    layer, row = place // np.uint64(height) + np.uint64(1), place % np.uint64(height)
    # Of the first two rounds, what is the same along a row: c0 c1 behind the first, and what it adds to the second.
    upper = np.uint64(stream * MULTIPLIERS[1]) ^ (layer << _HALF) ^ first[0]
    upper, lower = upper << _HALF ^ second[0], (upper >> _HALF) * _BOTH[0] ^ second[1]
    row_product = (row << np.uint64(16)) * np.uint64(MULTIPLIERS[0])
    column_product = np.arange(across, dtype=np.uint64) * np.uint64(MULTIPLIERS[0])
    count = max(1, _BLOCK // across)
    scratch = np.empty((2, 2, min(count, len(place)), across), np.uint64)
    for begin in range(0, len(place), count):
        rows = slice(begin, min(begin + count, len(place)))
        words, products = scratch[:, :, : rows.stop - begin]
        np.add(row_product[rows], column_product, out=words[1])
        words[1] ^= first[1]
        np.right_shift(words[1], _HALF, out=words[0])
        words[0] *= np.uint64(MULTIPLIERS[1])
        words[1] <<= _HALF
        words[0] ^= upper[rows]
        words[1] ^= lower[rows]
        for keys in others:
            np.right_shift(words, _HALF, out=products)
            products *= _BOTH
            words <<= _HALF
            words ^= products[::-1]
            words ^= keys
        yield rows, words


def _round_keys(seed: int) -> list[_Words]:
    """``(2, 1, 1)`` for each round: the key's words in the upper halves."""
    words = (seed & WORD, (seed >> 32) & WORD)
    keys = [
        [(word + step * turn & WORD) << 32 for word, step in zip(words, KEY_STEPS, strict=True)]
        for turn in range(ROUNDS)
    ]
    return [np.array(pair, np.uint64)[:, None, None] for pair in keys]

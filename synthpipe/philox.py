"""Counter-based random numbers in tensor operations: a function of (seed, position), on any device and in any batch.

Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3): ten rounds
of 32-bit multiplications turn a 128-bit counter and a 64-bit key into 128 random bits.  The key is a sample's seed,
the counter a position, so that nothing has to be drawn in order, and no generator's state is kept.

Unsigned 32-bit words lie in int64 tensors; products of 64 bits wrap, and masks restore the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = [
    "KEY_STEPS",
    "MULTIPLIERS",
    "ROUNDS",
    "WORD",
    "normal_fields",
    "normals",
    "normals_of",
    "philox_words",
    "uniform_fields",
    "uniforms",
    "uniforms_of",
]

#: What Philox4x32-10 is made of.
WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_FRACTION_BITS = {torch.float16: 11, torch.bfloat16: 8}


def philox_words(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter and key.

    Args:
        counter: four words, int64 in 0..2^32 - 1, of shapes that broadcast with each other and with the key.
        key: two words of the same kind.

    Returns:
        Four words, int64 in 0..2^32 - 1.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in zip(*map(_round_keys, key, KEY_STEPS), strict=True):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        # The shift brings copies of the sign with it, which the mask takes away.
        c0, c1, c2, c3 = (
            ((p1 >> 32) & WORD) ^ c1 ^ k0,
            p1 & WORD,
            ((p0 >> 32) & WORD) ^ c3 ^ k1,
            p0 & WORD,
        )
    return c0, c1, c2, c3


def normals(
    seeds: Tensor, stream: int, shape: Sequence[int], dtype: torch.dtype = torch.float32, sample: int = 0
) -> Tensor:
    """Standard normal numbers ``(B, *shape)``, each row a function of its seed, ``stream`` and ``sample`` alone.

    By Box and Muller's transform of Philox's words; the words are the same on every device, the normals within float
    rounding.  Numbers of another ``shape`` with as many or fewer elements begin with the same values.

    Args:
        seeds: ``(B,)`` int64, on the device where the numbers are wanted.
        stream: tells draws for different purposes apart, 0..2^32 - 1.
        shape: of one row.
        dtype: float32 or float64; narrower ones are rounded from float32.
        sample: tells several draws for one purpose apart, 0..2^32 - 1.
    """
    return normals_of(seeds, {stream: shape}, dtype, sample)[stream]


def normals_of(
    seeds: Tensor, shapes: Mapping[int, Sequence[int]], dtype: torch.dtype = torch.float32, sample: int = 0
) -> dict[int, Tensor]:
    """What :func:`normals` gives for each stream and its shape, in the operations of one call.

    A call is 150 operations on little data: on a GPU several calls would cost several times as much.
    """
    # Half precision holds no 32 bits: infinity would come of them, or coarse steps.
    wide = dtype if dtype == torch.float64 else torch.float32
    uniform = (_words(seeds, shapes, sample).to(wide) + 0.5) * 2.0**-32  # (B, N, 4), above 0
    radius = (-2 * uniform[..., 0::2].log()).sqrt()
    angle = (2 * math.pi) * uniform[..., 1::2]
    return _rows(torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).to(dtype), shapes)


def uniforms(
    seeds: Tensor, stream: int, shape: Sequence[int], dtype: torch.dtype = torch.float32, sample: int = 0
) -> Tensor:
    """Numbers ``(B, *shape)`` from the uniform law on [0, 1), multiples of 2^-24; arguments as :func:`normals`.

    Of 2^-11 in float16 and 2^-8 in bfloat16, which hold no finer ones up to 1.
    """
    shapes, bits = {stream: shape}, _FRACTION_BITS.get(dtype, 24)
    return _rows((_words(seeds, shapes, sample) >> (32 - bits)).to(dtype) * 2.0**-bits, shapes)[stream]


def _round_keys(key: Tensor, step: int) -> Tensor:
    """``(rounds, ...)``: one word of the key of each round."""
    rounds = torch.arange(ROUNDS, device=key.device).view(-1, *[1] * key.ndim)
    return (key + step * rounds) & WORD


def _blocks(shape: Sequence[int]) -> int:
    """Blocks of four words that a row needs."""
    return -(-math.prod(shape) // 4)


def _words(seeds: Tensor, shapes: Mapping[int, Sequence[int]], sample: int) -> Tensor:
    """At least as many words as a row of each stream has elements, ``(B, N, 4)``, stream after stream."""
    device = seeds.device
    blocks = _joined([torch.arange(_blocks(shape), device=device) for shape in shapes.values()])
    streams = _joined([torch.full((_blocks(shape),), stream, device=device) for stream, shape in shapes.items()])
    keys = [(seeds & WORD)[:, None], ((seeds >> 32) & WORD)[:, None]]
    return torch.stack(philox_words([blocks & WORD, blocks >> 32, streams, torch.full_like(blocks, sample)], keys), -1)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _rows(numbers: Tensor, shapes: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
    """``(B, N, ...)``, 4 numbers in each of N, cut as :func:`_words` joined them."""
    flat, begin, rows = numbers.flatten(1), 0, {}
    for stream, shape in shapes.items():
        rows[stream] = flat[:, begin : begin + math.prod(shape)].reshape(len(flat), *shape)
        begin += 4 * _blocks(shape)
    return rows


def normal_fields(seeds: Tensor, stream: int, channels: int, height: int, width: int) -> Tensor:
    """Standard normal numbers ``(B, channels, height, width)`` float32, each a function of seed, stream and place.

    A larger field holds a smaller one in its top left.  By Box and Muller's transform.

    Args:
        seeds: ``(B,)`` int64, on the device where the numbers are wanted.
        stream: tells draws for different purposes apart, 0..2^32 - 1.
        channels: below 2^32 - 1.
        height: below 2^16.
        width: up to 2^18.
    """
    uniform = (_field_words(seeds, stream, channels, height, width).float() + 0.5) * 2.0**-32
    radius = (-2 * uniform[..., 0::2].log()).sqrt()
    angle = (2 * math.pi) * uniform[..., 1::2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(3)[..., :width]


def uniform_fields(seeds: Tensor, stream: int, channels: int, height: int, width: int) -> Tensor:
    """Numbers of the uniform law on [0, 1), multiples of 2^-24; as :func:`normal_fields` otherwise."""
    words = _field_words(seeds, stream, channels, height, width)
    return ((words >> 8).float() * 2.0**-24).flatten(3)[..., :width]


def _field_words(seeds: Tensor, stream: int, channels: int, height: int, width: int) -> Tensor:
    """``(B, channels, height, width / 4, 4)``, rounded up."""
    device = seeds.device
    rows = torch.arange(height, device=device)[:, None] << 16
    places = rows + torch.arange(-(-width // 4), device=device)
    # Counters of :func:`normals` have 0 here up to 2^34 numbers.
    layers = torch.arange(1, channels + 1, device=device)[:, None, None]
    counter = [places, layers, torch.full_like(layers, stream), torch.zeros_like(layers)]
    keys = [(word & WORD)[:, None, None, None] for word in (seeds, seeds >> 32)]
    return torch.stack(philox_words(counter, keys), -1)


def uniforms_of(seeds: Tensor, counts: Mapping[int, int], dtype: torch.dtype = torch.float64) -> dict[int, Tensor]:
    """``(B, count)`` for each stream: what :func:`uniforms` gives, in the operations of one call."""
    shapes = {stream: (count,) for stream, count in counts.items()}
    bits = _FRACTION_BITS.get(dtype, 24)
    return _rows((_words(seeds, shapes, 0) >> (32 - bits)).to(dtype) * 2.0**-bits, shapes)

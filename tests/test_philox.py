"""Counter-based noise: its authors' vectors, its law, and that only seed, stream and position count."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from synthpipe import philox
from synthpipe.errors import ShapeError
from synthpipe.flows.draws import SeededNoise
from synthpipe.philox import normals, normals_of, philox_words, uniforms
from synthpipe.transforms.chains import host_fields

#: `kat_vectors` of Random123 1.14, the authors' own library: counter, key, result of philox4x32 with 10 rounds.
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

#: In tensor operations, and by NumPy.
FIELDS = [philox, host_fields]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_gives_the_authors_vectors(counter: str, key: str, expected: str) -> None:
    result = philox_words(*([torch.tensor([word]) for word in words(text)] for text in (counter, key)))
    assert [int(word) for word in result] == words(expected)


def test_many_counters_and_keys_in_one_call() -> None:
    counters = [[torch.tensor(word) for word in words(counter)] for counter, _, _ in VECTORS]
    keys = [[torch.tensor(word) for word in words(key)] for _, key, _ in VECTORS]
    joined = philox_words(
        [torch.stack(c) for c in zip(*counters, strict=True)], [torch.stack(k) for k in zip(*keys, strict=True)]
    )
    assert torch.stack(joined, 1).tolist() == [words(expected) for _, _, expected in VECTORS]


def test_are_standard_normal() -> None:
    x = normals(torch.arange(4), 0, (250_000,)).double().numpy()
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    for row in x:
        assert stats.kstest(row, "norm").pvalue > 1e-3
    # tails, which a uniform of too few bits would cut off: 1e6 numbers pass 4.5 about 6.8 times
    assert 4.2 < np.abs(x).max() < 6.8


def test_uniform_numbers_are_uniform_and_below_1() -> None:
    x = uniforms(torch.arange(4), 0, (250_000,)).double().numpy()
    assert stats.kstest(x.ravel(), "uniform").pvalue > 0.01
    assert x.min() >= 0
    assert x.max() < 1


def test_neighbouring_seeds_streams_and_positions_are_independent() -> None:
    count = 200_000
    base = normals(torch.tensor([7]), 0, (count,))[0].double()
    others = {
        "next seed": normals(torch.tensor([8]), 0, (count,))[0],
        "a high bit of the seed": normals(torch.tensor([7 + (1 << 40)]), 0, (count,))[0],
        "next stream": normals(torch.tensor([7]), 1, (count,))[0],
        "next sample": normals(torch.tensor([7]), 0, (count,), sample=1)[0],
        "next position": base.roll(1),
        "four positions on": base.roll(4),
    }
    for what, other in others.items():
        for first, second in ((base, other.double()), (base.square(), other.double().square())):
            correlation = float(np.corrcoef(first.numpy(), second.numpy())[0, 1])
            assert abs(correlation) < 5 / count**0.5, what


def test_a_row_depends_on_its_own_seed_alone() -> None:
    seeds = torch.tensor([3, 2**62 + 5, 0, 3])
    together = normals(seeds, 2, (3, 5, 7))
    assert together.shape == (4, 3, 5, 7)
    assert torch.equal(together[0], together[3])
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(normals(seed[None], 2, (3, 5, 7))[0], row)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    seeds = torch.tensor([11, 12])
    assert torch.equal(normals(seeds, 0, (1001,))[:, :7], normals(seeds, 0, (7,)))


def test_several_draws_at_once_are_those_of_each_alone() -> None:
    seeds = torch.tensor([11, 2**62 + 1])
    shapes = {7: (3, 5, 7), 2**32 - 1: (4, 4, 4), 0: (1,), 9: (0,)}
    for dtype in (torch.float32, torch.float64):
        together = normals_of(seeds, shapes, dtype, sample=3)
        assert list(together) == list(shapes)
        for stream, shape in shapes.items():
            assert torch.equal(together[stream], normals(seeds, stream, shape, dtype, sample=3))


def test_float64_is_the_same_draw_to_more_digits() -> None:
    seeds = torch.tensor([1])
    assert_close(normals(seeds, 0, (4096,)).double(), normals(seeds, 0, (4096,), torch.float64), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_same_draw_rounded(dtype: torch.dtype) -> None:
    seeds = torch.tensor([5, -1, 2**63 - 1, -(2**63)])
    x = normals(seeds, 0, (50_000,))
    half = normals(seeds, 0, (50_000,), dtype)
    assert half.dtype == dtype
    assert torch.equal(half, x.to(dtype))
    u = uniforms(seeds, 0, (50_000,), dtype)
    assert u.dtype == dtype
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    # cut off to the bits that there are, and not rounded up to 1
    step = torch.finfo(dtype).eps / 2
    assert torch.equal(u.double(), (uniforms(seeds, 0, (50_000,)).double() / step).floor() * step)


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF, 1 << 31])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_outermost_words_are_finite(monkeypatch: pytest.MonkeyPatch, word: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr("synthpipe.philox.philox_words", lambda counter, key: [torch.full((1, 1), word)] * 4)
    seeds = torch.tensor([1])
    assert bool((normals(seeds, 0, (4,), dtype).abs() < 6.8).all())
    u = uniforms(seeds, 0, (4,), dtype)
    assert bool(((u >= 0) & (u < 1)).all())


def words_by_hand(counter: list[int], seed: int) -> list[int]:
    """The paper's algorithm in Python's whole numbers."""
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for _ in range(10):
        left, right = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [
            (right >> 32) ^ counter[1] ^ key[0],
            right & 0xFFFFFFFF,
            (left >> 32) ^ counter[3] ^ key[1],
            left & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def test_by_hand_is_the_authors() -> None:
    for counter, key, expected in VECTORS:
        low, high = words(key)
        assert words_by_hand(words(counter), low + (high << 32)) == words(expected)


def fields_by_hand(seed: int, stream: int, channels: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal and uniform numbers, from the counters that the documentation gives."""
    normal, uniform = np.empty((2, channels, height, width + 3))
    for channel, row, block in np.ndindex(channels, height, -(-width // 4)):
        four = words_by_hand([(row << 16) | block, channel + 1, stream, 0], seed)
        for pair in (0, 2):
            radius = math.sqrt(-2 * math.log((four[pair] + 0.5) / 2**32))
            angle = 2 * math.pi * (four[pair + 1] + 0.5) / 2**32
            at = 4 * block + pair
            normal[channel, row, at : at + 2] = radius * math.cos(angle), radius * math.sin(angle)
            uniform[channel, row, at : at + 2] = [(word >> 8) / 2**24 for word in four[pair : pair + 2]]
    return normal[..., :width], uniform[..., :width]


@pytest.mark.parametrize("module", FIELDS)
@pytest.mark.parametrize("seed", [0, 12345678901234, 2**63 - 1, -(2**63), -7])
@pytest.mark.parametrize(("stream", "shape"), [(3, (3, 5, 9)), (2**32 - 1, (1, 3, 16)), (0, (2, 1, 2))])
def test_fields_are_those_of_a_count_by_hand(
    seed: int, stream: int, shape: tuple[int, int, int], module: ModuleType
) -> None:
    normal, uniform = fields_by_hand(seed, stream, *shape)
    seeds = torch.tensor([seed])
    # float32 holds an angle of up to 2 pi to 5e-7, a radius of up to 6.7 multiplies that
    np.testing.assert_allclose(module.normal_fields(seeds, stream, *shape)[0].numpy(), normal, atol=4e-6)
    np.testing.assert_array_equal(module.uniform_fields(seeds, stream, *shape)[0].numpy(), uniform)


@pytest.mark.parametrize("name", ["normal_fields", "uniform_fields"])
@pytest.mark.parametrize("module", FIELDS)
def test_a_field_holds_smaller_ones_and_depends_on_its_own_seed_alone(module: ModuleType, name: str) -> None:
    fields = getattr(module, name)
    seeds = torch.tensor([3, 2**62 + 5, -11])
    # several blocks of rows on the host
    whole = fields(seeds, 4, 3, 70, 701)
    for channels, height, width in ((3, 70, 701), (3, 70, 8), (1, 1, 1), (2, 33, 355), (3, 69, 700)):
        assert torch.equal(fields(seeds, 4, channels, height, width), whole[:, :channels, :height, :width])
    for row in range(3):
        assert torch.equal(fields(seeds[row : row + 1], 4, 3, 70, 701)[0], whole[row])
    assert not torch.equal(fields(seeds, 5, 3, 70, 701), whole)


@pytest.mark.parametrize("shape", [(3, 300, 260), (1, 2, 40_000), (5, 1, 1)])
def test_the_host_gives_the_fields_of_tensor_operations(shape: tuple[int, int, int]) -> None:
    seeds = torch.tensor([9, -2])
    assert torch.equal(host_fields.uniform_fields(seeds, 8, *shape), philox.uniform_fields(seeds, 8, *shape))
    assert_close(host_fields.normal_fields(seeds, 8, *shape), philox.normal_fields(seeds, 8, *shape), atol=2e-6, rtol=0)


@pytest.mark.parametrize("module", FIELDS)
def test_fields_have_their_laws_and_no_relation_between_places(module: ModuleType) -> None:
    seeds = torch.arange(2)
    x = module.normal_fields(seeds, 0, 3, 256, 256).double().numpy()
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    u = module.uniform_fields(seeds, 0, 3, 256, 256).double().numpy()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.01
    for axis in range(4):
        for first in (x, x**2):
            second = np.roll(first, 1, axis)
            assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / x.size**0.5, f"along axis {axis}"


def test_seeds_are_64_bit_one_for_each_image() -> None:
    like = torch.empty(3, 2)
    for wrong in (torch.tensor([1, 2, 3], dtype=torch.int32), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1], [2]])):
        with pytest.raises(ShapeError, match=r"expected seeds \(B,\) int64"):
            SeededNoise(wrong)
    for draw in (SeededNoise(torch.tensor([1])).normal, SeededNoise(torch.tensor([1, 2])).uniform):
        with pytest.raises(ShapeError, match="one seed per image, 3, got"):
            draw(like, 0)


@pytest.mark.gpu
def test_a_seed_means_the_same_noise_on_the_gpu() -> None:
    counter = [torch.arange(100_000), torch.full((1,), 0xFFFFFFFF), torch.zeros(1).long(), torch.ones(1).long()]
    key = [torch.tensor([0x89ABCDEF]), torch.tensor([0xFEDCBA98])]
    on_gpu = philox_words([word.cuda() for word in counter], [word.cuda() for word in key])
    for mine, theirs in zip(philox_words(counter, key), on_gpu, strict=True):
        assert torch.equal(mine, theirs.cpu())
    seeds = torch.tensor([5, 6])
    assert_close(normals(seeds.cuda(), 0, (4096,)).cpu(), normals(seeds, 0, (4096,)), atol=1e-5, rtol=1e-5)
    on_gpu = philox.uniform_fields(seeds.cuda(), 1, 3, 40, 70).cpu()
    assert torch.equal(on_gpu, host_fields.uniform_fields(seeds, 1, 3, 40, 70))
    on_gpu = philox.normal_fields(seeds.cuda(), 1, 3, 40, 70).cpu()
    assert_close(on_gpu, host_fields.normal_fields(seeds, 1, 3, 40, 70), atol=1e-5, rtol=1e-5)

"""Plain statistics of tiles, against a brute-force coder, closed forms for white noise, and drawn blocks."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.density.tile_statistics import blockiness, coder_bits, contrast, octave_slopes


def brute_force_bits(levels: list[list[int]]) -> float:
    """The entropy of the errors of the median edge detector, pixel by pixel."""
    errors = []
    for row in range(1, len(levels)):
        for column in range(1, len(levels[0])):
            left, up, corner = levels[row][column - 1], levels[row - 1][column], levels[row - 1][column - 1]
            if corner >= max(left, up):
                guess = min(left, up)
            elif corner <= min(left, up):
                guess = max(left, up)
            else:
                guess = left + up - corner
            errors.append((levels[row][column] - guess) % 256)
    total = len(errors)
    return -sum(count / total * math.log2(count / total) for count in Counter(errors).values())


@given(st.integers(0, 2**31), st.sampled_from([2, 20, 256]))
def test_coder_bits_are_those_of_a_brute_force_coder(seed: int, colours: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(colours, (2, 1, 9, 12), generator=generator)
    bits = coder_bits(levels / 255)
    expected = [brute_force_bits(tile[0].tolist()) for tile in levels]
    assert bits.tolist() == pytest.approx(expected, abs=1e-4)


def test_flat_and_linear_tiles_cost_nothing() -> None:
    ramp = (torch.arange(64.0)[:, None] + torch.arange(64.0)[None]).expand(1, 1, 64, 64) / 255
    assert float(coder_bits(torch.full((1, 1, 64, 64), 0.4))) == pytest.approx(0, abs=1e-5)
    assert float(coder_bits(ramp)) == pytest.approx(0, abs=1e-5)


def test_contrast_counts_grey_levels() -> None:
    tile = torch.zeros(1, 1, 64, 64)
    tile[..., ::2] = 20 / 255  # standard deviation of 10 levels, by n - 1 a little more
    assert float(contrast(tile)) == pytest.approx(math.log(11), abs=1e-3)


@given(st.integers(0, 7), st.integers(0, 7), st.integers(0, 2**31))
def test_blocks_are_found_on_any_grid(top: int, left: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(1, 1, 9, 9, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = 0.02 * torch.randn(1, 1, 64, 64, generator=generator)
    blocked = blocks[..., top : top + 64, left : left + 64] + noise
    assert float(blockiness(blocked)) > 1.5
    assert float(blockiness(0.5 + noise)) < 0.5


def test_the_octaves_of_white_noise_have_their_closed_form() -> None:
    noise = 0.5 + 40 / 255 * torch.randn(4, 1, 256, 256, generator=torch.Generator().manual_seed(3))
    finest, half, quarter, median = octave_slopes(noise).mean(0).tolist()
    # Second differences hold (6 / 4)^2 of the variance, what exceeds a 3x3 mean 8/9; averaging 2x2 leaves a quarter.
    assert finest == pytest.approx(math.log((6 / 4) ** 2 / (8 / 9)), abs=0.03)
    assert half == pytest.approx(math.log(4), abs=0.03)
    assert quarter == pytest.approx(math.log(4), abs=0.05)
    assert median == pytest.approx(math.log(2), abs=0.03)


def test_flat_tiles_have_finite_slopes() -> None:
    assert octave_slopes(torch.full((1, 1, 64, 64), 0.5)).tolist() == [[0.0, 0.0, 0.0, 0.0]]

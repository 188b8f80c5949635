"""Lines under points: exact ones, points above, and bounds at 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthpipe.denoisers.noise_line import lower_line

BRIGHTNESS = torch.linspace(0.1, 0.9, 18, dtype=torch.float64)


def line_of(variance: Tensor, x: Tensor = BRIGHTNESS) -> tuple[float, float]:
    a, b = lower_line(x[None], variance[None])
    return float(a), float(b)


@given(st.floats(0, 0.1), st.floats(1e-6, 0.1))
def test_points_on_a_line(a: float, b: float) -> None:
    assert line_of(a * BRIGHTNESS + b) == pytest.approx((a, b), rel=1e-6, abs=1e-9)


def test_texture_above_the_line_has_little_say() -> None:
    variance = 0.01 * BRIGHTNESS + 0.002
    variance[::4] *= 20
    a, b = line_of(variance)
    assert a == pytest.approx(0.01, rel=0.1)
    assert b == pytest.approx(0.002, rel=0.1)
    slope, intercept = np.polyfit(BRIGHTNESS, variance, 1)  # what all points alike would say
    assert abs(slope - 0.01) + abs(intercept - 0.002) > 0.02


def test_neither_part_is_negative() -> None:
    a, b = line_of(0.02 - 0.015 * BRIGHTNESS)  # falls: a level line
    assert a == 0
    assert 0.005 < b < 0.02
    a, b = line_of(0.02 * BRIGHTNESS - 0.0015)  # meets 0 above no brightness: through the origin
    assert b == 0
    assert 0.01 < a < 0.02


def test_one_brightness_and_none_have_level_lines() -> None:
    assert line_of(torch.full_like(BRIGHTNESS, 0.003), torch.full_like(BRIGHTNESS, 0.5)) == pytest.approx((0, 0.003))
    assert line_of(torch.full_like(BRIGHTNESS, 0.003), torch.zeros_like(BRIGHTNESS)) == pytest.approx((0, 0.003))
    assert line_of(torch.zeros_like(BRIGHTNESS)) == pytest.approx((0, 0), abs=1e-13)


def test_rows_are_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    x, variance = torch.rand(2, 5, 18, generator=generator, dtype=torch.float64).unbind(0)
    together = lower_line(x, variance)
    for place in range(5):
        alone = lower_line(x[place : place + 1], variance[place : place + 1])
        assert [float(part) for part in alone] == pytest.approx([float(part[place]) for part in together], rel=1e-9)

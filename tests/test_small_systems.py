"""Elimination against LAPACK and against exact arithmetic, and what estimates of noise are with it."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from synthpipe.denoisers import noise_level
from synthpipe.small_systems import eliminate, solve_positive


def systems(count: int, size: int, seed: int, stretch: float = 1.0) -> Tensor:
    """Positive definite, ``(count, size, size)`` float64, of a condition that ``stretch`` raises."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(count, size, 2 * size, generator=generator, dtype=torch.float64)
    scale = torch.logspace(0, -stretch, size, dtype=torch.float64)
    return scale[:, None] * (factor @ factor.mT) * scale


@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 3), st.integers(0, 1000))
def test_elimination_solves_as_lapack_does(count: int, size: int, columns: int, seed: int) -> None:
    left = systems(count, size, seed, stretch=1.5)
    right = torch.randn(count, size, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert_close(eliminate(left, right), torch.linalg.solve(left, right), atol=1e-8, rtol=1e-8)


def test_elimination_is_exact_where_numbers_are() -> None:
    left = [[4, 2, 0], [2, 5, 4], [0, 4, 8]]
    right = [2, -5, 8]

    # By Cramer's rule.
    def determinant(m: list[list[int]]) -> int:
        (a, b, c), (d, e, f), (g, h, i) = m
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    exact = [
        Fraction(
            determinant([[*row[:k], r, *row[k + 1 :]] for row, r in zip(left, right, strict=True)]), determinant(left)
        )
        for k in range(3)
    ]
    found = eliminate(torch.tensor(left, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)[:, None])
    assert found[:, 0].tolist() == pytest.approx([float(value) for value in exact], abs=1e-14)


def test_a_large_pivot_costs_no_digits() -> None:
    left, right = 1e12 * systems(4, 9, 3), torch.ones(4, 9, 1, dtype=torch.float64)
    assert_close(1e12 * eliminate(left, right), torch.linalg.solve(left / 1e12, right), atol=1e-12, rtol=1e-10)


def test_off_the_cpu_systems_are_eliminated() -> None:
    left = systems(2, 9, 0).float()
    right = torch.ones(2, 9, 1)
    assert torch.equal(solve_positive(left, right), torch.linalg.solve(left, right))
    assert solve_positive(left.to("meta"), right.to("meta")).shape == (2, 9, 1)


def test_estimates_of_noise_are_the_same_by_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, 3, 97, 131, generator=generator)
    correlated = noise[..., 1:] + noise[..., :-1]
    x = torch.linspace(0.2, 0.8, 130) + torch.tensor([0.002, 0.02, 0.06, 0.1])[:, None, None, None] * correlated
    expected = noise_level.noise_spectrum(x)
    monkeypatch.setattr(
        noise_level, "solve_positive", lambda left, right: eliminate(left.double(), right.double()).float()
    )
    assert_close(noise_level.noise_spectrum(x), expected, atol=0, rtol=1e-4)

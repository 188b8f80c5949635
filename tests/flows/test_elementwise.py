"""Maps of single values against the battery, and against what other libraries say about their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import logit
from torch.testing import assert_close

from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import Sequential
from synthpipe.flows.elementwise import LogitMap, TailMap
from tests.contracts import check_flow_layer, perturbed


def test_battery_logit() -> None:
    x = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = Sequential(LogitMap(), ActNorm(3))  # the battery asks that something trains
    check_flow_layer(perturbed(first), x)
    check_flow_layer(perturbed(first, std=0), 3 * x - 1)  # on the straight parts, too


@pytest.mark.parametrize("std", [0.1, 1.0])
def test_battery_tails(std: float) -> None:
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    check_flow_layer(perturbed(TailMap(3), std=std), x)


def test_logit_is_the_published_map() -> None:
    """``logit(0.05 + 0.9 (255 x + u) / 256)`` with u = 0.5, and the log-determinant of the page plus log(255/256)."""
    x = torch.tensor([0.0, 0.1, 0.5, 254 / 255, 1.0], dtype=torch.float64)[:, None, None, None]
    z, logdet = LogitMap()(x)
    y = 0.05 + 0.9 * (255 * x.flatten().numpy() + 0.5) / 256
    assert_close(z.flatten(), torch.from_numpy(logit(y)), atol=1e-12, rtol=0)
    expected = np.log(0.9) - np.log(y) - np.log(1 - y) + math.log(255 / 256)
    assert_close(logdet, torch.from_numpy(expected), atol=1e-12, rtol=0)


@given(st.floats(-2, 3), st.floats(1e-6, 0.5))
def test_logit_rises_everywhere(x: float, step: float) -> None:
    z, _ = LogitMap()(torch.tensor([x, x + step], dtype=torch.float64)[:, None, None, None])
    assert z[1] > z[0]


def test_tails_start_as_the_identity() -> None:
    x = 3 * torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    z, logdet = TailMap(2)(x)
    assert_close(z, x, atol=1e-5, rtol=1e-5)
    assert_close(logdet, torch.zeros(4), atol=1e-4, rtol=0)


def log_density(layer: TailMap, x: float) -> float:
    """Of x where z is standard normal."""
    z, logdet = layer(torch.tensor(x, dtype=torch.float64).reshape(1, 1, 1, 1))
    return float((-0.5 * z.square() - 0.5 * math.log(2 * math.pi) + logdet).detach())


@pytest.mark.parametrize("raw", [-2.0, 0.0, 2.0])
def test_tails_leave_a_density(raw: float) -> None:
    """It integrates to 1 over x = sinh(t)."""
    layer = perturbed(TailMap(1), std=0)
    torch.nn.init.constant_(layer.raw, raw)  # type: ignore[arg-type]
    torch.nn.init.constant_(layer.logs, 0.3)  # type: ignore[arg-type]

    def weighted(t: float) -> float:
        return math.exp(log_density(layer, math.sinh(t))) * math.cosh(t)  # type: ignore[arg-type]

    assert quad(weighted, -30, 30, limit=200, points=[0.0])[0] == pytest.approx(1, abs=1e-6)


def test_a_small_power_gives_long_tails() -> None:
    """Far out z is (2 x)^d / 2; at the smallest power, 0.25, a value of 10,000 is six standard deviations."""
    layer = TailMap(1).double()
    torch.nn.init.constant_(layer.raw, -20.0)
    z, _ = layer(torch.full((1, 1, 1, 1), 1e4, dtype=torch.float64))
    assert float(z.detach()) == pytest.approx((2e4**0.25 - 2e4**-0.25) / 2, rel=1e-4)
    assert float(z.detach()) < 6

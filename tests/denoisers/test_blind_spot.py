"""Blind-spot networks and their denoiser: exact zeros, counts of the paper, posterior means that limits determine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthpipe.denoisers.blind_spot_dilated import DilatedNet
from tests.blind_spot_contract import check_blind_spot_net, check_reach, leak


def small(depth: int = 3, residual: bool = False) -> DilatedNet:
    return DilatedNet(2, 3, depth=depth, width=3, hole_width=2, head=(4, 3), residual=residual)


class Leaky(DilatedNet):
    """One dilation too small by one."""

    place = 1

    def dilation(self, place: int, hole: int) -> int:
        return super().dilation(place, hole) - (place == self.place)


@pytest.mark.parametrize("depth, residual", [(3, False), (4, True)])
def test_the_dilated_network_keeps_the_contract(depth: int, residual: bool) -> None:
    check_blind_spot_net(lambda: small(depth, residual), covers=depth - 1)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("hole", [0, 1, 3])
def test_a_dilation_too_small_by_one_is_found(place: int, hole: int) -> None:
    net = Leaky(2, 3, depth=3, width=3, hole_width=2, head=(4,)).double()
    net.place = place
    assert leak(net, 12, 13, hole) > 0


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(1, 5), st.booleans(), st.integers(1, 3))
def test_blind_at_any_size(height: int, width: int, hole: int, depth: int, residual: bool, channels: int) -> None:
    net = DilatedNet(channels, 2, depth=depth, width=2, hole_width=1, head=(), residual=residual).double()
    assert leak(net, height, width, hole, every=max(1, height * width // 40)) == 0


def test_window_of_the_published_depth() -> None:
    net = DilatedNet(1, 1, depth=11, width=2, hole_width=1, head=()).double()
    assert 2 * net.reach() + 1 == 43
    check_reach(net, 0, covers=True)

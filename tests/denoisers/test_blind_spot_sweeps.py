"""Our network is blind, sees the window without gaps, and costs a quarter of the four branches."""

from __future__ import annotations

import pytest
import torch

from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet
from synthpipe.denoisers.blind_spot_nets.rotated import RotatedNet
from synthpipe.denoisers.blind_spot_nets.sweeps import SweepNet
from synthpipe.errors import ShapeError
from tests.blind_spot_contract import check_blind_spot_net, leak, own_gradients


def tiny() -> SweepNet:
    return SweepNet(1, 2, deep=(3, 2), up=(2,), full=2, thin=2, head_widths=(4,))


def test_contract() -> None:
    check_blind_spot_net(tiny, covers=-1)


@pytest.mark.parametrize("hole", [0, 1, 2, 3])
def test_sees_everything_within_20_pixels_but_the_hole(hole: int) -> None:
    net = SweepNet(1, 1, deep=(4, 4, 4), up=(4, 4), full=4, thin=4, head_widths=(16,)).double()
    rows, columns = torch.meshgrid(torch.arange(-20, 21), torch.arange(-20, 21), indexing="ij")
    for row, column in ([20, 20], [21, 27], [23, 22], [26, 25]):  # at several places of the pixels that pooling joins
        places = torch.tensor([[row, column]] * 10)  # pooling passes on the largest of 4: several images see them all
        seen = (own_gradients(net, 48, 48, places, hole) != 0).any(0)
        window = seen[row - 20 : row + 21, column - 20 : column + 21]
        assert torch.equal(window, (rows.abs() > hole) | (columns.abs() > hole))


@pytest.mark.parametrize("hole", [0, 2])
def test_blind_with_more_levels(hole: int) -> None:
    net = SweepNet(1, 2, deep=(3, 3, 3, 3), up=(3, 3, 3), full=2, thin=2, head_widths=(4,)).double()
    for height, width in ((19, 34), (33, 16)):
        assert leak(net, height, width, hole, every=7) == 0


@pytest.mark.parametrize("sweep", ["deep", "thin"])
def test_a_shift_too_small_by_one_is_found(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny().double()
    inner = getattr(net, sweep).forward
    # What the sweep says of the row above stands for too small a shift of the row itself.
    monkeypatch.setattr(getattr(net, sweep), "forward", lambda x: inner(x).roll(-1, 2))
    assert leak(net, 9, 10, 0) > 0


def macs_per_pixel(net: BlindSpotNet) -> float:
    macs = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(module, torch.nn.Conv2d)
        macs += module.weight[0].numel() * output.numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    return macs / 64**2


def test_costs_a_quarter_of_four_branches() -> None:
    four = macs_per_pixel(RotatedNet(3, 9))
    assert round(four / 1000) == 1250  # kMAC: blind_spot.md, section 2.5
    assert macs_per_pixel(SweepNet(3, 9)) <= four / 4


def test_what_makes_no_network_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"deep=\[4, 4\], up=\[\]"):
        SweepNet(3, 9, deep=(4, 4), up=())
    with pytest.raises(ShapeError, match="hole of at least 0 pixels on each side, got -1"):
        tiny()(torch.zeros(1, 1, 4, 4), hole=-1)

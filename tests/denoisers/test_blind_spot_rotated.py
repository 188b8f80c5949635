"""The four-branch network is the published one, and blind."""

from __future__ import annotations

import pytest
import torch

from synthpipe.denoisers.blind_spot_nets.half_plane import HalfPlaneUNet
from synthpipe.denoisers.blind_spot_nets.rotated import RotatedNet
from synthpipe.errors import ShapeError
from tests.blind_spot_contract import check_blind_spot_net, leak, own_gradients


def tiny() -> RotatedNet:
    return RotatedNet(1, 2, width=2, levels=1, head_widths=(5,))


def test_contract() -> None:
    check_blind_spot_net(tiny, covers=-1)


@pytest.mark.parametrize("hole", [0, 2])
def test_blind_with_more_levels(hole: int) -> None:
    net = RotatedNet(1, 2, width=2, levels=4, head_widths=()).double()
    for height, width in ((19, 34), (33, 16)):
        assert leak(net, height, width, hole, every=7) == 0


def test_has_the_published_size() -> None:
    net = RotatedNet(3, 9)
    assert sum(p.numel() for p in net.parameters()) == 1_269_129  # 1.27 M in the source


@pytest.mark.parametrize("hole", [0, 1])
def test_sees_everything_near_but_the_hole(hole: int) -> None:
    net = RotatedNet(1, 1, width=4, levels=3, head_widths=(16,)).double()
    rows, columns = torch.meshgrid(torch.arange(33), torch.arange(33), indexing="ij")
    for row, column in ([16, 16], [15, 18]):
        places = torch.tensor([[row, column]] * 4)  # pooling passes on the largest of 4: several images see them all
        seen = (own_gradients(net, 33, 33, places, hole) != 0).any(0)
        assert torch.equal(seen, ((rows - row).abs() > hole) | ((columns - column).abs() > hole))


def test_a_shift_too_small_by_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny().double()
    inner = net.unet.forward
    monkeypatch.setattr(net.unet, "forward", lambda x: inner(x).roll(-1, 2))
    assert leak(net, 9, 10, 0) > 0


def test_the_u_net_looks_up_only_and_no_further_than_it_says() -> None:
    unet = HalfPlaneUNet(1, [3, 4, 3], [4, 4]).double()
    up, side = unet.reach
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(unet(x)[0, :, 43, 33].sum(), x)
    rows, columns = gradient[0, 0].nonzero().unbind(1)
    assert rows.max() == 43
    assert 43 - up <= rows.min() <= 43 - up + 4
    assert 33 - side <= columns.min() <= 33 - side + 3
    assert 33 + side - 3 <= columns.max() <= 33 + side


def test_what_makes_no_network_is_refused() -> None:
    with pytest.raises(ShapeError, match="levels=0"):
        RotatedNet(3, 9, levels=0)
    with pytest.raises(ShapeError, match="hole of at least 0 pixels on each side, got -1"):
        tiny()(torch.zeros(1, 1, 4, 4), hole=-1)

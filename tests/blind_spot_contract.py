"""The battery that every blind-spot network passes; a new one joins by one line in its own test file."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet

Build = Callable[[], BlindSpotNet]

#: Values of one forward pass; keeps the memory of the sweep small.
_CHUNK = 400_000


def check_blind_spot_net(build: Build, covers: int) -> None:
    """The contract of ``synthpipe.denoisers.blind_spot_nets.base``.

    Args:
        build: a tiny network of 1 to 3 channels with random weights, new at each call.
        covers: the largest hole up to which the window of ``reach`` is seen whole but for the hole; -1: none.
    """
    net = build().double()
    for side in range(1, 41):  # every size once in each direction, odd and even with one another
        assert leak(net, side, 41 - side, hole=side % 4) == 0
    for side in range(1, 7):
        for hole in range(4):
            assert leak(net, side, side, hole) == 0
            assert leak(net.eval(), side, side + 1, hole) == 0
    for hole in range(4):
        check_reach(net, hole, covers=hole <= covers)
        check_perturbation(build(), hole)
        check_tiles(net, hole)
    check_images_are_apart(net)
    check_all_weights_train(build())
    check_copies(build())


def own_gradients(net: BlindSpotNet, height: int, width: int, places: Tensor, hole: int) -> Tensor:
    """``(P, H, W)``: for each of the places ``(P, 2)``, how far the output there depends on each input pixel.

    Every place has an image of its own, so that one backward pass serves all; the sum is over absolute values of the
    input's channels and over randomly weighted output channels.
    """
    like = next(net.parameters())
    x = torch.randn(len(places), net.in_channels, height, width, dtype=like.dtype, requires_grad=True)
    out = net(x, hole)
    assert out.shape == (len(places), net.out_channels, height, width)
    at_places = out[torch.arange(len(places)), :, places[:, 0], places[:, 1]]  # (P, C_out)
    (gradient,) = torch.autograd.grad(at_places, x, torch.rand_like(at_places) + 0.5)
    return gradient.abs().sum(1)


def leak(net: BlindSpotNet, height: int, width: int, hole: int, every: int = 1) -> float:
    """The largest dependence of an output on the hole around it, over all pixels of an image (or each ``every``-th)."""
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).reshape(-1, 2)[::every]
    worst = 0.0
    for part in places.split(max(1, _CHUNK // (height * width))):
        worst = max(
            worst, float((own_gradients(net, height, width, part, hole) * _blocks(part, height, width, hole)).max())
        )
    return worst


def _blocks(places: Tensor, height: int, width: int, radius: int) -> Tensor:
    """``(P, H, W)``: whether a pixel is within ``radius`` of the place in both directions."""
    rows = (torch.arange(height) - places[:, :1]).abs() <= radius
    columns = (torch.arange(width) - places[:, 1:]).abs() <= radius
    return rows[:, :, None] & columns[:, None, :]


def check_reach(net: BlindSpotNet, hole: int, covers: bool) -> None:
    """Nothing outside of the window counts; where ``covers``, all that is inside does, but for the hole."""
    reach = net.reach(hole)
    side = 2 * reach + 6
    for shift in (0, 1):  # networks that scale see even and odd pixels differently
        places = torch.tensor([[reach + 2 + shift, reach + 2], [reach + 2, reach + 3]])
        seen = own_gradients(net, side, side, places, hole) != 0
        window = _blocks(places, side, side, reach)
        assert not (seen & ~window).any()
        if covers:
            assert torch.equal(seen, window & ~_blocks(places, side, side, hole))
            assert int(seen[0].sum()) == (2 * reach + 1) ** 2 - (2 * hole + 1) ** 2


def check_tiles(net: BlindSpotNet, hole: int) -> None:
    """A tile that begins at a multiple of the grid gives what the image gives, a reach away from where it was cut."""
    reach, grid = net.reach(hole), net.grid
    side = 2 * reach + grid + 9
    x = torch.randn(1, net.in_channels, side, side, dtype=torch.float64)
    whole = net(x, hole)
    for turn in (0, 1):  # cut at the top and the right, at the left and the bottom
        top, left = (grid, 0) if turn == 0 else (0, grid)
        bottom, right = (side, side - 3) if turn == 0 else (side - 3, side)
        tile = net(x[..., top:bottom, left:right], hole)
        rows, columns = (
            slice(begin + reach * (begin > 0), end - reach * (end < side))
            for begin, end in ((top, bottom), (left, right))
        )
        inner = tile[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        torch.testing.assert_close(inner, whole[..., rows, columns], atol=1e-10, rtol=0)


def check_perturbation(net: BlindSpotNet, hole: int) -> None:
    """Another value of a pixel leaves its own output bit for bit, and moves that of a pixel beyond the hole."""
    x = torch.rand(1, net.in_channels, 13, 16)
    moved = x.clone()
    moved[..., 6, 7] += 100
    before, after = net(x, hole), net(moved, hole)
    block = (..., slice(6 - hole, 7 + hole), slice(7 - hole, 8 + hole))
    assert torch.equal(before[block], after[block])
    assert (before[..., 6, 8 + hole] != after[..., 6, 8 + hole]).any()


def check_images_are_apart(net: BlindSpotNet) -> None:
    """An image's result does not depend on its neighbours in the batch, in training mode either."""
    x = torch.randn(3, net.in_channels, 9, 10, dtype=torch.float64)
    whole = net.train()(x, 1)
    for i in range(3):
        torch.testing.assert_close(whole[i : i + 1], net(x[i : i + 1], 1), atol=1e-12, rtol=1e-12)


def check_all_weights_train(net: BlindSpotNet) -> None:
    """Every weight has a gradient and moves within ten steps, with weight decay, and the spot is blind afterwards."""
    net = net.double().train()
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.1)
    x = torch.randn(2, net.in_channels, 24, 24, dtype=torch.float64)
    target = torch.randn(2, net.out_channels, 24, 24, dtype=torch.float64)
    touched = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in before.items()}
    for step in range(10):
        optimizer.zero_grad()
        (net(x, step % 2) - target).square().mean().backward()
        for name, value in net.named_parameters():
            assert value.grad is not None, f"{name} has no gradient"
            touched[name] |= value.grad != 0
        optimizer.step()
    for name, value in net.named_parameters():
        assert touched[name].all(), f"{name}: {int((~touched[name]).sum())} entries never have a gradient"
        assert (value != before[name]).all(), f"{name} did not move"
    for hole in range(4):
        assert leak(net, 9, 10, hole) == 0


def check_copies(net: BlindSpotNet) -> None:
    """Weights come back; copies, channels_last and half precision keep the zero."""
    net = net.eval()
    x = torch.randn(2, net.in_channels, 12, 11)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for value in twin.parameters():
            value.zero_()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x, 1), net(x, 1))
    twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(twin(x.to(memory_format=torch.channels_last), 2), net(x, 2), atol=1e-5, rtol=1e-5)
    assert leak(twin, 12, 11, 1) == 0
    for dtype in (torch.bfloat16, torch.float16):
        assert leak(copy.deepcopy(net).to(dtype), 6, 7, 1) == 0

"""The fast way to score agrees with the plain one."""

from __future__ import annotations

import pytest
import torch

from synthpipe.density.dde import DDE
from synthpipe.errors import ShapeError
from tests.contracts import perturbed
from tests.tiny_scorer import tiny_scorer


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("given", [1, 3])
def test_folded_convolutions_give_the_mean_of_the_energies(channels: int, given: int) -> None:
    dde = perturbed(DDE(channels=channels, width=5, depth=4, outputs=3, domains=("clean", "bad"))).double()
    assert isinstance(dde, DDE)
    y = torch.rand(3, given, 17, 21, dtype=torch.float64)
    for level in (0.01, 0.05, 0.25):
        plain = dde.energies(y, y.new_full((3,), level)).mean((2, 3))
        torch.testing.assert_close(dde.mean_energies(y, level), plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_score_is_the_gradient(channels: int) -> None:
    dde = perturbed(DDE(channels=channels, width=5, depth=3, outputs=3, domains=("clean", "bad"))).double()
    assert isinstance(dde, DDE)
    y = torch.rand(2, channels, 15, 18, dtype=torch.float64)
    for level in (0.02, 0.2):
        plain = dde.score(y, y.new_full((2,), level))
        with torch.no_grad():
            fast = dde.clean_score(y, level)
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10 * float(plain.abs().max()))
    assert not fast.requires_grad
    assert all(parameter.grad is None for parameter in dde.parameters())


def test_in_single_precision_they_agree_to_rounding() -> None:
    dde = perturbed(DDE(width=8, outputs=4, domains=("clean", "bad"))).float()
    assert isinstance(dde, DDE)
    y = torch.rand(5, 1, 32, 32)
    plain = dde.energies(y, y.new_full((5,), 0.05)).mean((2, 3))
    torch.testing.assert_close(dde.mean_energies(y, 0.05), plain, rtol=1e-5, atol=0)


def test_it_leaves_the_images_and_the_weights_alone() -> None:
    dde = perturbed(DDE(width=4))
    assert isinstance(dde, DDE)
    y = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    kept, state = y.clone(), {name: value.clone() for name, value in dde.state_dict().items()}
    dde.mean_energies(y, 0.1)
    assert torch.equal(y, kept)
    assert all(torch.equal(value, state[name]) for name, value in dde.state_dict().items())


def test_an_image_without_room_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"must exceed 8 pixels on each side, got \(1, 1, 8, 30\)"):
        DDE().mean_energies(torch.rand(1, 1, 8, 30), 0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_chunks_are_no_part_of_a_score(channels: int) -> None:
    scorer = tiny_scorer(channels=channels).double()
    tiles = torch.rand(19, 3, 16, 16, dtype=torch.float64)  # two chunks and a part of one
    together = scorer(tiles)
    alone = torch.cat([scorer(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)

"""Frozen scorers against the scorers that they come from, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from synthpipe.density.dde import DDE
from synthpipe.density.frozen import FrozenDDE
from synthpipe.errors import ShapeError
from tests.contracts import perturbed
from tests.tiny_scorer import tiny_scorer


def tiles_of(count: int, channels: int = 3, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    contrast = torch.linspace(1, 0.1, count)[:, None, None, None]
    return 0.5 + (torch.rand(count, channels, side, side, generator=generator) - 0.5) * contrast


@pytest.mark.parametrize("norm_levels", [(), (0.05,), (0.03, 0.1)])
@pytest.mark.parametrize("seen", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_columns_are_the_scorers(channels: int, seen: int, norm_levels: tuple[float, ...]) -> None:
    scorer = tiny_scorer(channels=channels, norm_levels=norm_levels)
    tiles = tiles_of(37, seen)  # more than are scored at once
    assert torch.equal(scorer.freeze()(tiles), scorer(tiles))


def test_energies_are_the_potential_forms() -> None:
    """Against the plain network with its modulation, in float64."""
    dde = perturbed(DDE(width=4, depth=3, outputs=2, domains=["clean", "bad"]))
    assert isinstance(dde, DDE)
    frozen = FrozenDDE(dde, [0.02, 0.1], [0.05])
    y = tiles_of(3, 1).double()
    for level in (0.02, 0.1):
        expected = dde.energies(y, y.new_full((3,), level)).mean((2, 3))
        torch.testing.assert_close(frozen.mean_energies(y, level), expected, atol=1e-12, rtol=1e-10)
    score = dde.score(y, y.new_full((3,), 0.05))
    torch.testing.assert_close(frozen.clean_score(y, 0.05), score, atol=1e-9, rtol=1e-9)


def test_it_is_the_scorer_of_then_and_saves_nothing() -> None:
    scorer, tiles = tiny_scorer(norm_levels=(0.05,)), tiles_of(4)
    expected = scorer(tiles)
    frozen = scorer.freeze()
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(scorer(tiles), expected)
    assert torch.equal(frozen(tiles), expected)
    assert not [name for name in frozen.state_dict() if name.startswith("dde")]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_frozen_in_inference_mode_it_still_has_gradients() -> None:
    scorer, tiles = tiny_scorer(norm_levels=(0.05,)), tiles_of(4)
    with torch.inference_mode():
        frozen = scorer.freeze()
    assert torch.equal(frozen(tiles), scorer(tiles))


def test_nan_stays_in_its_tile() -> None:
    scorer = tiny_scorer()
    tiles = tiles_of(3)
    spoilt = tiles.clone()
    spoilt[1, 0, 8, 8] = torch.nan
    found = scorer.freeze()(spoilt)
    assert torch.isnan(found[:, 0]).tolist() == [False, True, False]
    assert torch.equal(found[::2], scorer(tiles)[::2])


def test_the_scorer_itself_still_looks_first() -> None:
    scorer = tiny_scorer()
    with pytest.raises(ShapeError, match="NaN or infinity"):
        scorer.check(torch.full((1, 3, 16, 16), torch.nan))
    scorer.check(tiles_of(2))


def test_a_frozen_scorer_takes_no_weights() -> None:
    frozen = tiny_scorer().freeze()
    with pytest.raises(RuntimeError, match="load them into that, and fold or freeze it again"):
        frozen.load_state_dict(tiny_scorer().freeze().state_dict())

"""What a chain says of one sample, and its ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.transforms.chains.explained import degrade_traced, forced, readable, ways_of
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.quantise import Quantise
from tests.transforms.chains.chain_of import chain_of


def way(name: str, *stages: Any) -> dict[str, Any]:
    return {"name": name, "chain": list(stages)}


def quantise(levels: int) -> dict[str, Any]:
    return {"type": "quantise", "levels": levels}


INNER = {"type": "choice", "probability": 0.3, "of": [way("low", quantise(2)), way("high", quantise(9))]}
CHAIN = [
    {"type": "choice", "of": [way("a"), way("b", quantise(5), INNER)]},
    {"type": "shuffle", "of": [{"type": "choice", "of": [way("x"), way("y", quantise(3))]}]},
]


def test_ways_are_those_of_the_outermost_choices() -> None:
    names = [found.name for found in ways_of(chain_of(CHAIN).node)]
    assert names == ["choice/a", "choice/b", "shuffle/choice/x", "shuffle/choice/y"]
    sometimes = [found.name for found in ways_of(chain_of([INNER]).node)]
    assert sometimes == ["choice/low", "choice/high"]
    assert ways_of(chain_of([quantise(3)]).node) == []


def rounded(x: Tensor, levels: int) -> Tensor:
    return (x * (levels - 1)).round() / (levels - 1)


def test_a_forced_way_is_gone_by_all_and_leaves_the_rest_as_drawn() -> None:
    chain = chain_of(CHAIN)
    seeds = torch.arange(40) * 7919
    gt = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    draws = chain.draws({"seed": seeds})
    y = draws["shuffle/choice"]["chosen"] == 1
    inner = draws["choice/b/choice?"]["applied"], draws["choice/b/choice"]["chosen"] == 1
    low, high = inner[0] & ~inner[1], inner[0] & inner[1]

    def where(chosen: Tensor, levels: int, x: Tensor) -> Tensor:
        return torch.where(chosen[:, None, None, None], rounded(x, levels), x)

    b = where(high, 9, where(low, 2, rounded(gt, 5)))
    for found, made_of in zip(ways_of(chain.node)[:2], [gt, b], strict=True):
        expected = where(y, 3, made_of)
        made = chain.degrade_each({"gt": gt, "seed": seeds}, forced(draws, found))
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    assert 0 < int(y.sum()) < 40
    assert 0 < int((draws["choice"]["chosen"] == 1).sum()) < 40  # what was drawn is not changed


def test_the_trace_is_the_batch_of_many_taken_apart() -> None:
    chain = chain_of([{"type": "noise", "kinds": {"gaussian": 1}, "probability": 0.6}, *CHAIN])
    gt = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    seeds, seen = torch.arange(12) * 104729, torch.arange(12)
    together = chain({"gt": gt, "seed": seeds, "seen": seen})["lq"]
    for row in range(12):
        own = slice(row, row + 1)
        lq, notes = degrade_traced(chain, {"gt": gt[own], "seed": seeds[own], "seen": seen[own]})
        assert torch.equal(lq, together[own])
        shown = [note.image for note in notes if note.image is not None]
        assert torch.equal(shown[-1] if shown else gt[own], lq)
        for note in notes:
            assert note.applied or not note.settings


def test_settings_are_words_and_numbers() -> None:
    noise = chain_of([{"type": "noise", "kinds": {"poisson": 1}, "channels": {"grey": 1}}]).node
    [step] = noise.steps()
    drawn = step.stage.draw(torch.full((2, step.stage.numbers), 0.5, dtype=torch.float64))
    said = readable(step.stage, drawn, 1)
    assert said["kind"] == "poisson"
    assert said["channels"] == "grey"
    assert all(isinstance(value, str | int | float) for value in said.values())
    stage = Quantise(parse_options({"levels": 7}, QuantiseStageOptions))
    assert readable(stage, {"levels": torch.tensor([7]), "many": torch.zeros(1, 5, 5), "applied": torch.ones(1)}) == {
        "levels": 7,
        "many": "5 x 5 numbers",
    }


DRAWING_MANY = [
    {"type": "blur", "kinds": dict.fromkeys(("isotropic", "anisotropic", "plateau_isotropic", "sinc", "lens"), 1)},
    {"type": "blur", "kinds": {"generalized_anisotropic": 1, "motion": 1, "box": 1, "lens": 1}, "blades": 5},
    {"type": "noise", "kinds": {"gaussian": 1, "correlated": 1}, "channels": {"grey": 1, "covariance": 1}},
    {
        "type": "noise",
        "kinds": {"poisson": 1, "poisson_gaussian": 1, "salt_and_pepper": 1, "speckle": 1},
        "photons": [50, 500],
    },
    {"type": "dither", "kinds": {"none": 1, "bayer": 1, "white_noise": 1, "floyd_steinberg": 1}},
    {"type": "dither", "kinds": {"none": 1, "blue_noise": 1}, "palettes": {"median_cut": 1, "grey": 1}},
    {"type": "jpeg", "times": [1, 3]},
]


@pytest.mark.parametrize(
    "options", DRAWING_MANY, ids=lambda options: "-".join((options["type"], *options.get("kinds", ())))
)
def test_what_is_not_said_changes_nothing(options: dict[str, Any]) -> None:
    [step] = chain_of([options]).node.steps()
    stage = step.stage
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    many = torch.rand(60, stage.numbers, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn, other = stage.draw(many), stage.draw(many.flip(0))
    context = Context(Size(24, 24), torch.tensor([5]), "here", by_host=True)
    hidden = set()
    for row in range(60):
        own = {name: value[row : row + 1] for name, value in drawn.items()}
        said = readable(stage, drawn, row)
        exchanged = {name: value if name in said else other[name][row : row + 1] for name, value in own.items()}
        hidden |= set(own) - set(said)
        assert torch.equal(stage.on_image(x, own, context), stage.on_image(x, exchanged, context)), said
    assert hidden


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "noise", "kinds": {"poisson": 1, "gaussian": 0}}, {"kind", "channels", "scale"}),
        ({"type": "noise", "kinds": {"poisson": 1}, "photons": [9, 99]}, {"kind", "channels", "scale", "photons"}),
        (
            {"type": "noise", "kinds": {"gaussian": 1}, "channels": {"covariance": 1}},
            {"kind", "channels", "covariance"},
        ),
        ({"type": "blur", "kinds": {"sinc": 1, "motion": 0, "lens": 0}}, {"kind", "size", "cutoff"}),
        ({"type": "blur", "kinds": {"isotropic": 1}}, {"kind", "size", "sigma_x", "sigma_y"}),
        ({"type": "blur", "kinds": {"lens": 1}}, {"kind", "size", "radius"}),
        ({"type": "blur", "kinds": {"lens": 1}, "blades": 6}, {"kind", "size", "radius", "angle"}),
        ({"type": "jpeg", "times": [1, 2]}, {"times", "quality", "sampling"}),
    ],
)
def test_what_a_kind_uses_is_said(options: dict[str, Any], said: set[str]) -> None:
    [step] = chain_of([options]).node.steps()
    drawn = step.stage.draw(torch.full((1, step.stage.numbers), 0.25, dtype=torch.float64))
    assert set(readable(step.stage, drawn)) == said

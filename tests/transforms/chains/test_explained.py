"""What a chain says of one sample, and its ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.config.stages.quantise import QuantiseStageOptions
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.chain import Chain
from synthpipe.transforms.chains.explained import degrade_traced, forced, readable, ways_of
from synthpipe.transforms.chains.stages.quantise import Quantise


class Block(Options):
    degrade: DegradeOptions


def built(degrade: Any, scale: int = 1) -> Chain:
    chain = build_degrade(parse_options({"degrade": degrade}, Block).degrade, scale)
    assert isinstance(chain, Chain)
    return chain


def way(name: str, *stages: Any) -> dict[str, Any]:
    return {"name": name, "chain": list(stages)}


def quantise(levels: int) -> dict[str, Any]:
    return {"type": "quantise", "levels": levels}


INNER = {"type": "choice", "probability": 0.3, "of": [way("low", quantise(2)), way("high", quantise(9))]}
CHAIN = [
    {"type": "choice", "of": [way("a"), way("b", quantise(5), INNER)]},
    {"type": "shuffle", "of": [{"type": "choice", "of": [way("x"), way("y", quantise(3))]}]},
]


def test_ways_are_paths_to_the_innermost_choices() -> None:
    names = [found.name for found in ways_of(built(CHAIN).node)]
    assert names == [
        "choice/a",
        "choice/b/choice/low",
        "choice/b/choice/high",
        "shuffle/choice/x",
        "shuffle/choice/y",
    ]
    assert ways_of(built([quantise(3)]).node) == []


def rounded(x: Tensor, levels: int) -> Tensor:
    return (x * (levels - 1)).round() / (levels - 1)


def test_a_forced_way_is_gone_by_all_and_leaves_the_rest_as_drawn() -> None:
    chain = built(CHAIN)
    seeds = torch.arange(40) * 7919
    gt = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    draws = chain.draws({"seed": seeds})
    y = draws["shuffle/choice"]["chosen"] == 1
    for found, levels in zip(ways_of(chain.node)[:3], [[], [5, 2], [5, 9]], strict=True):
        expected = gt
        for number in levels:
            expected = rounded(expected, number)
        expected = torch.where(y[:, None, None, None], rounded(expected, 3), expected)
        made = chain.degrade_each({"gt": gt, "seed": seeds}, forced(draws, found))
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    assert 0 < int(y.sum()) < 40
    assert 0 < int((draws["choice"]["chosen"] == 1).sum()) < 40  # what was drawn is not changed


def test_the_trace_is_the_batch_of_many_taken_apart() -> None:
    chain = built([{"type": "noise", "kinds": {"gaussian": 1}, "probability": 0.6}, *CHAIN])
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
    noise = built([{"type": "noise", "kinds": {"poisson": 1}, "channels": {"grey": 1}}]).node
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

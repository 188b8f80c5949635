"""The zoo of learned degradations: its short forms, what its entries promise, and streams of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from synthpipe import checkpoints
from synthpipe.config.basicsr import parse_dataset_options
from synthpipe.config.degrade import ChoiceOptions
from synthpipe.config.presets import PRESETS, ZOO, preset_chain
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError
from synthpipe.pipeline.build import build_stream
from tests.stream_corpus import same_batches, small_options, take, write_corpus
from tests.transforms.chains.chain_of import chain_of

CHOICE = {"type": "choice", "of": "zoo"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("hr"), [3, 3])


def choice(of: Any) -> ChoiceOptions:
    return parse_options({"type": "choice", "of": of}, ChoiceOptions)


def test_the_zoo_is_an_equal_choice_among_all_its_entries() -> None:
    written = yaml.safe_dump([{"name": name, "weight": 1, "chain": preset_chain(name)} for name in ZOO])
    assert choice("zoo") == choice(yaml.safe_load(written))
    assert choice("zoo").names == tuple(ZOO)


def test_names_and_weights_by_name() -> None:
    assert choice({"canon_5d2": 2, "bsrgan": 1}) == choice(
        [{"name": "canon_5d2", "weight": 2, "chain": "canon_5d2"}, {"name": "bsrgan", "chain": "bsrgan"}]
    )
    plain = {"name": "plain", "chain": [{"type": "resize", "to": "lr"}]}
    assert choice(["canon_5d2", plain]) == choice([{"name": "canon_5d2", "chain": "canon_5d2"}, plain])
    line = choice({"canon_5d2": [[0, 0], [100, 1]], "bsrgan": 1})
    assert line.of[0].weight == ((0, 0.0), (100, 1.0))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("zo", "expected a list of ways, {name: weight, ...} of presets, or zoo, got 'zo'"),
        (["canon_5d"], "did you mean 'canon_5d2'"),
        ({"canon_5d": 1}, "did you mean 'canon_5d2'"),
        ({"canon_5d2": "often"}, "expected a number or"),
        ({"canon_5d2": 0}, "expected a weight above 0"),
        (["canon_5d2", "canon_5d2"], "names of ways must differ"),
        ({}, "expected a weight above 0"),
        ({"bsrgan/x": 1}, "without slashes"),
    ],
)
def test_what_is_no_way_is_refused(of: Any, words: str) -> None:
    with pytest.raises(OptionError) as error:
        choice(of)
    assert words in str(error.value)


@pytest.mark.parametrize("name", list(ZOO))
def test_an_entry_is_a_preset_whose_noise_is_as_strong_as_it_says(name: str) -> None:
    low, high = ZOO[name].sigma
    assert name in PRESETS
    chain = chain_of(name, 1)
    grey = torch.linspace(0.1, 0.9, 8)[:, None, None, None].expand(8, 3, 96, 96)
    batch = {"gt": grey, "seed": torch.arange(8), "seen": torch.zeros(8, dtype=torch.int64)}
    residual = 255 * (chain(batch)["lq"] - grey)[..., 16:-16, 16:-16]
    sigma = (residual - residual.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
    assert 0.9 * low <= sigma.min()
    assert sigma.max() <= 1.1 * high + 1e-3


@pytest.mark.parametrize("name", list(ZOO))
def test_what_an_entry_learned_ships_with_its_card(name: str) -> None:
    for weights in [stage["weights"] for stage in ZOO[name].stages if "weights" in stage]:
        path = checkpoints.resolve(weights)
        card = path.with_suffix(".md").read_text()
        assert "## Terms" in card
        assert path.stat().st_size <= 2_000_000


def test_the_guide_lists_what_there_is() -> None:
    guide = (Path(__file__).parents[2] / "recipes" / "guides" / "zoo.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (.+) \|$", guide, re.MULTILINE))
    assert list(rows) == list(ZOO)
    for name, entry in ZOO.items():
        what, scale, noise = rows[name].split(" | ")
        low, high = entry.sigma
        assert (what, scale) == (entry.what, "any" if entry.scale is None else str(entry.scale))
        assert noise == ("none" if high == 0 else f"{low:g} to {high:g}")


def test_all_of_it_can_be_captured() -> None:
    assert chain_of(CHOICE, 2).node.capturable


def test_behind_a_reduction_it_is_the_same() -> None:
    gt = torch.rand(3, 3, 32, 48)
    batch = {"gt": gt, "seed": torch.arange(3), "seen": torch.zeros(3, dtype=torch.int64)}
    alone = chain_of(CHOICE, 2)(batch)["lq"]
    behind = chain_of([{"type": "resize", "to": "lr"}, CHOICE], 2)(batch)["lq"]
    torch.testing.assert_close(behind, alone, atol=1e-4, rtol=0)


def test_a_stream_of_the_zoo_goes_on_exactly_and_counts_its_ways(shards: list[str]) -> None:
    names = ["canon_5d2", "web", "real-esrgan"]
    options = small_options(shards, degrade={"type": "choice", "of": names})
    with build_stream(options) as stream:
        take(stream, 2)
        state = stream.state_dict()
        expected = take(stream, 3)
        ways = stream.ways()
    assert {way for way in ways if way.count("/") == 1} == {f"choice/{name}" for name in names}
    assert all(ways.values())
    with build_stream(options) as stream:
        stream.load_state_dict(state)
        same_batches(take(stream, 3), expected)


def test_a_basicsr_option_file_takes_it() -> None:
    block = {"phase": "train", "name": "c", "shards": "hr", "gt_size": 64, "scale": 2, "degrade": CHOICE}
    assert parse_dataset_options(block).degrade == choice("zoo")

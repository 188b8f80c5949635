"""Choices, shuffled rows and probabilities against binomial laws, schedules against NumPy's interpolation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.chains.chain import Chain, HostChain
from synthpipe.transforms.chains.laws import between, log_between, pick, whole_between
from synthpipe.transforms.chains.schedule import Schedule
from tests.transforms.chains.chain_of import chain_of

COUNT = 20_000


def draws_of(chain: Chain, seen: int = 0) -> Any:
    return chain.draws({"seed": torch.arange(COUNT), "seen": torch.full((COUNT,), seen)})


def near(found: float, share: float) -> bool:
    """Within four standard deviations of a binomial law."""
    return abs(found - share) <= 4 * (share * (1 - share) / COUNT) ** 0.5


ROUND = {"type": "quantise", "levels": 2}


@pytest.mark.parametrize("weights", [[1, 1], [0.7, 0.2, 0.1], [0, 3, 0, 1], [5, 0]])
def test_ways_are_taken_in_proportion_to_their_weights(weights: list[float]) -> None:
    chain = chain_of({"type": "choice", "of": [{"weight": weight, "chain": [ROUND]} for weight in weights]})
    chosen = torch.bincount(draws_of(chain)["choice"]["chosen"], minlength=len(weights))
    assert len(chosen) == len(weights)
    for count, weight in zip(chosen.tolist(), weights, strict=True):
        assert near(count / COUNT, weight / sum(weights))
    ways = chain.ways(torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64))
    assert list(ways.values()) == chosen.tolist()


@pytest.mark.parametrize("seen", [0, 50, 100, 175, 10**9])
def test_a_schedule_goes_in_straight_lines(seen: int) -> None:
    knots = [(0, 0.2), (100, 0.8), (200, 0.4)]
    expected = np.interp(seen, *zip(*knots, strict=True))
    assert float(Schedule(knots)(torch.tensor([float(seen)]).double())) == pytest.approx(expected, abs=1e-12)
    chain = chain_of([{**ROUND, "probability": knots}])
    assert near(float(draws_of(chain, seen)["quantise"]["applied"].double().mean()), expected)


def test_nested_choices_count_what_comes_to_them() -> None:
    inner = {"type": "choice", "of": [{"chain": [], "name": "a"}, {"chain": [ROUND], "name": "b"}], "probability": 0.5}
    outer = {"type": "choice", "of": [{"weight": 3, "chain": [inner]}, {"weight": 1, "chain": []}]}
    ways = chain_of(outer).ways(torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.int64))
    assert list(ways) == ["choice/1", "choice/1/choice/a", "choice/1/choice/b", "choice/2"]
    for way, share in zip(ways, (0.75, 0.1875, 0.1875, 0.25), strict=True):
        assert near(ways[way] / COUNT, share), way


def test_every_order_of_a_shuffled_row_is_as_likely() -> None:
    orders = draws_of(chain_of([{"type": "shuffle", "of": [ROUND] * 3}]))["shuffle"]["order"].tolist()
    counts = Counter(map(tuple, orders))
    assert len(counts) == 6
    assert all(near(count / COUNT, 1 / 6) for count in counts.values())


def test_stages_that_keep_their_order_do_and_the_rest_is_as_likely() -> None:
    row = {"type": "shuffle", "of": [ROUND] * 3, "in_order": [2, 0]}
    counts = Counter(map(tuple, draws_of(chain_of([row]))["shuffle"]["order"].tolist()))
    assert set(counts) == {(2, 0, 1), (2, 1, 0), (1, 2, 0)}
    assert all(near(count / COUNT, 1 / 3) for count in counts.values())


def test_a_shuffled_row_is_gone_through_in_the_drawn_order() -> None:
    stages = [{"type": "quantise", "levels": levels} for levels in (3, 4, 6)]
    chain = chain_of([{"type": "shuffle", "of": stages}])
    assert isinstance(chain, HostChain)
    batch = {"gt": torch.rand(8, 3, 6, 6), "seed": torch.arange(8)}
    orders = chain.draws(batch)["shuffle"]["order"].tolist()
    assert len(set(map(tuple, orders))) > 2
    for x, found, order in zip(batch["gt"].numpy(), chain(batch)["lq"].numpy(), orders, strict=True):
        for place in order:
            steps = np.float32((3, 4, 6)[place] - 1)
            x = np.round(x * steps) / steps
        assert np.abs(found - x).max() < 1e-6


def test_one_switch_leaves_the_draws_of_other_stages_alone() -> None:
    noise = {"type": "noise", "kinds": {"gaussian": 1}, "sigma": [0.0, 0.1]}
    plain, other = chain_of([ROUND, noise]), chain_of([{**ROUND, "probability": 0.3}, {"type": "jpeg"}, noise])
    assert torch.equal(draws_of(plain)["noise"]["sigma"], draws_of(other)["noise"]["sigma"])
    twice = chain_of([noise, noise])
    assert not torch.equal(draws_of(twice)["noise"]["sigma"], draws_of(twice)["noise 2"]["sigma"])


def test_a_schedule_needs_the_samples_seen() -> None:
    chain = chain_of([{**ROUND, "probability": [[0, 0.0], [10, 1.0]]}])
    with pytest.raises(ShapeError, match="a schedule needs 'seen'"):
        chain({"gt": torch.rand(1, 3, 8, 8), "seed": torch.tensor([1])})
    assert not chain_of([{**ROUND, "probability": 0.5}]).needs_seen


def test_mistakes_in_choices_are_refused() -> None:
    with pytest.raises(OptionError, match="names of ways must differ"):
        chain_of({"type": "choice", "of": [{"name": "a", "chain": []}, {"name": "a", "chain": []}]})
    with pytest.raises(OptionError, match="names of ways must differ"):
        chain_of({"type": "choice", "of": [{"name": "2", "chain": []}, {"chain": []}]})
    for name in ("a/b", "", "a\nb", "a" * 101):
        with pytest.raises(OptionError, match=r"'degrade\.of\.0\.name': expected 1 to 100 characters without slashes"):
            chain_of({"type": "choice", "of": [{"name": name, "chain": []}]})
    with pytest.raises(OptionError, match="in at least one way, after 100 samples there is none"):
        chain_of({"type": "choice", "of": [{"weight": [[0, 1], [100, 0]], "chain": []}]})
    with pytest.raises(OptionError, match="expected probabilities of 0 to 1"):
        chain_of([{**ROUND, "probability": 1.5}])
    with pytest.raises(OptionError, match="in ascending order"):
        chain_of([{**ROUND, "probability": [[10, 0.5], [10, 0.6]]}])
    with pytest.raises(OptionError, match="samples is for `deflow` as the only degradation"):
        chain_of({"type": "choice", "of": [{"chain": {"type": "deflow", "weights": "deflow_small", "samples": 2}}]}, 4)
    with pytest.raises(OptionError, match=r"'degrade\.0\.type'.*did you mean 'quantise'"):
        chain_of([{"type": "quantize"}])


def test_a_whole_degradation_stands_where_the_tile_has_the_size_of_gt() -> None:
    deflow = {"type": "choice", "of": [{"chain": {"type": "classical"}}]}
    chain_of([deflow], 2).check_tiles(32, 32)
    with pytest.raises(OptionError, match="must still have the size of gt"):
        chain_of([{"type": "resize", "to": "lr"}, deflow], 2).check_tiles(32, 32)


def test_laws_give_uniform_numbers_of_their_ranges() -> None:
    u = (torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT
    assert float(between((2.0, 4.0), u).mean()) == pytest.approx(3.0, abs=1e-6)
    assert float(log_between((0.1, 10.0), u).log().mean()) == pytest.approx(0.0, abs=1e-6)
    assert torch.bincount(whole_between((1, 4), u)).tolist() == [0, 5000, 5000, 5000, 5000]
    assert torch.bincount(pick([1, 0, 3], u)).tolist() == [5000, 0, 15000]
    assert int(pick([0, 2], torch.zeros(1, dtype=torch.float64))) == 1


def test_weights_of_any_size_are_taken_in_proportion() -> None:
    u = (torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT
    for size in (1e308, 5e-324, 1e-310):
        assert torch.bincount(pick([size] * 4, u)).tolist() == [COUNT // 4] * 4
        if size < 1e300:
            ways = {"type": "choice", "of": [{"weight": size, "chain": []} for _ in range(4)]}
            for count in torch.bincount(draws_of(chain_of(ways))["choice"]["chosen"]).tolist():
                assert near(count / COUNT, 1 / 4)
    with pytest.raises(OptionError, match="expected less than or equal to 1000000000,"):
        chain_of({"type": "choice", "of": [{"weight": 1e308, "chain": []}]})
    heavy = [{"weight": [[0, 1e9], [500, 0]], "chain": []}, {"weight": [[0, 0], [5, 1e9]], "chain": []}]
    assert near(
        float((draws_of(chain_of({"type": "choice", "of": heavy}), 500)["choice"]["chosen"] == 1).double().mean()), 1.0
    )


@pytest.mark.parametrize("harmless", [0, 6])
def test_sizes_of_a_shuffled_row_are_those_of_all_orders(harmless: int) -> None:
    # Of 9 places there are 362880 orders; the blur comes to the reduced image in half of them.
    last = {"type": "resize", "to": "lr"}
    stages = [{"type": "blur", "size": 101}, *[{"type": "saturation"}] * harmless, last]
    row = {"type": "shuffle", "of": stages}
    with pytest.raises(OptionError, match=r"blur has kernels of up to 101x101 pixels, and images of down to 16x16"):
        chain_of([row], 4).check_tiles(64, 64)
    chain_of([{**row, "in_order": [0, len(stages) - 1]}], 4).check_tiles(64, 64)
    with pytest.raises(OptionError, match="at most 10"):
        chain_of([{"type": "shuffle", "of": [ROUND] * 11}])


def test_the_order_in_which_a_file_names_weights_changes_nothing() -> None:
    for stage, name in (({"type": "jpeg"}, "sampling"), ({"type": "video"}, "codecs")):
        weights = {"420": 1.0, "444": 2.0} if name == "sampling" else {"h264": 1.0, "mpeg2": 2.0}
        if name == "codecs":
            pytest.importorskip("av")
        one, other = (
            draws_of(chain_of([{**stage, name: given}]))[stage["type"]]
            for given in (weights, dict(reversed(weights.items())))
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)

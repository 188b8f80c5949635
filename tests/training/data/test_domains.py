"""Batches of clean and degraded domains: what is in them, and that it depends on nothing but (seed, step, slot)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.dde import DDEDataOptions
from synthpipe.config.reader import parse_options
from synthpipe.density import DDE
from synthpipe.errors import CheckpointError, OptionError, TrainingError
from synthpipe.images import to_float
from synthpipe.seeds import generator_for
from synthpipe.training.base import step_generators
from synthpipe.training.data.domains import DomainData, build_degraders, corruption_degrader
from synthpipe.training.dde import DDEObjective
from synthpipe.transforms.corruptions import corrupt, draw_corruption

NOISE = {"type": "classical", "noise": {"type": "gaussian", "sigma": [0.1, 0.1]}}


@pytest.fixture
def data(photos: dict[str, str]) -> dict[str, Any]:
    """Options of five domains of every type, four crops of 16 pixels of each."""
    return {
        "clean": {"folder": photos["clean"]},
        "degraded": [
            {"name": "jpeg", "type": "corruption", "family": "jpeg"},
            {"name": "own", "type": "images", "folder": photos["noisy"]},
            {"name": "noisy", "type": "degrade", "degrade": NOISE},
            {"name": "blur", "type": "corruption", "family": "blur"},
        ],
        "context": 32,
        "crop": 16,
        "crops_per_context": 1,
        "batch_size": 20,
        "workers": 0,
    }


@pytest.fixture
def opened() -> Iterator[Callable[..., DomainData]]:
    """Makes sources and closes them."""
    made: list[DomainData] = []

    def make(data: dict[str, Any], seed: int = 0, rank: int = 0, world_size: int = 1) -> DomainData:
        made.append(DomainData(parse_options(data, DDEDataOptions), seed, rank, world_size))
        return made[-1]

    yield make
    for source in made:
        source.close()


def objective(data: dict[str, Any]) -> DDEObjective:
    options = parse_options(data, DDEDataOptions)
    model = DDE(channels=3, width=2, depth=2, outputs=1, domains=options.domains)
    return DDEObjective(model, build_degraders(options), options.crop, options.crops_per_context)


def crops_by_slot(source: DomainData, made: DDEObjective, step: int) -> dict[int, tuple[int, Tensor]]:
    batch = source.next_batch()
    crops, domains = made.crops(batch, step_generators(3, step, batch["slot"]))
    return {slot: (int(d), x) for slot, d, x in zip(batch["slot"], domains, crops, strict=True)}


def test_domains_have_equal_shares_from_their_own_files(data: dict[str, Any], opened: Callable[..., Any]) -> None:
    source = opened(data)
    for _ in range(3):
        batch = source.next_batch()
        assert batch["x"].shape == (20, 3, 32, 32)
        assert batch["x"].dtype == torch.uint8
        assert torch.bincount(batch["domain"]).tolist() == [4, 4, 4, 4, 4]
        assert sorted(batch["slot"]) == list(range(20))
        places = [Path(key).parts for key in batch["key"]]
        own = [("noisy" in parts[-3:-1]) for parts in places]
        assert own == [domain == 2 for domain in batch["domain"].tolist()]
    assert source.describe()["own"]["images"] == 2
    assert source.describe()["jpeg"] == {"type": "corruption", "family": "jpeg"}


def test_what_is_seen_does_not_depend_on_the_number_of_processes(
    data: dict[str, Any], opened: Callable[..., Any]
) -> None:
    made = objective(data)
    whole, *parts = opened(data), opened(data, 0, 0, 2), opened(data, 0, 1, 2)
    for step in range(3):
        expected = crops_by_slot(whole, made, step)
        shares = [crops_by_slot(part, made, step) for part in parts]
        assert not shares[0].keys() & shares[1].keys()
        together = shares[0] | shares[1]
        assert together.keys() == expected.keys()
        for slot, (domain, crop) in expected.items():
            assert together[slot][0] == domain
            assert torch.equal(together[slot][1], crop)
    assert len({x.numpy().tobytes() for _, x in expected.values()}) > 15


def test_goes_on_from_a_state(data: dict[str, Any], opened: Callable[..., Any]) -> None:
    first = opened(data)
    for _ in range(3):
        first.next_batch()
    state = first.state_dict()
    rest = [first.next_batch() for _ in range(2)]
    second = opened({**data, "workers": 2, "prefetch": 2})
    second.load_state_dict(state)
    for expected in rest:
        batch = second.next_batch()
        assert torch.equal(batch["x"], expected["x"])
        assert batch["key"] == expected["key"]
        assert batch["slot"] == expected["slot"]


def test_examples_are_of_every_domain_and_move_nothing(data: dict[str, Any], opened: Callable[..., Any]) -> None:
    source, untouched = opened(data), opened(data)
    shown, again = source.example(5), source.example(5)
    assert torch.bincount(shown["domain"]).tolist() == [5, 5, 5, 5, 5]
    assert len(set(shown["slot"])) == 25
    assert torch.equal(shown["x"], again["x"])
    assert torch.equal(source.next_batch()["x"], untouched.next_batch()["x"])


def test_shards_feed_domains_too(data: dict[str, Any], tmp_path: Path, opened: Callable[..., Any]) -> None:
    with tarfile.open(tmp_path / "own.tar", "w") as tar:
        for level in range(8):
            file = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), 200 + level, dtype=np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{level}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    data["degraded"][1] = {"name": "own", "type": "images", "shards": str(tmp_path / "own.tar")}
    source = opened(data)
    seen = []
    for _ in range(2):
        batch = source.next_batch()
        own = batch["x"][batch["domain"] == 2]
        assert own.shape == (4, 3, 32, 32)
        seen += own[:, 0, 0, 0].tolist()
        assert int(batch["x"][batch["domain"] != 2].float().std()) > 0
    assert sorted(seen) == list(range(200, 208))  # one pass: each image once
    assert source.example(2) is None


def test_corruptions_and_degradations_meet_whole_images_of_their_own_domain(
    data: dict[str, Any], opened: Callable[..., Any]
) -> None:
    data = {**data, "crop": 32, "augment": "none"}
    made, batch = objective(data), opened(data).next_batch()
    crops, domains = made.crops(batch, step_generators(3, 0, batch["slot"]))
    clean = to_float(batch["x"])
    assert torch.equal(domains, batch["domain"])
    for untouched in (0, 2):
        assert torch.equal(crops[domains == untouched], clean[domains == untouched])
    # Its generator draws the corruption before anything else.
    generators = step_generators(3, 0, batch["slot"])
    for place in (domains == 4).nonzero()[:, 0].tolist():
        drawn = draw_corruption("blur", generators[place])
        assert torch.equal(crops[place], corrupt(clean[place][None], [drawn])[0])
    noise = (crops - clean)[domains == 3]
    inside = (clean[domains == 3] > 0.4) & (clean[domains == 3] < 0.6)  # no clipping
    assert float(noise[inside].std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal((crops * 255).round() / 255, crops)


def test_a_trained_flow_makes_a_domain(photos: dict[str, str], opened: Callable[..., Any]) -> None:
    flow = {"name": "camera", "type": "degrade", "degrade": {"type": "deflow", "weights": "deflow_small"}}
    data = {
        "clean": {"folder": photos["clean"]},
        "degraded": [flow],
        "context": 32,
        "crop": 32,
        "crops_per_context": 1,
        "batch_size": 4,
        "workers": 0,
    }
    made, batch = objective(data), opened(data).next_batch()
    crops, domains = made.crops(batch, step_generators(3, 0, batch["slot"]))
    again, _ = made.crops(batch, step_generators(3, 0, batch["slot"]))
    change = (crops - to_float(batch["x"])).abs().amax((1, 2, 3))
    assert change[domains == 0].max() == 0
    assert change[domains == 1].min() > 2 / 255
    assert torch.equal(crops, again)
    with pytest.raises(OptionError, match=r"context: expected a multiple of \d+.*'camera' needs, got 42"):
        build_degraders(parse_options({**data, "context": 42}, DDEDataOptions))
    flow["degrade"] = {"type": "deflow", "weights": "/nowhere.safetensors"}
    with pytest.raises(CheckpointError, match=r"no weights at '/nowhere.safetensors'"):
        build_degraders(parse_options(data, DDEDataOptions))


def test_chains_make_a_domain_or_are_refused_before_any_step(photos: dict[str, str]) -> None:
    def built(*stages: dict[str, Any]) -> Any:
        domain = {"name": "chain", "type": "degrade", "degrade": list(stages)}
        given = {"clean": {"folder": photos["clean"]}, "degraded": [domain], "context": 40, "crop": 16}
        return build_degraders(parse_options(given, DDEDataOptions))[1]

    ringing = {"type": "blur", "kinds": {"sinc": 1}, "probability": 0.5}
    degrade = built({"type": "resize", "factor": [0.5, 0.7]}, {"type": "resize", "to": "lr"}, ringing, {"type": "jpeg"})
    x = torch.rand(3, 3, 40, 40)
    assert degrade(x, step_generators(0, 1, range(3))).shape == x.shape
    with pytest.raises(OptionError, match=r"'chain': weights and probabilities that change with the samples seen"):
        built({**ringing, "probability": [[0, 0.0], [100, 1.0]]})
    with pytest.raises(OptionError, match=r"'chain', contexts of 40 pixels at scale 1: .*they must have \(40, 40\)"):
        built({"type": "resize", "factor": 0.5})


def test_each_image_has_its_own_strength() -> None:
    degrade = corruption_degrader("blur")
    edge = torch.zeros(6, 3, 24, 24)
    edge[..., 12:] = 1
    slopes = (degrade(edge, [generator_for(7, str(i)) for i in range(6)]).diff(dim=3)).amax((1, 2, 3))
    assert len(set(slopes.tolist())) == 6
    alone = degrade(edge[:1], [generator_for(7, "0")])
    assert float(alone.diff(dim=3).max()) == float(slopes[0])


def test_one_domain_may_hold_several_families_each_as_often() -> None:
    """Noise spreads a flat field, blur leaves it as it is."""
    flat = torch.full((60, 3, 16, 16), 0.5)
    made = corruption_degrader("blur", "noise")(flat, [generator_for(5, str(i)) for i in range(60)])
    noisy = int((made.flatten(1).std(1) > 1 / 255).sum())
    assert 18 <= noisy <= 42  # 30 expected, standard deviation 3.9


def test_a_share_of_images_loses_its_colour_before_all_else(opened: Callable[..., Any], data: dict[str, Any]) -> None:
    data = {**data, "crop": 32, "degraded": [], "batch_size": 60, "grey": 0.25}
    options = parse_options(data, DDEDataOptions)
    model = DDE(channels=3, width=2, depth=2, outputs=1, domains=options.domains)
    seen: list[Tensor] = []

    def record(x: Tensor, generators: object) -> Tensor:
        seen.append(x)
        return x

    made = DDEObjective(model, {0: record}, options.crop, options.crops_per_context, options.grey)
    batch = opened(data).next_batch()
    crops, _ = made.crops(batch, step_generators(3, 0, batch["slot"]))
    grey = (crops.amax(1) == crops.amin(1)).flatten(1).all(1)
    assert 5 <= int(grey.sum()) <= 25  # 15 expected, standard deviation 3.4
    clean = to_float(batch["x"])
    assert torch.equal(crops[~grey], clean[~grey])
    luma = 0.299 * clean[grey][:, 0] + 0.587 * clean[grey][:, 1] + 0.114 * clean[grey][:, 2]  # Rec. 601
    assert float((crops[grey][:, 0] - luma).abs().max()) <= 0.5 / 255 + 1e-6
    assert torch.equal(seen[0], crops)


def test_refusals(data: dict[str, Any], opened: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"multiple of 15 \(5 domains, 1 crop from each context, 3 processes\).*20"):
        opened(data, 0, 0, 3)
    data["degraded"][1] = {"name": "own", "type": "images", "folder": str(tmp_path / "none")}
    with pytest.raises(TrainingError, match="does not exist"):
        opened(data)

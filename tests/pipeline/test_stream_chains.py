"""Chains and choices in streams: a sample's pair is its own, whoever reads it, and a stream goes on where it was."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from synthpipe.config.chain import LeafStageOption
from synthpipe.errors import OptionError, ShapeError, StreamError
from synthpipe.images import to_float
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.device_stage import DeviceStage, StageSteps
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.tally import Tally
from synthpipe.seeds import sample_seed
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import select_samples
from synthpipe.transforms.captured import CapturedFunction
from synthpipe.transforms.chains.chain import DeviceChain
from tests.pipeline.kill_soak import CHAIN, SHUFFLED, soak
from tests.recorded import record_on_cpu
from tests.stream_corpus import same_batches, small_options, take, write_corpus
from tests.transforms.chains.chain_of import chain_of

#: Every stage there is, each on some of the tiles; what has to be given beside the type.
NEEDED: dict[str, dict[str, Any]] = {
    "blur": {"kinds": {"isotropic": 1, "motion": 1, "median": 1}},
    "deflow": {"weights": "deflow_small"},
    "dither": {"kinds": {"bayer": 1, "floyd_steinberg": 1}},
    "noise": {"kinds": {"gaussian": 1, "poisson": 1, "film": 1, "correlated": 1}},
    "resize": {"to": "lr"},
    "video": {"codecs": {"mpeg2": 1, "h264": 1}},
}
STAGES = [name for schema in get_args(get_args(LeafStageOption)[0]) for name in schema.types()]
EVERY = [
    {"type": "resize", "to": "lr"},
    *({"type": name, "probability": 0.3, **NEEDED.get(name, {})} for name in sorted(STAGES)),
]
CUT = PatchCut(24, 8, 2, 2, 2)


def pairs(batches: list[dict[str, Any]]) -> dict[tuple[str, bytes], Counter[bytes]]:
    """LR patches by image and HR patch."""
    found: dict[tuple[str, bytes], Counter[bytes]] = {}
    for batch in batches:
        for path, gt, lq in zip(batch["gt_path"], batch["gt"], batch["lq"], strict=True):
            found.setdefault((path, gt.numpy().tobytes()), Counter())[lq.numpy().tobytes()] += 1
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), [5, 3, 7])


@pytest.mark.parametrize("chain", [CHAIN[:3], [*CHAIN[:3], *SHUFFLED[4:]], EVERY], ids=["rows", "shuffled", "every"])
def test_a_pair_is_the_same_whoever_reads_it_and_in_whichever_batch(shards: list[str], chain: Any) -> None:
    expected = None
    for changes in ({}, {"workers": 2}, {"tiles_per_batch": 1}, {"tiles_per_batch": 8, "pool": 0, "batch_size": 2}):
        options = small_options(shards, degrade=chain, epochs=1, drop_last=False, **changes)
        with build_stream(options) as stream:
            found = pairs(list(stream))
        assert len(found) == 30
        expected = expected or found
        assert found == expected, changes


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chain", [CHAIN, SHUFFLED, EVERY], ids=["rows", "shuffled", "every"])
def test_a_stream_of_chains_resumes_anywhere(shards: list[str], workers: int, chain: Any) -> None:
    options = small_options(shards, degrade=chain, workers=workers)
    states, batches, ways = [], [], []
    with build_stream(options) as stream:
        for _ in range(24):  # more than two epochs of 7.5 batches: the curriculum ends in the third
            states.append(json.loads(json.dumps(stream.state_dict())))
            batches.append(next(stream))
            ways.append(stream.ways())
    for cut in (0, 3, 11, 20):
        with build_stream(options) as resumed:
            resumed.load_state_dict(states[cut])
            assert same_batches(take(resumed, 24 - cut), batches[cut:])
            assert resumed.ways() == ways[-1]
    assert bool(ways[-1]) == (chain is not EVERY)


def test_ways_are_counted_and_a_curriculum_follows_the_images_read(shards: list[str]) -> None:
    with build_stream(small_options(shards, degrade=CHAIN, pool=0, batch_size=2)) as stream:
        take(stream, 15)
        first = stream.ways()
        take(stream, 75)
        last = stream.ways()
    assert sum(first.values()) == 15
    assert first["choice/plain"] > 0
    # 15 images an epoch: from the 40th on, the weight of the first way is 0
    late = {way: last[way] - first[way] for way in last}
    assert sum(late.values()) == 75
    with build_stream(small_options(shards, degrade=CHAIN, pool=0, batch_size=2)) as stream:
        take(stream, 45)  # three epochs
        before = stream.ways()["choice/plain"]
        take(stream, 45)
        assert stream.ways()["choice/plain"] == before


def test_what_the_readers_say_that_they_have_seen_counts_images(shards: list[str]) -> None:
    seen: list[int] = []

    class Watch(DeviceChain):
        def compute(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            seen.extend(batch["seen"].tolist())
            return super().compute(batch)

    built = chain_of(CHAIN, 2)
    options = small_options(shards, pool=0, batch_size=2)
    with build_stream(options, degrade=Watch(built.node, 2)) as stream:
        take(stream, 40)
    assert seen[:40] == list(range(40))


def test_the_identity_knows_a_chain_by_all_that_it_is_made_of(shards: list[str]) -> None:
    deflow = {"type": "choice", "of": [{"chain": {"type": "deflow", "weights": "deflow_small"}}, {"chain": CHAIN[:3]}]}
    with build_stream(small_options(shards, degrade=deflow)) as stream:
        state = stream.state_dict()
    assert "deflow_small" not in json.dumps(state["identity"]["degrade"])  # its content, not its name
    changed = json.loads(json.dumps(deflow))
    changed["of"][1]["chain"][1]["sigma"] = [0.0, 0.2]
    with (
        build_stream(small_options(shards, degrade=changed)) as other,
        pytest.raises(StreamError, match="belongs to another stream"),
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize("alone", [{"type": "choice", "of": [{"chain": CHAIN[:3]}]}, CHAIN[2]])
def test_what_is_short_for_a_list_of_one_has_its_identity(shards: list[str], alone: Any) -> None:
    with build_stream(small_options(shards, degrade=alone)) as stream:
        state = stream.state_dict()
    with build_stream(small_options(shards, degrade=[alone])) as other:
        other.load_state_dict(state)
        assert other.state_dict()["identity"] == state["identity"]


def test_chains_that_do_not_end_at_the_lr_size_are_refused_before_any_image_is_read(shards: list[str]) -> None:
    with pytest.raises(OptionError, match=r"at scale 2 they must have \(24, 24\): put \{type: resize, to: lr\}"):
        build_stream(small_options(shards, degrade=[{"type": "jpeg"}]))
    with pytest.raises(OptionError, match="deflow needs images of one size"):
        build_stream(small_options(shards, degrade=[CHAIN[0], {"type": "deflow", "weights": "deflow_small"}, CHAIN[2]]))


def record_of(keys: str, first_seen: int = 0) -> dict[str, Any]:
    seeds = [sample_seed(0, 0, key) for key in keys]
    generator = torch.Generator().manual_seed(3)
    return {
        "tile": torch.randint(0, 256, (len(keys), 3, 48, 48), dtype=torch.uint8, generator=generator),
        "key": list(keys),
        "path": list(keys),
        "seed": torch.tensor(seeds).numpy(),
        "seen": torch.arange(first_seen, first_seen + len(keys)).numpy(),
        "corner": CUT.corners(seeds),
    }


def farthest_apart(device: str, capture: Any) -> float:
    """Of ``lq`` by a chain image by image on the CPU, and on a canvas in one graph, of 255; all else is equal."""
    built = chain_of(CHAIN, 2)
    assert isinstance(built, DeviceChain)
    apart = DeviceStage(torch.device("cpu"), StageSteps(degrade=built), CUT, 4)
    again = DeviceChain(chain_of(CHAIN, 2).node, 2, canvas=True)
    whole = DeviceStage(torch.device(device), StageSteps(degrade=again), CUT, 4, capture)
    farthest = 0.0
    for keys, seen in (("abcd", 0), ("efg", 30), ("hijk", 100)):  # the second fills up a short batch
        tallies = Tally(9, 1.0), Tally(9, 1.0)
        record = record_of(keys, seen)
        expected, found = apart(record, tallies[0]), whole(record, tallies[1])
        assert torch.equal(found.tensors["gt"].cpu(), expected.tensors["gt"])
        difference = (found.tensors["lq"].cpu() - expected.tensors["lq"]).abs() * 255
        assert float(difference.mean()) < 0.1
        farthest = max(farthest, float(difference.max()))
        assert tallies[0].ways() == tallies[1].ways()
        assert sum(tallies[1].ways().values()) == len(keys)
    return farthest


#: A level of JPEG's coefficients that falls on the other side.
FARTHEST = 5


def test_in_one_graph_a_chain_gives_what_it_gives_image_by_image() -> None:
    def capture(function: Any, rows: int) -> CapturedFunction:
        return CapturedFunction(function, rows, record=record_on_cpu)

    assert farthest_apart("cpu", capture) < FARTHEST


@pytest.mark.gpu
def test_on_the_gpu_a_chain_gives_what_the_cpu_gives() -> None:
    assert farthest_apart("cuda", None) < FARTHEST


def test_a_stream_of_very_many_ways_goes_on(shards: list[str]) -> None:
    degrade = [CHAIN[2], {"type": "choice", "of": [{"chain": []}] * 1200}]
    with build_stream(small_options(shards, degrade=degrade)) as stream:
        next(stream)
        state, expected = json.loads(json.dumps(stream.state_dict())), next(stream)
    with build_stream(small_options(shards, degrade=degrade)) as stream:
        stream.load_state_dict(state)
        assert same_batches([next(stream)], [expected])


class Changed(BatchTransform):
    """Rows backwards, with other seeds; ``seen`` handed on or not."""

    def __init__(self, hands_on: bool, reseeds: bool) -> None:
        self.hands_on, self.reseeds = hands_on, reseeds

    def sample_params(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {}

    def apply(self, batch: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in batch.items() if self.hands_on or key != "seen"}
        turned = select_samples(kept, torch.arange(len(batch["key"]) - 2, -1, -1))
        return {**turned, "seed": turned["seed"] // 3} if self.reseeds else turned


@pytest.mark.parametrize(("hands_on", "reseeds"), [(True, True), (True, False), (False, False)])
def test_transforms_that_drop_and_move_rows_leave_schedules_to_their_samples(hands_on: bool, reseeds: bool) -> None:
    built = chain_of(CHAIN, 2)
    met: dict[bytes, int] = {}

    class Watched(DeviceChain):
        def draws(self, batch: dict[str, Any]) -> Any:
            met.update(zip((gt.numpy().tobytes() for gt in batch["gt"]), batch["seen"].tolist(), strict=True))
            return super().draws(batch)

    steps = StageSteps(transforms=[Changed(hands_on, reseeds)], degrade=Watched(built.node, 2))
    record = record_of("abcd", 20)
    DeviceStage(torch.device("cpu"), steps, CUT, 4)(record, Tally(9, 1.0))
    assert met == {to_float(record["tile"])[row].numpy().tobytes(): 20 + row for row in range(3)}


def test_a_transform_that_hands_on_neither_seeds_nor_images_seen_is_named() -> None:
    built = chain_of(CHAIN, 2)
    stage = DeviceStage(torch.device("cpu"), StageSteps(transforms=[Changed(False, True)], degrade=built), CUT, 4)
    with pytest.raises(ShapeError, match="changed seeds and left out 'seen'"):
        stage(record_of("abcd"), Tally(9, 1.0))


@pytest.mark.parametrize("canvas", [False, True])
def test_nan_from_a_stage_drops_its_tile_and_counts_it(canvas: bool) -> None:
    chain = [{"type": "resize", "to": "lr"}, {"type": "noise", "kinds": {"gaussian": 1}, "sigma": 0.1}]
    built = chain_of(chain, 2)

    class Broken(DeviceChain):
        def compute(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            gt = batch["gt"].clone()
            gt[1, 0, 5, 5] = float("nan")
            return {**super().compute({**batch, "gt": gt}), "gt": batch["gt"]}

    tally = Tally(3, 1.0)
    stage = DeviceStage(torch.device("cpu"), StageSteps(degrade=Broken(built.node, 2, canvas)), CUT, 3)
    patches = stage(record_of("abc"), tally)
    assert len(patches) == 4
    assert tally.counts()["not_finite"] == 1


@pytest.mark.slow
def test_a_run_of_chains_killed_twice_equals_one_never_killed(tmp_path: Path) -> None:
    assert soak(tmp_path, {"workers": 2, "pool": 12, "degrade": SHUFFLED}, kills=2) >= 8

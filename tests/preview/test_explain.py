"""What ``synthpipe explain`` says of a sample, against what the stream emits and what a hand computes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import ImageError, OptionError
from synthpipe.images import quantize_8bit, to_uint8
from synthpipe.pipeline.build import build_stream, stream_parts
from synthpipe.pipeline.source import TileReader
from synthpipe.preview.explain import Explanation, explain_sample
from synthpipe.preview.option_files import pair_options
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.density import score_image
from tests.stream_corpus import noise_image, png, small_options, write_corpus, write_tar
from tests.tiny_scorer import tiny_scorer
from tests.transforms.test_deflow import levelled_deflow

#: With a schedule whose value differs from sample to sample, so that a wrong `seen` is another pair.
CHAIN = [
    {"type": "noise", "kinds": {"gaussian": 1}, "sigma": [0.01, 0.1], "probability": [[0, 0.2], [50, 1.0]]},
    {
        "type": "choice",
        "probability": 0.8,
        "of": [
            {"name": "mild", "chain": [{"type": "jpeg", "quality": [60, 95]}]},
            {"name": "wild", "weight": [[0, 0], [40, 3]], "chain": [{"type": "quantise", "levels": [2, 9]}]},
        ],
    },
    {"type": "resize", "to": "lr"},
    {"type": "shuffle", "of": [{"type": "quantise", "levels": [30, 90]}, {"type": "jpeg", "quality": [40, 90]}]},
]
CLASSICAL = {
    "type": "classical",
    "blur": {"sigma": [0.2, 1.5]},
    "noise": {"type": "gaussian", "sigma": [0.01, 0.05]},
    "jpeg_quality": [50, 95],
}


def options_of(shards: list[str], **changes: Any) -> StreamOptions:
    return parse_options({**small_options(shards), **changes}, StreamOptions)


def explained(options: StreamOptions, name: str, epoch: int, **more: Any) -> Explanation:
    return explain_sample(options, name, epoch, **more)


def emitted(options: StreamOptions, batches: int) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    with build_stream(options) as stream:
        taken = [next(stream) for _ in range(batches)]
    return [
        (path, gt, lq)
        for batch in taken
        for path, gt, lq in zip(batch["gt_path"], batch["gt"], batch["lq"], strict=True)
    ]


def holds(found: Explanation, gt: torch.Tensor, lq: torch.Tensor) -> bool:
    """Whether a pair lies, to the bit, in a tile at a corner that is said of it."""
    for tile in found.tiles:
        assert tile.gt is not None
        assert tile.patches is not None
        for whole, corners in zip(tile.lq, tile.patches, strict=True):
            for y, x in corners:
                small = whole[:, y : y + 8, x : x + 8]
                if torch.equal(small, lq) and torch.equal(tile.gt[:, 2 * y : 2 * y + 16, 2 * x : 2 * x + 16], gt):
                    return True
    return False


@pytest.mark.parametrize(
    ("degrade", "crops", "workers"),
    [(CHAIN, 2, 2), (CHAIN, 1, 0), (CLASSICAL, 1, 0)],
    ids=["chain", "one", "classical"],
)
def test_every_emitted_pair_is_made_again_to_the_bit(tmp_path: Path, degrade: Any, crops: int, workers: int) -> None:
    shards = write_corpus(tmp_path, [5, 3, 4])
    more = {"degrade": degrade, "crops_per_image": crops, "workers": workers}
    options = options_of(shards, epochs=3, **more)
    # An epoch of 12 images, each with its tiles and 2 patches of each.
    patches = emitted(options, 12 * 2 * crops * 3 // 4)
    epochs: Counter[int] = Counter()
    for path, gt, lq in patches[:: 5 if crops > 1 else 3]:
        found = [epoch for epoch in range(3) if holds(explained(options, path, epoch), gt, lq)]
        assert len(found) == 1, path
        epochs[found[0]] += 1
    assert set(epochs) == {0, 1, 2}


def test_without_the_right_number_seen_it_is_another_pair(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 3, 4])
    options = options_of(shards, epochs=3, degrade=CHAIN, workers=2)
    patches = emitted(options, 18)
    missed = [
        path
        for path, gt, lq in patches
        if not any(holds(explained(options, path, epoch, seen=10**6), gt, lq) for epoch in range(3))
    ]
    assert missed


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_seen_is_what_the_readers_say(tmp_path: Path, workers: int, world_size: int) -> None:
    options = options_of(write_corpus(tmp_path, [5, 3, 6]), degrade=CHAIN, workers=workers, epochs=2)
    settings = stream_parts(options).settings
    said: dict[tuple[int, str], tuple[int, int, int]] = {}
    for rank in range(world_size):
        for worker in range(max(workers, 1)):
            own = replace(settings, rank=rank, world_size=world_size, tiles_per_batch=1)
            for record in TileReader(own, worker, max(workers, 1), 0, 2):
                for key, seed, seen in zip(record["key"], record["seed"], record["seen"], strict=True):
                    said[int(record["epoch"]), key] = (rank, int(seed), int(seen))
    assert len(said) == 28
    for (epoch, key), (rank, seed, seen) in said.items():
        found = explained(options, key, epoch, world_size=world_size)
        assert (found.reading.rank, found.tiles[0].seed, found.reading.seen) == (rank, seed, seen)


def test_the_tile_lies_in_the_image_where_it_is_said_to(tmp_path: Path) -> None:
    options = options_of(write_corpus(tmp_path, [4]), degrade=CHAIN)
    met = set()
    for number in range(4):
        for epoch in range(6):
            found = explained(options, f"0_{number:03d}.png", epoch)
            [tile] = found.tiles
            image = noise_image(number)
            cut = image[tile.top : tile.top + tile.side, tile.left : tile.left + tile.side]
            cut = np.rot90(cut[:, ::-1] if tile.mirror else cut, tile.turns)
            assert tile.gt is not None
            np.testing.assert_array_equal(to_uint8(tile.gt).permute(1, 2, 0).numpy(), cut)
            assert found.image == (60, 72)
            met.add((tile.mirror, tile.turns))
    assert len(met) > 4


def test_what_is_said_was_drawn_is_what_was_done(tmp_path: Path) -> None:
    chain = [
        {"type": "quantise", "levels": [2, 40], "probability": 0.5},
        {"type": "resize", "to": "lr", "filter": "box"},
    ]
    options = options_of(write_corpus(tmp_path, [6]), degrade=chain)
    applied = 0
    for number in range(6):
        [tile] = explained(options, f"0_{number:03d}", 1).tiles
        assert tile.gt is not None
        rounding, reduction = tile.places
        x = tile.gt
        if rounding.applied:
            applied += 1
            steps = rounding.settings["levels"] - 1
            x = (x * steps).round() / steps
            assert rounding.image is not None
            torch.testing.assert_close(rounding.image[0], x, atol=1e-6, rtol=0)
        else:
            assert rounding.settings == {}
            assert rounding.image is None
        assert reduction.settings == {"factor": 1.0, "filter": "box"}
        assert reduction.size == (24, 24)
        mean = x.unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
        assert len(tile.lq) == 1
        assert (to_uint8(tile.lq[0]).int() - to_uint8(mean).int()).abs().max() <= 1
        assert torch.equal(tile.lq[0], quantize_8bit(tile.lq[0]))
    assert 0 < applied < 6


def test_places_are_in_the_order_of_the_sample_and_choices_name_their_way(tmp_path: Path) -> None:
    options = options_of(write_corpus(tmp_path, [8]), degrade=CHAIN)
    ways, orders = set(), set()
    for number in range(8):
        for epoch in range(4):
            [tile] = explained(options, f"0_{number:03d}", epoch).tiles
            notes = {note.place: note for note in tile.places}
            names = [note.place for note in tile.places]
            if not notes["choice"].applied:
                ways.add(None)
                assert not any(name.startswith("choice/") for name in names)
            else:
                way = notes["choice"].settings["way"]
                ways.add(way)
                below = {"mild": "choice/mild/jpeg", "wild": "choice/wild/quantise"}[way]
                assert names[names.index("choice") + 1] == below
                assert len([name for name in names if name.startswith("choice/")]) == 1
            orders.add(tuple(name for name in names if name.startswith("shuffle/")))
            last = notes[names[-1]].image
            assert last is not None
            assert torch.equal(quantize_8bit(last)[0], tile.lq[0])
    assert ways == {None, "mild", "wild"}
    assert orders == {("shuffle/quantise", "shuffle/jpeg"), ("shuffle/jpeg", "shuffle/quantise")}


def test_ways_that_are_whole_degradations_show_what_is_in_them(tmp_path: Path) -> None:
    flow = {"type": "deflow", "weights": "deflow_small", "strength": [0.2, 0.9]}
    choice = {"type": "choice", "of": [{"name": "hand", "chain": CLASSICAL}, {"name": "flow", "chain": flow}]}
    options = options_of(write_corpus(tmp_path, [8]), degrade=choice, epochs=1)
    inside = {
        "hand": ["choice/hand/classical/" + step for step in ("reduced", "blur", "noise", "jpeg")],
        "flow": ["choice/flow/deflow/" + step for step in ("reduced", "deflow")],
    }
    met = set()
    for path, gt, lq in emitted(options, 4):
        found = explained(options, path, 0)
        assert holds(found, gt, lq)
        [tile] = found.tiles
        way = tile.places[0].settings["way"]
        assert [note.place for note in tile.places] == ["choice", *inside[way]]
        last = tile.places[-1]
        assert last.image is not None
        assert torch.equal(quantize_8bit(last.image)[0], tile.lq[0])
        if way == "flow":
            assert 0.2 <= last.settings["strength"] < 0.9
        else:
            assert 50 <= last.settings["quality"] <= 95
        met.add(way)
    assert met == {"hand", "flow"}


def test_a_flow_shows_its_strengths_and_all_its_samples(tmp_path: Path) -> None:
    degrade = {"type": "deflow", "weights": "deflow_small", "strength": [0.2, 0.9], "samples": 2}
    options = options_of(write_corpus(tmp_path, [3]), degrade=degrade, epochs=1)
    for path, gt, lq in emitted(options, 3):
        found = explained(options, path, 0)
        assert holds(found, gt, lq)
        strengths = [note.settings["strength"] for note in found.tiles[0].places[1:]]
        assert len(set(strengths)) == 2
        assert all(0.2 <= strength < 0.9 for strength in strengths)


def test_a_flow_that_knows_levels_shows_them(tmp_path: Path) -> None:
    weights = str(checkpoints.save(tmp_path / "levels.safetensors", levelled_deflow()))
    options = options_of(write_corpus(tmp_path, [3]), degrade={"type": "deflow", "weights": weights}, epochs=1)
    for path, gt, lq in emitted(options, 1):
        found = explained(options, path, 0)
        assert holds(found, gt, lq)
        assert round(found.tiles[0].places[-1].settings["level"], 2) in (2.55, 5.1)


def test_names_that_are_taken(tmp_path: Path) -> None:
    members = [(f"deep/{name}.png", png(noise_image(number))) for number, name in enumerate("abc")]
    first = str(write_tar(tmp_path / "one.tar", members))
    second = str(write_tar(tmp_path / "two.tar", [("other/c.png", png(noise_image(9)))]))
    options = options_of([first, second], degrade=CHAIN, crops_per_image=3)
    seeds = {
        name: [tile.seed for tile in explained(options, name, 0).tiles]
        for name in ("deep/a", "deep/a.png", "a.png", "a", f"{first}/deep/a.png", "deep/a#1", "a.png#1")
    }
    whole = seeds["deep/a"]
    assert len(whole) == 3
    assert all(seeds[name] == ([whole[1]] if "#" in name else whole) for name in seeds)
    assert explained(options, f"{second}/other/c.png", 0).sample.key == "other/c"
    with pytest.raises(OptionError, match=r"2 samples are called 'c.png': name one by its gt_path: .*deep/c.png"):
        explained(options, "c.png", 0)
    with pytest.raises(OptionError, match="no sample is called 'deep/q' among 4 of 2 shards; the nearest is 'deep/"):
        explained(options, "deep/q", 0)
    with pytest.raises(OptionError, match="crops_per_image gives numbers 0 to 2 of each image"):
        explained(options, "a#3", 0)


def test_what_cannot_be_explained(tmp_path: Path) -> None:
    members = [("a.png", png(noise_image(0))), ("small.png", png(noise_image(1, 30, 30))), ("bad.png", b"nothing")]
    shard = str(write_tar(tmp_path / "s.tar", members))
    options = options_of([shard], degrade=CHAIN)
    with pytest.raises(OptionError, match="the first is 0, got -1"):
        explained(options, "a", -1)
    with pytest.raises(ImageError, match="30x30 pixels is smaller than the tile of 48"):
        explained(options, "small", 0)
    with pytest.raises(ImageError, match="not a readable image"):
        explained(options, "bad", 0)
    with pytest.raises(OptionError, match="nothing to explain without `degrade`"):
        explained(options_of([shard]), "a", 0)


def test_a_tile_that_the_filter_drops_is_said_to_be(tmp_path: Path) -> None:
    scorer = str(checkpoints.save(tmp_path / "tiny.safetensors", tiny_scorer()))
    shards = write_corpus(tmp_path, [8])
    limit = {"weights": scorer, "tiles": 4}
    logits = {}
    for number in range(8):
        [tile] = explained(options_of(shards, degrade=CHAIN), f"0_{number:03d}", 0).tiles
        assert tile.gt is not None
        logits[number] = score_image(tiny_scorer(), to_uint8(tile.gt), 4)["degraded_logit"]
    middle = sorted(logits.values())[4] - 1e-4
    options = options_of(shards, degrade=CHAIN, filter={**limit, "max_logit": middle})
    for number, logit in logits.items():
        [tile] = explained(options, f"0_{number:03d}", 0).tiles
        assert tile.dropped == ("filtered" if logit > middle else None)
        assert (tile.gt is None) == (tile.lq == ()) == (logit > middle)


def test_what_a_model_degrades_in_feed_data(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [4])
    chain = [{"type": "resize", "to": "lr"}, {"type": "quantise", "levels": [2, 40]}]
    block = {
        "name": "c",
        "type": "SynthPipeDataset",
        "shards": shards,
        "gt_size": 32,
        "batch_size_per_gpu": 2,
        "pool": 0,
    }
    data = {"scale": 2, "degrade": chain, "datasets": {"train": block}}
    options, of_model = pair_options(data, "x.yml")
    assert options.degrade is None
    with build_stream(options) as stream:
        batch = next(stream)
    assert of_model is not None
    model = build_degrade(of_model, 2)
    expected = model({"gt": batch["gt"], "seed": batch["seed"]})["lq"]
    for row, path in enumerate(batch["gt_path"]):
        [tile] = explained(options, path, 0, of_model=of_model).tiles
        assert tile.seed == int(batch["seed"][row])
        assert tile.patches is None
        assert torch.equal(tile.lq[0], quantize_8bit(expected[row]))
    scheduled = [*chain, {"type": "quantise", "levels": 5, "probability": [[0, 0], [9, 1]]}]
    options, of_model = pair_options({**data, "degrade": scheduled}, "x.yml")
    with pytest.raises(OptionError, match="goes by its iterations: give the images seen before as --seen"):
        explained(options, "0_001", 0, of_model=of_model)
    [tile] = explained(options, "0_001", 0, of_model=of_model, seen=10).tiles
    assert tile.places[-1].applied

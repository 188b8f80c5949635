"""The filter of a stream: what it keeps, counts, and refuses, and that resuming is exact."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import CheckpointError, OptionError, ShardError, StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.plan import Consumer, consumer_segments
from synthpipe.pipeline.stream import Stream
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.density import score_image
from tests.stream_corpus import NoisyHalf, noise_image, png, same_batches, small_options, take, write_tar
from tests.tiny_scorer import tiny_scorer

COUNTS = (9, 2, 7)
SIDE = 48  # of the images: one tile of the stream each, so that a tile and its image have the same number
TILES = 4  # of 16 pixels


def corpus_image(shard: int, number: int) -> np.ndarray:
    """Noise of a contrast of its own."""
    noise = noise_image(1000 * shard + number, SIDE, SIDE).astype(float) - 128
    contrast = 0.05 + 0.9 * ((7 * shard + 5 * number) % 18) / 18
    return (128 + contrast * noise).round().astype(np.uint8)


def all_keys(counts: Sequence[int] = COUNTS) -> list[str]:
    return [f"{shard}_{number:03d}" for shard, count in enumerate(counts) for number in range(count)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    return [
        str(
            write_tar(
                folder / f"s-{shard}.tar",
                [(f"{shard}_{number:03d}.png", png(corpus_image(shard, number))) for number in range(count)],
            )
        )
        for shard, count in enumerate(COUNTS)
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_scorer()))


@pytest.fixture(scope="module")
def logits() -> dict[str, float]:
    """Of every image, each by itself."""
    scorer = tiny_scorer()
    found = {}
    for key in all_keys():
        shard, number = key.split("_")
        image = torch.from_numpy(corpus_image(int(shard), int(number))).permute(2, 0, 1)
        found[key] = score_image(scorer, image, TILES)["degraded_logit"]
    return found


@pytest.fixture(scope="module")
def threshold(logits: Mapping[str, float]) -> float:
    """Keeps 11 of 18, with room for rounding on both sides."""
    ordered = sorted(logits.values())
    assert ordered[11] - ordered[10] > 1e-3
    return (ordered[10] + ordered[11]) / 2


@pytest.fixture(scope="module")
def kept(logits: Mapping[str, float], threshold: float) -> set[str]:
    return {key for key, logit in logits.items() if logit <= threshold}


def write_scores(path: Path, numbers: Mapping[str, float | None]) -> str:
    """A table as ``synthpipe score`` writes it, with pyarrow alone."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "key": pa.array(list(numbers), pa.string()),
        "degraded_logit": pa.array(list(numbers.values()), pa.float64()),
        "worse": pa.array([None if value is None else -value for value in numbers.values()], pa.float64()),
        "error": pa.array(["truncated" if value is None else None for value in numbers.values()], pa.string()),
    }
    about = {"format": "synthpipe-scores", "version": 1, "columns": ["degraded_logit", "worse"]}
    pq.write_table(pa.table(columns).replace_schema_metadata({"synthpipe": json.dumps(about)}), path)
    return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, logits: Mapping[str, float]) -> str:
    return write_scores(tmp_path_factory.mktemp("table") / "scores.parquet", logits)


def open_stream(
    shards: Sequence[str], rule: Mapping[str, Any], rank: int = 0, world_size: int = 1, **changes: Any
) -> Stream:
    """One tile for each image, neither turned nor mirrored, unless ``changes`` say otherwise."""
    options = small_options(shards, hflip=False, rotate=False, filter=dict(rule), **changes)
    return build_stream(options, rank=rank, world_size=world_size, degrade=NoisyHalf())


def keys_of(batches: Sequence[Batch]) -> list[str]:
    return [Path(path).stem for batch in batches for path in batch["gt_path"]]


# What is kept


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pool", [0, 12])
def test_on_the_device_each_sample_is_kept_or_counted(
    shards: list[str], weights: str, threshold: float, kept: set[str], workers: int, pool: int
) -> None:
    rule = {"weights": weights, "tiles": TILES, "max_logit": threshold}
    with open_stream(shards, rule, epochs=1, drop_last=False, workers=workers, pool=pool) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 18, "filtered": 7}
    assert Counter(keys_of(batches)) == dict.fromkeys(kept, 2)
    assert all(set(batch) == {"gt", "lq", "gt_path", "lq_path"} for batch in batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_by_keys_the_same_samples_come_as_by_the_scorer(
    shards: list[str], weights: str, table: str, threshold: float, kept: set[str], workers: int
) -> None:
    rule = {"scores": table, "max_logit": threshold}
    with open_stream(shards, rule, epochs=1, drop_last=False, workers=workers, pool=0, tiles_per_batch=1) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 11, "filtered": 7}
    assert Counter(keys_of(batches)) == dict.fromkeys(kept, 2)
    rule = {"weights": weights, "tiles": TILES, "max_logit": threshold}
    with open_stream(shards, rule, epochs=1, drop_last=False, workers=workers, pool=0, tiles_per_batch=1) as stream:
        assert sorted(keys_of(list(stream))) == sorted(keys_of(batches))


def test_without_workers_both_ways_give_the_same_bits(
    shards: list[str], weights: str, table: str, threshold: float
) -> None:
    rules: list[dict[str, Any]] = [
        {"scores": table, "max_logit": threshold},
        {"weights": weights, "tiles": TILES, "max_logit": threshold},
    ]
    runs = []
    for rule in rules:
        with open_stream(shards, rule, pool=0) as stream:
            runs.append(take(stream, 15))
    assert same_batches(*runs)


def test_without_degradation_clean_patches_are_judged(
    shards: list[str], weights: str, logits: dict[str, float]
) -> None:
    ordered = sorted(logits, key=logits.__getitem__)
    rule = {"weights": weights, "tiles": TILES, "max_logit": (logits[ordered[4]] + logits[ordered[5]]) / 2}
    options = small_options(
        shards, gt_size=SIDE, hflip=False, rotate=False, filter=rule, epochs=1, drop_last=False, pool=0
    )
    with build_stream(options) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 18, "filtered": 13}
    assert sorted(key for batch in batches for key in batch["key"]) == sorted(ordered[:5])
    assert set(batches[0]) == {"gt", "key", "seed", "gt_path"}


def test_the_worst_share_of_a_table_is_rejected(shards: list[str], table: str, logits: dict[str, float]) -> None:
    ordered = sorted(logits, key=logits.__getitem__)
    with open_stream(shards, {"scores": table, "reject": 0.25}, epochs=1, drop_last=False) as stream:
        assert set(keys_of(list(stream))) == set(ordered[:14])  # 4.5 of 18 are 4
    with open_stream(shards, {"scores": table, "reject": 0.25, "by": "worse"}, epochs=1, drop_last=False) as stream:
        assert set(keys_of(list(stream))) == set(ordered[4:])
    with open_stream(shards, {"scores": table, "reject": 0}, epochs=1, drop_last=False) as stream:
        assert set(keys_of(list(stream))) == set(ordered)
        assert stream.counts() == {"used": 18}


def test_the_scorers_own_clean_images_give_the_threshold(
    shards: list[str], weights: str, logits: dict[str, float]
) -> None:
    quantiles = tiny_scorer().quantiles[TILES].double()
    share = 0.7
    rule = {"weights": weights, "tiles": TILES, "clean_quantile": share}
    limit = float(torch.quantile(quantiles, share))
    expected = {key for key, logit in logits.items() if logit <= limit}
    assert 2 < len(expected) < 17
    with open_stream(shards, rule, epochs=1, drop_last=False) as stream:
        assert set(keys_of(list(stream))) == expected
        assert stream.state_dict()["identity"]["filter"]["max_logit"] == pytest.approx(limit, rel=1e-9)


def test_each_crop_is_judged_by_itself(shards: list[str], weights: str, threshold: float) -> None:
    rule = {"weights": weights, "tiles": 1, "max_logit": threshold}
    with open_stream(shards, rule, epochs=1, drop_last=False, crops_per_image=3, tile=12) as stream:
        keys = keys_of(list(stream))
        counts = stream.counts()
    assert len(keys) == 2 * (3 * 18 - counts["filtered"])
    assert any(0 < count < 6 for count in Counter(keys).values())


class NanOn(BatchTransform):
    """Spoils some tiles before they are judged."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = keys

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {"bad": torch.tensor([key in self._keys for key in batch["key"]])}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        return {**batch, "gt": torch.where(params["bad"][:, None, None, None], torch.nan, batch["gt"])}


def test_the_filter_comes_after_transforms_and_does_not_meet_nan(
    shards: list[str], weights: str, threshold: float, kept: set[str]
) -> None:
    spoilt = min(kept)
    rule = {"weights": weights, "tiles": TILES, "max_logit": threshold}
    options = small_options(
        shards, hflip=False, rotate=False, filter=rule, epochs=1, drop_last=False, max_bad_fraction=0.1
    )
    with build_stream(options, degrade=NoisyHalf(), transforms=[NanOn({spoilt})]) as stream:
        assert set(keys_of(list(stream))) == kept - {spoilt}
        assert stream.counts() == {"used": 18, "filtered": 7, "not_finite": 1}


# Ranks and lengths


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("by_keys", [False, True])
def test_ranks_share_the_kept_samples_without_overlap(
    shards: list[str], weights: str, table: str, threshold: float, kept: set[str], workers: int, by_keys: bool
) -> None:
    rule = {"max_logit": threshold} | ({"scores": table} if by_keys else {"weights": weights, "tiles": TILES})
    consumers = 2 * max(workers, 1)
    seen: list[str] = []
    for rank in range(2):
        part = set()
        for worker in range(max(workers, 1)):
            consumer = Consumer(rank * max(workers, 1) + worker, consumers)
            for segment in consumer_segments(COUNTS, 0, 0, consumer):
                part |= {f"{segment.shard}_{number:03d}" for number in range(segment.first, segment.stop)}
        changes = {"workers": workers, "pool": 0, "batch_size": 1, "patches_per_tile": 1, "tiles_per_batch": 1}
        with open_stream(shards, rule, rank, 2, epochs=1, drop_last=False, **changes) as stream:
            keys = keys_of(list(stream))
        # the rank's own samples first; what is missing to the common number of batches comes from its next epochs
        if not workers:
            assert set(keys[: len(part & kept)]) == part & kept
            seen += keys[: len(part & kept)]
        assert part & kept <= set(keys) <= kept
    if not workers:
        assert sorted(seen) == sorted(kept)


@pytest.mark.parametrize("by_keys", [False, True])
def test_finite_ranks_give_equal_numbers_of_full_batches(
    shards: list[str], weights: str, table: str, threshold: float, by_keys: bool
) -> None:
    rule = {"max_logit": threshold} | ({"scores": table} if by_keys else {"weights": weights, "tiles": TILES})
    # two patches of each image; a table says ahead that only 11 images are kept
    fair = 11 // 2 if by_keys else 18 // 2
    for rank in range(2):
        with open_stream(shards, rule, rank, 2, epochs=1) as stream:
            for _ in range(2):
                assert [len(batch["gt"]) for batch in stream] == [4] * (fair * 2 // 4)


def test_a_table_says_how_long_an_epoch_is(shards: list[str], table: str, weights: str, threshold: float) -> None:
    with open_stream(shards, {"scores": table, "max_logit": threshold}, epochs=1) as stream:
        assert stream.batches_per_epoch == 11 * 2 // 4 == len(list(stream))
    rule = {"weights": weights, "tiles": TILES, "max_logit": threshold}
    with open_stream(shards, rule, epochs=1) as stream:
        # not known ahead
        assert stream.batches_per_epoch == 18 * 2 // 4
        assert len(list(stream)) == 11 * 2 // 4


# Resuming


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("by_keys", [False, True])
@pytest.mark.parametrize(("workers", "cuts"), [(0, (0, 1, 4, 6, 7)), (2, (3,))])
@pytest.mark.parametrize("pool", [0, 12])
def test_a_filtered_stream_resumes_anywhere(
    shards: list[str],
    weights: str,
    table: str,
    threshold: float,
    by_keys: bool,
    workers: int,
    cuts: Sequence[int],
    pool: int,
) -> None:
    rule = {"max_logit": threshold} | ({"scores": table} if by_keys else {"weights": weights, "tiles": TILES})
    changes = {"workers": workers, "pool": pool, "crops_per_image": 2}
    states, batches, counts = [], [], []
    with open_stream(shards, rule, **changes) as stream:
        for _ in range(8):
            states.append(through_a_file(stream.state_dict()))
            batches.append(next(stream))
            counts.append(stream.counts())
    for cut in cuts:
        with open_stream(shards, rule, **changes) as resumed:
            resumed.load_state_dict(states[cut])
            rest = []
            for place in range(cut, 8):
                rest.append(next(resumed))
                assert resumed.counts() == counts[place]
        assert same_batches(rest, batches[cut:])


def test_a_state_of_another_filter_is_refused(shards: list[str], weights: str, table: str, threshold: float) -> None:
    state = open_stream(shards, {"weights": weights, "tiles": TILES, "max_logit": threshold}).state_dict()
    others: list[dict[str, Any]] = [
        {"weights": weights, "tiles": TILES, "max_logit": threshold + 1},
        {"weights": weights, "tiles": TILES + 1, "max_logit": threshold},
        {"scores": table, "max_logit": threshold},
    ]
    for rule in others:
        with pytest.raises(StreamError, match=r"another stream \(filter: state .*, here "):
            open_stream(shards, rule).load_state_dict(state)
    with pytest.raises(StreamError, match=r"filter: state .*, here None"):
        build_stream(small_options(shards, hflip=False, rotate=False), degrade=NoisyHalf()).load_state_dict(state)


def test_a_state_fits_the_same_decisions_by_another_table(
    shards: list[str], logits: dict[str, float], tmp_path: Path, table: str, threshold: float
) -> None:
    with open_stream(shards, {"scores": table, "max_logit": threshold}) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    moved = write_scores(tmp_path / "moved.parquet", dict(reversed(logits.items())))
    with open_stream(shards, {"scores": moved, "reject": 0.4}) as stream:  # 7 of 18, as by the threshold
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


def test_a_state_from_before_there_were_filters_still_loads(shards: list[str]) -> None:
    options = small_options(shards)
    with build_stream(options, degrade=NoisyHalf()) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    del state["identity"]["filter"]
    del state["nodes"]["tally"]["kept"]
    with build_stream(options, degrade=NoisyHalf()) as stream:
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


# What must not go on in silence


@pytest.mark.parametrize("workers", [0, 2])
def test_a_filter_that_drops_all_stops_the_stream(shards: list[str], weights: str, workers: int) -> None:
    rule = {"weights": weights, "tiles": TILES, "max_logit": -1000.0}
    with (
        open_stream(shards, rule, workers=workers) as stream,
        pytest.raises(StreamError, match=r"keeps 0 of \d+ tiles \(0\.00%\), less than filter\.min_keep 0\.02"),
    ):
        next(stream)


def test_a_filter_that_drops_too_much_stops_the_stream_later(
    shards: list[str], weights: str, logits: dict[str, float]
) -> None:
    rule = {"weights": weights, "tiles": TILES, "max_logit": min(logits.values()) + 1e-4}
    with (
        open_stream(shards, {**rule, "min_keep": 0.1}, pool=0) as stream,
        pytest.raises(StreamError, match=r"keeps 1\d of 2\d\d tiles \(5\.\d\d%\), less than filter\.min_keep 0\.1"),
    ):
        take(stream, 100)
    with open_stream(shards, {**rule, "min_keep": 0.03}, pool=0) as stream:
        assert len(take(stream, 8)) == 8  # of 16 tiles among some 280


def test_a_table_that_drops_too_much_is_refused_at_once(shards: list[str], table: str) -> None:
    with pytest.raises(OptionError, match=r"keeps 0 of the 18 scored images .* degraded_logit lies in -?\d.*\.\."):
        open_stream(shards, {"scores": table, "max_logit": -1000.0})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_that_keeps_others_stops_the_stream(
    shards: list[str], logits: dict[str, float], tmp_path: Path, workers: int
) -> None:
    # the table holds a larger corpus, and all of this one is on its wrong side
    others = {f"other_{number}": -100.0 for number in range(20)}
    table = write_scores(tmp_path / "x.parquet", {**logits, **others})
    with (
        open_stream(shards, {"scores": table, "max_logit": -50.0}, workers=workers) as stream,
        pytest.raises(StreamError, match=r"keeps 0 of \d+ images"),
    ):
        next(stream)


def test_images_without_a_score_are_bad(shards: list[str], logits: dict[str, float], tmp_path: Path) -> None:
    partial: dict[str, float | None] = {**logits, "0_000": None}
    del partial["2_001"]
    table = write_scores(tmp_path / "x.parquet", partial)
    rule = {"scores": table, "max_logit": 1000.0}
    with open_stream(shards, rule, epochs=1, drop_last=False, max_bad_fraction=0.1) as stream:
        assert set(keys_of(list(stream))) == set(logits) - {"0_000", "2_001"}
        assert stream.counts() == {"used": 16, "unscored": 2}
    with (
        open_stream(shards, rule, epochs=1) as stream,
        pytest.raises(StreamError, match=r"too many bad samples: 2 .*no score for key '\d_00\d' in .*x\.parquet"),
    ):
        list(stream)


def test_a_key_that_stands_for_a_good_and_a_bad_image_is_refused(shards: list[str], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"key": ["a", "b", "a", "b"], "degraded_logit": [0.0, 1.0, 0.1, 3.0]})
    about = {"format": "synthpipe-scores", "version": 1, "columns": ["degraded_logit"]}
    pq.write_table(table.replace_schema_metadata({"synthpipe": json.dumps(about)}), tmp_path / "x.parquet")
    with pytest.raises(OptionError, match="1 keys stand for one image to keep and one to drop"):
        open_stream(shards, {"scores": str(tmp_path / "x.parquet"), "max_logit": 2.0})


# Options


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "exactly one of reject_kinds, max_logit and clean_quantile without scores, got none"),
        ({"max_logit": 0.0, "clean_quantile": 0.9}, "exactly one of reject_kinds, max_logit and clean_quantile"),
        ({"weights": "scorer_small", "reject": 0.1}, r"without scores, got \['reject'\]"),
        ({"scores": "x.parquet"}, "exactly one of reject_kinds, max_logit and reject with scores, got none"),
        (
            {"scores": "x.parquet", "clean_quantile": 0.9},
            "exactly one of reject_kinds, max_logit and reject with scores",
        ),
        ({"scores": "x.parquet", "reject": 0.1, "tiles": 4}, "ready numbers; leave out tiles"),
        ({"scores": "x.parquet", "reject": 1.0}, "less than 1"),
        ({"clean_quantile": 1.5}, "less than 1"),
        ({"max_logit": float("inf")}, "finite"),
        ({"max_logit": 0.0, "by": "contrast"}, "by: expected a table of scores beside it, got 'contrast'"),
        ({"max_logits": 0.0}, r"unknown option 'filter\.max_logits'; did you mean 'max_logit'"),
        ({"max_logit": 0.0, "tiles": 0}, "greater than or equal to 1, got 0"),
    ],
)
def test_rules_that_are_none(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_options(small_options(["x.tar"], filter=rule), StreamOptions)


def test_defaults_name_the_shipped_scorer() -> None:
    options = parse_options(small_options(["x.tar"], filter={"clean_quantile": 0.95}), StreamOptions).filter
    assert options is not None
    assert (options.scorer, options.tiles_used, options.min_keep) == ("scorer_small", 4, 0.02)


def test_what_cannot_be_loaded(shards: list[str], weights: str, tmp_path: Path) -> None:
    rule = {"weights": weights, "max_logit": 0.0}
    with pytest.raises(OptionError, match=r"cuts tiles of 8 pixels, the scorer '.*tiny.*' needs at least 16"):
        build_stream(small_options(shards, gt_size=8, filter=rule))
    with pytest.raises(CheckpointError, match="no weights at 'absent'"):
        open_stream(shards, {"weights": "absent", "max_logit": 0.0})
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected 'density_scorer'"):
        open_stream(shards, {"weights": "deflow_small", "max_logit": 0.0})
    with pytest.raises(ShardError, match=r"absent\.parquet"):
        open_stream(shards, {"scores": str(tmp_path / "absent.parquet"), "reject": 0.1})


@pytest.mark.gpu
def test_on_the_gpu_the_same_samples_are_kept(
    shards: list[str], weights: str, threshold: float, kept: set[str]
) -> None:
    rule = {"weights": weights, "tiles": TILES, "max_logit": threshold}
    options = small_options(shards, hflip=False, rotate=False, filter=rule, epochs=1, drop_last=False, workers=2)
    with build_stream(options, degrade=NoisyHalf(), device="cuda") as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 18, "filtered": 7}
    assert set(keys_of(batches)) == kept
    assert all(batch["lq"].is_cuda for batch in batches)

"""A seed means one degraded image, whatever shares its batch, reads it, or went before."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.errors import OptionError, StreamError
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.pair import PatchCut
from synthpipe.pipeline.source import SourceSettings, TileSource
from synthpipe.pipeline.stream import Stream
from tests.stream_corpus import NoisyHalf, same_batches, small_options, take, write_corpus
from tests.transforms.test_deflow import tiny_deflow

COUNTS = (9, 4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNTS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_deflow()))


DEGRADATIONS: dict[str, dict[str, Any]] = {
    "deflow": {"type": "deflow", "strength": [0.5, 1.0], "samples": 2},
    "classical": {"type": "classical", "blur": {"sigma": [0.5, 1.0]}, "noise": {"type": "gaussian", "sigma": [0, 0.1]}},
}


def degradation(kind: str, weights: str) -> dict[str, Any]:
    return {**DEGRADATIONS[kind], **({"weights": weights} if kind == "deflow" else {})}


def patches_by_content(stream: Stream) -> dict[tuple[str, bytes, int], torch.Tensor]:
    """LR patches by their image's path, their HR partner and the number among those of one partner, of one epoch."""
    found: dict[tuple[str, bytes, int], torch.Tensor] = {}
    with stream:
        for batch in stream:
            for path, gt, lq in zip(batch["gt_path"], batch["gt"], batch["lq"], strict=True):
                pixels, number = gt.numpy().tobytes(), 0
                while (path, pixels, number) in found:
                    number += 1
                found[path, pixels, number] = lq
    return found


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_seed_is_one_image_in_any_batch_and_by_any_reader(kind: str, shards: list[str], weights: str) -> None:
    degrade = degradation(kind, weights)
    usual = {"degrade": degrade, "epochs": 1, "drop_last": False}
    expected = patches_by_content(build_stream(small_options(shards, **usual)))
    assert len(expected) == sum(COUNTS) * 2 * degrade.get("samples", 1)
    for changes in (
        {"tiles_per_batch": 1},
        {"tiles_per_batch": 13, "batch_size": 7, "pool": 0},
        {"workers": 2},
        {"workers": 3, "start_method": "spawn", "pool": 5},
    ):
        found = patches_by_content(build_stream(small_options(shards, **{**usual, **changes})))
        assert found.keys() == expected.keys(), changes
        for key, lq in found.items():
            # Convolutions of another number of tiles may sum in another order, and rounding to 8 bits enlarges that.
            assert (lq - expected[key]).abs().max() <= 1.01 / 255, changes
        differing = torch.stack([(lq != expected[key]).double().mean() for key, lq in found.items()])
        assert differing.mean() < 1e-3, changes


@pytest.mark.parametrize("kind", DEGRADATIONS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_draws_on(kind: str, workers: int, shards: list[str], weights: str) -> None:
    options = small_options(shards, degrade=degradation(kind, weights), workers=workers)
    with build_stream(options) as stream:
        take(stream, 5)
        state = json.loads(json.dumps(stream.state_dict()))
        expected = take(stream, 6)
        assert json.loads(json.dumps(stream.state_dict())) != state
    with build_stream(options) as resumed:
        resumed.load_state_dict(state)
        assert same_batches(take(resumed, 6), expected)


def test_a_state_that_was_taken_does_not_change(shards: list[str], weights: str) -> None:
    for workers in (0, 2):
        options = small_options(shards, degrade=degradation("classical", weights), workers=workers)
        with build_stream(options) as stream:
            next(stream)
            state = stream.state_dict()
            kept = json.dumps(state)
            take(stream, 12)
            assert json.dumps(state) == kept


def test_samples_and_strength_are_options(shards: list[str], weights: str) -> None:
    degrade = {"type": "deflow", "weights": weights}
    two = {**degrade, "samples": 2}
    with build_stream(small_options(shards, degrade=two, pool=0, batch_size=4)) as stream:
        batch = next(stream)  # two patches of each of two degradations of one tile
        assert stream.batches_per_epoch == sum(COUNTS) * 4 // 4
    assert len(set(batch["gt_path"])) == 1
    with build_stream(small_options(shards, degrade=degrade, pool=0, batch_size=4)) as stream:
        single = next(stream)
        assert stream.batches_per_epoch == sum(COUNTS) * 2 // 4
    assert len(set(single["gt_path"])) == 2
    with pytest.raises(OptionError, match=r"strength: expected \[low, high\], got \[1\.0, 0\.5\]"):
        build_stream(small_options(shards, degrade={**degrade, "strength": [1.0, 0.5]}))
    with pytest.raises(OptionError, match=r"degrade\.samples"):
        build_stream(small_options(shards, degrade={**degrade, "samples": 0}))


def test_bf16_is_slightly_another_degradation(shards: list[str]) -> None:
    lq = {}
    for precision in ("32", "bf16"):
        degrade = {"type": "deflow", "weights": "deflow_small", "precision": precision}
        with build_stream(small_options(shards, degrade=degrade, scale=1, gt_size=8)) as stream:
            lq[precision] = torch.cat([batch["lq"] for batch in take(stream, 3)])
    difference = (lq["32"] - lq["bf16"]).abs() * 255
    assert 0 < difference.mean() < 1.5


def test_a_state_of_the_version_before_goes_on_and_says_that_noise_is_another(
    shards: list[str], weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = small_options(shards, degrade={"type": "deflow", "weights": weights})
    with build_stream(options) as stream:
        take(stream, 3)
        state = stream.state_dict()
        expected = take(stream, 3)
    del state["identity"]["noise"]
    with build_stream(options) as resumed:
        resumed.load_state_dict(state)
        assert same_batches(take(resumed, 3), expected)
    assert "drew noise from other generators" in caplog.text


def test_a_clean_stream_has_no_noise_to_tell_of(shards: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with build_stream(small_options(shards)) as stream:
        take(stream, 1)
        state = stream.state_dict()
        expected = take(stream, 1)
        del state["identity"]["noise"]
        stream.load_state_dict(state)
        assert same_batches(take(stream, 1), expected)
    assert not caplog.text


def test_a_ready_degradation_of_other_samples_is_another_stream(shards: list[str]) -> None:
    class Several(NoisyHalf):
        samples = 2

    with build_stream(small_options(shards), degrade=NoisyHalf()) as stream:
        take(stream, 1)
        state = stream.state_dict()
    Several.__name__ = NoisyHalf.__name__
    with (
        build_stream(small_options(shards), degrade=Several()) as other,
        pytest.raises(StreamError, match="degrade: state 'NoisyHalf', here 'NoisyHalf, 2 samples'"),
    ):
        other.load_state_dict(state)


def test_a_reader_hands_over_what_costs_little(shards: list[str]) -> None:
    """One tensor in each record: each further one is a file descriptor, a socket and a hundred calls."""
    options = {"tile": 48, "tiles_per_batch": 3, "crops_per_image": 1, "hflip": True, "rotate": True}
    settings = SourceSettings(
        urls=tuple(shards), counts=COUNTS, seed=0, open_shards=2, shuffle_buffer=5, alpha="white", spool_dir=None,
        rank=0, world_size=1, cut=PatchCut(24, 8, 2, 2, 2), **options,
    )  # fmt: skip
    source = TileSource(settings)
    record = next(iter(source))
    source.close()
    assert [key for key, value in record.items() if isinstance(value, torch.Tensor)] == ["tile"]
    assert record["corner"].shape == (3, 2, 2)

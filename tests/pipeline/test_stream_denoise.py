"""The denoiser of a stream: what tiles become, each sample once, exact resuming, and what a state is for."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import CheckpointError, OptionError, StreamError
from synthpipe.flat_noise import NoiseEstimate
from synthpipe.images import downscale_bicubic, to_float
from synthpipe.pipeline import build
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.stream import Stream
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from tests.stream_corpus import NoisyHalf, noise_image, same_batches, small_options, take, write_corpus
from tests.transforms.test_denoise import tiny_plain

COUNTS = (5, 2, 4)
SIGMA = 0.1


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of 60 x 72."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), COUNTS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.save(tmp_path_factory.mktemp("weights") / "tiny.safetensors", tiny_plain()))


def open_stream(shards: Sequence[str], weights: str, denoise: dict[str, Any] | None = None, **changes: Any) -> Stream:
    rule = {"weights": weights, "sigma": SIGMA} | (denoise or {})
    return build_stream(small_options(shards, denoise=rule, **changes), degrade=NoisyHalf())


def keys_of(batches: Sequence[Batch]) -> list[str]:
    return [Path(path).stem for batch in batches for path in batch["gt_path"]]


def whole_image(key: str, side: int) -> Tensor:
    """``(1, 3, side, side)``."""
    shard, number = map(int, key.split("_"))
    return to_float(torch.from_numpy(noise_image(1000 * shard + number, side, side)).permute(2, 0, 1)[None])


# What tiles become


@pytest.mark.parametrize(("border", "expected_border"), [(None, 3), (0, 0), (5, 5)])
def test_clean_patches_are_the_denoised_middles_of_larger_cuts(
    tmp_path: Path, weights: str, border: int | None, expected_border: int
) -> None:
    side = 16 + 2 * expected_border  # so that the only cut of an image is all of it
    shards = write_corpus(tmp_path, COUNTS, side, side)
    options = small_options(
        shards,
        hflip=False,
        rotate=False,
        epochs=1,
        drop_last=False,
        denoise={"weights": weights, "sigma": SIGMA, "border": border},
    )
    with build_stream(options) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 11}
    transform = Denoise(tiny_plain(), SIGMA)
    patches = {key: x for batch in batches for key, x in zip(batch["key"], batch["gt"], strict=True)}
    assert len(patches) == 11
    inner = slice(expected_border, expected_border + 16)
    for key, patch in patches.items():
        x = whole_image(key, side)
        expected = transform.clean(x)[0, :, inner, inner]
        torch.testing.assert_close(patch, expected, atol=1.01 / 255, rtol=0)
        assert (patch != expected).float().mean() < 0.01
        assert (patch - x[0, :, inner, inner]).abs().mean() > 0.01


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of these tests are nothing but noise, of which nothing is measured: a level by brightness."""

    def estimate(image: Tensor) -> NoiseEstimate:
        level = float(image.mean()) / 5
        spread = torch.full((3,), level, dtype=torch.float64)
        return NoiseEstimate(spread, level, (0.0, 0.0), torch.zeros(3, 9, 9), torch.zeros(3), 1.0)

    monkeypatch.setattr("synthpipe.transforms.denoise_by_image.estimate_noise", estimate)


@pytest.mark.usefixtures("measured")
def test_with_nothing_told_each_tile_is_denoised_by_its_own_noise(tmp_path: Path, weights: str) -> None:
    side = 48
    shards = write_corpus(tmp_path, COUNTS, side, side)
    rule = {"weights": weights, "border": 0}
    options = small_options(shards, hflip=False, rotate=False, epochs=1, drop_last=False, gt_size=side, denoise=rule)
    with build_stream(options) as stream:
        patches = {key: x for batch in stream for key, x in zip(batch["key"], batch["gt"], strict=True)}
    assert len(patches) == 11
    transform = DenoiseByImage(tiny_plain())
    for key, patch in patches.items():
        x = whole_image(key, side)
        assert torch.equal(patch, transform.clean(x)[0])
        assert (patch - x[0]).abs().mean() > 0.01


class Judge(BatchTransform):
    """Notes what a stage after the denoiser is shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        self.seen.append(batch["gt"])
        return batch


class Half(BatchTransform):
    """Bicubic reduction alone."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        return {**batch, "lq": downscale_bicubic(batch["gt"], 2)}


def test_pairs_are_made_of_denoised_tiles(shards: list[str], weights: str) -> None:
    """Both sides of a pair, and transforms before the degradation, see the denoised tile."""
    judge = Judge()
    rule = {"weights": weights, "sigma": SIGMA, "border": 0}
    options = small_options(shards, denoise=rule, epochs=1, drop_last=False, pool=0, margin=0, gt_size=48)
    with build_stream(options, degrade=Half(), transforms=[judge]) as stream:
        batches = list(stream)
    gt = torch.cat([batch["gt"] for batch in batches])
    lq = torch.cat([batch["lq"] for batch in batches])
    assert sorted(map(float, torch.cat(judge.seen).sum((1, 2, 3)))) == sorted(set(map(float, gt.sum((1, 2, 3)))))
    torch.testing.assert_close(lq, (downscale_bicubic(gt, 2).clamp(0, 1) * 255).round() / 255, atol=1e-6, rtol=0)
    with build_stream({**options, "denoise": None}, degrade=Half()) as plain:
        before = torch.cat([batch["gt"] for batch in plain])
    assert before.shape == gt.shape
    assert 0.01 < (gt - before).abs().mean() < 0.2  # the same cuts, denoised; others differ by 0.33


def test_automatic_tiles_leave_room_for_the_border(shards: list[str], weights: str) -> None:
    with open_stream(shards, weights, {"border": 8}, tile=None, epochs=1, drop_last=False) as stream:
        # (60 - 2 * 8) / 2 = 22, in steps of 8
        assert stream.state_dict()["identity"]["tile"] == 16
        assert set(keys_of(list(stream))) == {f"{s}_{n:03d}" for s, count in enumerate(COUNTS) for n in range(count)}


def test_images_without_room_for_the_border_are_counted(shards: list[str], weights: str) -> None:
    changes = {"epochs": 1, "drop_last": False, "max_bad_fraction": 1.0}
    with open_stream(shards, weights, {"border": 6}, **changes) as stream:  # 48 + 12 = 60
        assert len(keys_of(list(stream))) == 22
    with open_stream(shards, weights, {"border": 7}, **changes) as stream:
        with pytest.raises(StreamError, match="gave no batch: 0 images used, skipped: too_small 11; what helps"):
            list(stream)
        assert stream.counts() == {"used": 0, "too_small": 11}


class Breaks(BatchTransform):
    """Turns the tiles of some samples into NaN."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        bad = torch.tensor([key in ("0_001", "2_003") for key in batch["key"]])
        return {**batch, "gt": torch.where(bad[:, None, None, None], torch.nan, batch["gt"])}


def test_tiles_that_come_to_nothing_are_dropped_and_counted(
    shards: list[str], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Denoise):
        def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
            return Breaks()(super().apply(batch, params))

    monkeypatch.setattr(build, "build_denoise", lambda options: Breaking(tiny_plain(), SIGMA))
    with open_stream(shards, weights, epochs=1, drop_last=False, max_bad_fraction=0.1) as stream:
        keys = set(keys_of(list(stream)))
        assert stream.counts() == {"used": 11, "not_finite": 2}
    assert len(keys) == 9
    assert not keys & {"0_001", "2_003"}


# Each sample once, and resuming


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pool", [0, 12])
def test_each_sample_comes_once(shards: list[str], weights: str, workers: int, pool: int) -> None:
    with open_stream(shards, weights, workers=workers, pool=pool, epochs=1, drop_last=False) as stream:
        keys = keys_of(list(stream))
    assert Counter(keys) == {f"{s}_{n:03d}": 2 for s, count in enumerate(COUNTS) for n in range(count)}


def test_the_same_seed_gives_the_same_bits(shards: list[str], weights: str) -> None:
    runs = []
    for _ in range(2):
        with open_stream(shards, weights, {"sigma": "auto", "max_sigma": 0.2}) as stream:
            runs.append(take(stream, 8))
    assert same_batches(*runs)
    with open_stream(shards, weights) as stream:
        assert not same_batches(take(stream, 8), runs[0])


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("sigma", ["auto", None])
@pytest.mark.parametrize(("workers", "pool", "cuts"), [(0, 0, (0, 1, 4, 6)), (0, 12, (1, 4, 6)), (2, 12, (3,))])
def test_a_denoised_stream_resumes_anywhere(
    shards: list[str], weights: str, workers: int, pool: int, cuts: Sequence[int], sigma: str | None
) -> None:
    changes = {"workers": workers, "pool": pool, "crops_per_image": 2}
    states, batches = [], []
    with open_stream(shards, weights, {"sigma": sigma}, **changes) as stream:
        for _ in range(7):
            states.append(through_a_file(stream.state_dict()))
            batches.append(next(stream))
        counts = stream.counts()
    for cut in cuts:
        with open_stream(shards, weights, {"sigma": sigma}, **changes) as resumed:
            resumed.load_state_dict(states[cut])
            assert same_batches(take(resumed, 7 - cut), batches[cut:])
            assert resumed.counts() == counts


def test_a_state_of_another_denoiser_is_refused(shards: list[str], weights: str, tmp_path: Path) -> None:
    state = open_stream(shards, weights).state_dict()
    other = tmp_path / "tiny.safetensors"  # the same name, other weights
    checkpoints.save(other, tiny_plain(seed=1))
    strangers = [
        open_stream(shards, str(other)),
        open_stream(shards, weights, {"sigma": 0.2}),
        open_stream(shards, weights, {"border": 1}),
        open_stream(shards, weights, {"strength": 0.5}),
        open_stream(shards, weights, {"sigma": None}),
        build_stream(small_options(shards), degrade=NoisyHalf()),
    ]
    for stream in strangers:
        with pytest.raises(StreamError, match=r"another stream \(denoise: state .*, here "):
            stream.load_state_dict(state)


def test_the_same_denoiser_in_another_place_is_the_same(shards: list[str], weights: str, tmp_path: Path) -> None:
    with open_stream(shards, weights) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    moved = shutil.copy(weights, tmp_path / "moved.safetensors")
    with open_stream(shards, str(moved), {"border": 3}) as stream:  # as the reach says
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


def test_a_state_from_before_there_were_denoisers_still_loads(shards: list[str]) -> None:
    with build_stream(small_options(shards), degrade=NoisyHalf()) as stream:
        take(stream, 2)
        state, expected = stream.state_dict(), take(stream, 2)
    del state["identity"]["denoise"]
    with build_stream(small_options(shards), degrade=NoisyHalf()) as stream:
        stream.load_state_dict(state)
        assert same_batches(take(stream, 2), expected)


# Options


def test_options_are_checked_where_they_stand(shards: list[str]) -> None:
    for rule, message in (
        ({"weights": "x", "sigma": 25}, r"'denoise\.sigma': expected auto, or a level from 0 to 1"),
        ({"weights": "x", "levels": 1}, r"unknown option 'denoise\.levels'"),
        ({}, r"option 'denoise\.weights' is required"),
        ({"weights": "x", "border": -1}, "greater than or equal to 0"),
    ):
        with pytest.raises(OptionError, match=message):
            parse_options(small_options(shards, denoise=rule), StreamOptions)
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected a denoiser"):
        open_stream(shards, "deflow_small")
    with pytest.raises(CheckpointError, match="no weights at 'absent'"):
        open_stream(shards, "absent")


@pytest.mark.gpu
def test_on_the_gpu_each_sample_comes_once(shards: list[str], weights: str) -> None:
    rule = {"weights": weights, "sigma": "auto"}
    options = small_options(shards, denoise=rule, epochs=1, drop_last=False, workers=2)
    with build_stream(options, degrade=NoisyHalf(), device="cuda") as stream:
        batches = list(stream)
    assert Counter(keys_of(batches)) == {f"{s}_{n:03d}": 2 for s, count in enumerate(COUNTS) for n in range(count)}
    assert all(batch["gt"].is_cuda for batch in batches)

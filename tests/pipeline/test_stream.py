"""The stream as a user meets it: batches, epochs, ranks, workers, counts, refusals."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import synthpipe.pipeline
from synthpipe.config.reader import parse_options
from synthpipe.config.stream import StreamOptions
from synthpipe.errors import OptionError, ShapeError, ShardError, StreamError
from synthpipe.images import downscale_bicubic, quantize_8bit
from synthpipe.pipeline.build import build_stream
from synthpipe.pipeline.stream import Stream
from synthpipe.pipeline.stream_corpus import read_corpus
from synthpipe.seeds import sample_seed
from synthpipe.shards.shard_index import INDEX_NAME, ShardIndex, ShardInfo
from synthpipe.transforms.base import BatchTransform
from synthpipe.transforms.batch import Batch
from tests.stream_corpus import NoisyHalf, noise_image, png, same_batches, small_options, take, write_corpus, write_tar


def open_stream(shards: Sequence[str], rank: int = 0, world_size: int = 1, **changes: Any) -> Stream:
    return build_stream(small_options(shards, **changes), rank=rank, world_size=world_size, degrade=NoisyHalf())


def keys_of(batches: Sequence[Batch]) -> list[str]:
    return [Path(path).stem for batch in batches for path in batch["gt_path"]]


def all_keys(counts: Sequence[int]) -> list[str]:
    return [f"{shard}_{number:03d}" for shard, count in enumerate(counts) for number in range(count)]


def test_a_batch_is_what_basicsr_reads(tmp_path: Path) -> None:
    with open_stream(write_corpus(tmp_path, [4, 5])) as stream:
        batch = next(stream)
    assert set(batch) == {"gt", "lq", "gt_path", "lq_path"}
    assert batch["gt"].shape == (4, 3, 16, 16)
    assert batch["lq"].shape == (4, 3, 8, 8)
    assert batch["gt"].dtype == batch["lq"].dtype == torch.float32
    assert batch["lq_path"] == batch["gt_path"]
    for images in (batch["gt"], batch["lq"]):
        assert torch.equal(images, quantize_8bit(images))


class Half(BatchTransform):
    """Bicubic reduction by 2 alone."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        return {**batch, "lq": downscale_bicubic(batch["gt"], 2)}


def test_pairs_are_aligned(tmp_path: Path) -> None:
    with build_stream(small_options(write_corpus(tmp_path, [9])), degrade=Half()) as stream:
        batch = next(stream)
    # away from the patch's border, reducing the patch equals cutting the reduced tile
    expected = quantize_8bit(downscale_bicubic(batch["gt"], 2))
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(batch["lq"][inner], expected[inner], atol=1e-6, rtol=0)


def test_the_option_names_a_degradation(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [9]), degrade={"type": "classical"})
    with build_stream(options) as stream, build_stream(small_options(options["shards"]), degrade=Half()) as other:
        assert same_batches(take(stream, 5), take(other, 5))


def test_without_degradation_clean_patches_come_with_key_and_seed(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 5])
    with build_stream(small_options(shards, gt_size=20, epochs=1, drop_last=False)) as stream:
        batches = list(stream)
    assert sorted(key for batch in batches for key in batch["key"]) == all_keys([5, 5])
    for batch in batches:
        assert set(batch) == {"gt", "key", "seed", "gt_path"}
        assert batch["gt"].shape[1:] == (3, 20, 20)
        assert batch["seed"].tolist() == [sample_seed(0, 0, key) for key in batch["key"]]
        assert [Path(path).stem for path in batch["gt_path"]] == batch["key"]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("pool", [0, 12])
def test_every_sample_comes_once_per_epoch(tmp_path: Path, workers: int, pool: int) -> None:
    counts = [4, 1, 6]
    shards = write_corpus(tmp_path, counts)
    with open_stream(shards, epochs=1, drop_last=False, workers=workers, pool=pool) as stream:
        passes = [keys_of(list(stream)) for _ in range(2)]
    for keys in passes:
        assert Counter(keys) == dict.fromkeys(all_keys(counts), 2)
    assert passes[0] != passes[1]


def test_a_finite_stream_of_two_epochs_counts_both(tmp_path: Path) -> None:
    with open_stream(write_corpus(tmp_path, [5, 4]), epochs=2, drop_last=False) as stream:
        assert Counter(keys_of(list(stream))) == dict.fromkeys(all_keys([5, 4]), 4)
        assert stream.counts() == {"used": 18}


def test_an_endless_stream_goes_on_into_new_orders_and_drops_nothing(tmp_path: Path) -> None:
    # 9 samples of 2 patches: an epoch is 4.5 batches
    with open_stream(write_corpus(tmp_path, [5, 4]), pool=0) as stream:
        keys = keys_of(take(stream, 18))
    epochs = [keys[start : start + 18] for start in range(0, 72, 18)]
    for epoch in epochs:
        assert Counter(epoch) == dict.fromkeys(all_keys([5, 4]), 2)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_seeds_are_respected(tmp_path: Path) -> None:
    # WebDataset(resampled=True, seed=s) ignores s; .shuffle(n) takes pid and time
    shards = write_corpus(tmp_path, [5, 4])

    def run(seed: int) -> list[Batch]:
        with open_stream(shards, seed=seed) as stream:
            return take(stream, 8)

    assert same_batches(run(1), run(1))
    assert keys_of(run(1)) != keys_of(run(2))


def test_iter_goes_on_where_the_stream_stands(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 4])
    with open_stream(shards) as stream, open_stream(shards) as other:
        pulled = [next(iter(stream)) for _ in range(6)]
        assert same_batches(pulled, take(other, 6))


def test_the_global_generators_are_left_alone(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 4])
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with open_stream(shards, workers=1) as stream:
        take(stream, 3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_only_the_given_rank_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # webdataset reads these variables and then wants an explicit node splitter
    shards = write_corpus(tmp_path, [5, 4])
    with open_stream(shards) as stream:
        expected = take(stream, 3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with open_stream(shards) as stream:
        assert same_batches(take(stream, 3), expected)


def test_ranks_are_disjoint_and_together_complete(tmp_path: Path) -> None:
    counts = [5, 4, 2]
    shards = write_corpus(tmp_path, counts)
    parts = []
    for rank in range(2):
        with open_stream(shards, rank, 2, pool=0, batch_size=1) as stream:
            parts.append(keys_of(take(stream, 2 * ((11 + rank) // 2))))
    assert not set(parts[0]) & set(parts[1])
    assert Counter(parts[0] + parts[1]) == dict.fromkeys(all_keys(counts), 2)


@pytest.mark.parametrize(("drop_last", "expected"), [(True, 2 * 3 * 2 // 4), (False, 2 * 4 * 2 // 4)])
def test_finite_ranks_give_equal_numbers_of_full_batches(tmp_path: Path, drop_last: bool, expected: int) -> None:
    # 11 samples on 3 ranks: shares of 3, 4 and 4
    shards = write_corpus(tmp_path, [5, 4, 2])
    for rank in range(3):
        with open_stream(shards, rank, 3, epochs=2, drop_last=drop_last) as stream:
            for _ in range(2):
                assert [len(batch["gt"]) for batch in stream] == [4] * expected


def test_ranks_stay_in_step_when_samples_are_bad(tmp_path: Path) -> None:
    good, bad = png(noise_image(0)), b"broken"
    shard = str(write_tar(tmp_path / "x.tar", [(f"{i}.png", bad if i < 5 else good) for i in range(16)]))
    lengths = []
    for rank in range(2):
        with open_stream([shard], rank, 2, epochs=1, max_bad_fraction=1, pool=0) as stream:
            lengths.append([len(batch["gt"]) for batch in stream])
    assert lengths[0] == lengths[1] == [4] * (8 * 2 // 4)


@pytest.mark.parametrize("counts", [[6], [1, 1]])
def test_more_workers_than_shards_and_than_samples(tmp_path: Path, counts: list[int]) -> None:
    # webdataset raises in the worker that gets no shard
    shards = write_corpus(tmp_path, counts)
    with open_stream(shards, workers=4, epochs=1, drop_last=False) as stream:
        assert Counter(keys_of(list(stream))) == dict.fromkeys(all_keys(counts), 2)
    with open_stream(shards, workers=4) as stream:
        take(stream, 7)


def test_batches_per_epoch_is_what_comes(tmp_path: Path) -> None:
    with open_stream(write_corpus(tmp_path, [5, 4]), epochs=1) as stream:
        assert stream.batches_per_epoch == 4
        assert len(list(stream)) == 4


def test_prefetching_changes_nothing_but_time(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 4])
    with open_stream(shards) as plain, open_stream(shards, prefetch=3) as ahead:
        assert same_batches(take(plain, 9), take(ahead, 9))


@pytest.mark.slow
def test_spawned_workers_give_the_same(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [5, 4])
    with open_stream(shards, workers=1) as forked, open_stream(shards, workers=1, start_method="spawn") as spawned:
        assert same_batches(take(forked, 6), take(spawned, 6))


def test_a_corpus_in_two_folders_with_equal_file_names(tmp_path: Path) -> None:
    # webdataset's cache keeps one file for both
    first = write_tar(tmp_path / "x.tar", [("a.png", png(np.full((60, 60, 3), 10, np.uint8)))])
    (tmp_path / "b").mkdir()
    second = write_tar(tmp_path / "b" / "x.tar", [("b.png", png(np.full((60, 60, 3), 200, np.uint8)))])
    options = small_options([str(first), str(second)], epochs=1, drop_last=False)
    with build_stream(options, degrade=Half()) as stream:
        values = {
            Path(p).stem: int(gt.mean() * 255 + 0.5)
            for b in stream
            for p, gt in zip(b["gt_path"], b["gt"], strict=True)
        }
    assert values == {"a": 10, "b": 200}


# Errors and counts


def damaged_corpus(folder: Path) -> list[str]:
    image = png(noise_image(0))
    members = [
        (f"{i:02d}.png", image[:50] if i == 3 else png(noise_image(0, 20, 20)) if i == 5 else image) for i in range(10)
    ]
    return [str(write_tar(folder / "x.tar", members))]


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_reach_the_main_process(tmp_path: Path, workers: int) -> None:
    with open_stream(
        damaged_corpus(tmp_path), workers=workers, epochs=1, drop_last=False, max_bad_fraction=0.5
    ) as stream:
        assert len(keys_of(list(stream))) == 16
        assert stream.counts() == {"used": 8, "too_small": 1, "truncated": 1}


def test_counts_are_logged_at_the_end_of_each_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "synthpipe"),
        open_stream(damaged_corpus(tmp_path), epochs=1, drop_last=False, max_bad_fraction=0.5) as stream,
    ):
        for _ in range(2):
            list(stream)
    lines = [record.message for record in caplog.records if "epoch" in record.message]
    assert lines == [
        "epoch 0 done: 8 samples used so far, skipped: too_small 1, truncated 1",
        "epoch 1 done: 16 samples used so far, skipped: too_small 2, truncated 2",
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_fails_when_too_much_is_bad(tmp_path: Path, workers: int) -> None:
    image = png(noise_image(0))
    shard = write_tar(tmp_path / "x.tar", [(f"{i}.png", image if i < 40 else b"") for i in range(60)])
    message = r"too many bad samples: .*truncated.* raise max_bad_fraction"
    with (
        open_stream([str(shard)], workers=workers, shuffle_buffer=100) as stream,
        pytest.raises(StreamError, match=message),
    ):
        take(stream, 1000)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_of_nothing_but_bad_samples_fails_and_does_not_hang(tmp_path: Path, workers: int) -> None:
    shard = write_tar(tmp_path / "x.tar", [(f"{i}.png", b"") for i in range(3)])
    with (
        open_stream([str(shard)], workers=workers, tile=24) as stream,
        pytest.raises(StreamError, match="too many bad"),
    ):
        next(stream)


def test_a_missing_shard_counts_with_the_samples_it_should_have_had(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [4, 7, 3])
    index = ShardIndex(
        tuple(ShardInfo(Path(s).name, n, Path(s).stat().st_size) for s, n in zip(shards, [4, 7, 3], strict=True))
    )
    (tmp_path / INDEX_NAME).write_text(index.to_json())
    Path(shards[1]).unlink()
    with open_stream(shards, epochs=1, drop_last=False, max_bad_fraction=0.5) as stream:
        assert set(keys_of(list(stream))) == {key for key in all_keys([4, 7, 3]) if key[0] != "1"}
        assert stream.counts() == {"used": 7, "missing_shard": 7}


def test_without_an_index_a_missing_shard_counts_as_an_average_one(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [4, 6])
    assert read_corpus([*shards, str(tmp_path / "absent.tar")]).counts == (4, 6, 5)


def test_a_folder_with_an_index_is_a_corpus(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [2, 3])
    infos = tuple(ShardInfo(Path(s).name, n, 1) for s, n in zip(shards, [2, 3], strict=True))
    (tmp_path / INDEX_NAME).write_text(ShardIndex(infos).to_json())
    corpus = read_corpus(str(tmp_path))
    assert corpus.counts == (2, 3)
    assert [Path(url).name for url in corpus.urls] == ["s-0.tar", "s-1.tar"]


class BlindOn(BatchTransform):
    """A degradation that fails on some images with NaN."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = keys

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {"bad": torch.tensor([key in self._keys for key in batch["key"]])}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        lq = downscale_bicubic(batch["gt"], 2)
        lq[params["bad"]] = float("nan")
        return {**batch, "lq": lq}


def test_samples_that_come_out_as_nan_are_dropped_and_counted(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [9]), epochs=1, drop_last=False, max_bad_fraction=0.1)
    with build_stream(options, degrade=BlindOn({"0_002", "0_005"})) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 9, "not_finite": 2}
    assert all(torch.isfinite(batch["lq"]).all() for batch in batches)
    assert set(keys_of(batches)) == set(all_keys([9])) - {"0_002", "0_005"}


class KeepEven(BatchTransform):
    """Leaves out samples whose key is odd."""

    def sample_params(self, batch: Batch) -> dict[str, Any]:
        return {}

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        keep = [place for place, key in enumerate(batch["key"]) if int(key[-1]) % 2 == 0]
        return {
            name: v[keep] if isinstance(v, torch.Tensor) else [v[place] for place in keep] for name, v in batch.items()
        }


def test_a_filter_before_the_degradation_shortens_nothing_but_the_corpus(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [10]), epochs=1, max_bad_fraction=0)
    with build_stream(options, transforms=[KeepEven()], degrade=Half()) as stream:
        batches = list(stream)
        assert stream.counts() == {"used": 10, "filtered": 5}
    assert [len(batch["gt"]) for batch in batches] == [4, 4]
    assert all(int(key[-1]) % 2 == 0 for key in keys_of(batches))


def test_a_degradation_of_another_scale_is_refused(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [4]), scale=4, tile=12, gt_size=16)
    with build_stream(options, degrade=Half()) as stream, pytest.raises(ShapeError, match="gt must be 4 times lq"):
        next(stream)


# Tiles


@pytest.mark.parametrize(("side", "expected"), [(400, 160), (100, 48), (70, 32), (20, 12)])
def test_the_tile_adapts_to_the_images(tmp_path: Path, side: int, expected: int) -> None:
    image = io.BytesIO()
    Image.new("RGB", (side + 9, side)).save(image, "PNG")
    shard = write_tar(tmp_path / "x.tar", [(f"{i}.png", image.getvalue()) for i in range(3)])
    with open_stream([str(shard)], tile=None) as stream:
        # 12 holds a patch of 8 and two margins of 2; smaller images are skipped, and counted
        assert stream.state_dict()["identity"]["tile"] == expected


def test_the_tile_fits_images_in_every_part_of_the_corpus(tmp_path: Path) -> None:
    large, small = png(noise_image(0, 90, 120)), png(noise_image(1, 40, 50))
    members = [(f"{i:02d}.png", large if i < 12 else small) for i in range(16)]
    shards = [*write_corpus(tmp_path, [3], 90, 90), str(write_tar(tmp_path / "x.tar", members))]
    with open_stream(shards, tile=None) as stream:
        assert stream.state_dict()["identity"]["tile"] == 16


@pytest.mark.parametrize(
    ("tile", "given", "expected"), [(24, None, 4), (20, None, 4), (16, None, 2), (12, None, 1), (12, 3, 3)]
)
def test_patches_of_a_tile_have_room_unless_more_are_asked_for(
    tmp_path: Path, tile: int, given: int | None, expected: int
) -> None:
    # a patch of 8 and margins of 2
    options = small_options(write_corpus(tmp_path, [2]), tile=tile, patches_per_tile=given, epochs=1, drop_last=False)
    with build_stream(options, degrade=Half()) as stream:
        assert len(keys_of(list(stream))) == 2 * expected


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gt_size": 18, "scale": 4}, "gt_size must be a multiple of scale 4, got 18"),
        ({"degrade": {"type": "classical"}, "tile": 8}, "12 in all, got 8; enlarge tile"),
        ({"tiles": 3}, "unknown option 'tiles'; did you mean 'tile'"),
        ({"workers": -1}, "greater than or equal to 0, got -1"),
        ({"alpha": "black"}, "'white' or 'refuse'"),
        ({"shards": []}, "shards"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_options({**small_options(["x.tar"]), **changes}, StreamOptions)


def test_a_pipe_runs_only_when_allowed(tmp_path: Path) -> None:
    (shard,) = write_corpus(tmp_path, [4])
    with pytest.raises(OptionError, match="allow_pipe: true"):
        open_stream([f"pipe:cat {shard}"])
    with open_stream([f"pipe:cat {shard}"], allow_pipe=True, epochs=1, drop_last=False) as stream:
        assert Counter(keys_of(list(stream))) == dict.fromkeys(all_keys([4]), 2)


def test_shards_that_do_not_exist_or_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no samples in 1 shard,"):
        open_stream([str(tmp_path / "absent.tar")])
    with pytest.raises(ShardError, match="no samples in 1 shard,"):
        open_stream([str(write_tar(tmp_path / "x.tar", []))])
    with pytest.raises(ShardError, match=r"compressed shards have no addresses"):
        open_stream([str(tmp_path / "x.tar.gz")])
    with pytest.raises(OptionError, match="spool_dir: no such folder"):
        open_stream(write_corpus(tmp_path, [2]), spool_dir=str(tmp_path / "nowhere"))


def test_a_protocol_that_nobody_speaks() -> None:
    with pytest.raises(ShardError, match="Protocol not known: nosuch"):
        open_stream(["nosuch://bucket/s-0.tar"])


def test_ranks_that_do_not_fit(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [2])
    with pytest.raises(StreamError, match=r"rank must be in 0\.\.1 for a world size of 2, got 2"):
        open_stream(shards, 2, 2)
    with pytest.raises(StreamError, match="2 samples cannot be split over 3 ranks"):
        open_stream(shards, 0, 3)


def test_a_device_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    options = small_options(write_corpus(tmp_path, [4]), degrade={"type": "classical"})
    with pytest.raises(OptionError, match="device: 'nonsense' cannot be used here"):
        build_stream(options, device="nonsense")
    with build_stream(options, device="auto") as stream:
        assert next(stream)["gt"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_script_that_ends_with_an_open_stream_ends_well(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [9])
    options = small_options(shards, degrade={"type": "classical", "jpeg_quality": [50, 90]}, prefetch=3)
    script = (
        "from synthpipe.pipeline import build_stream\n"
        f"stream = build_stream({options!r})\n"
        "for _ in range(3): next(stream)\n"
    )
    for _ in range(3):  # it was an abort in five of six
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_closed_stream_says_so(tmp_path: Path) -> None:
    with open_stream(write_corpus(tmp_path, [4])) as stream:
        next(stream)
    with pytest.raises(StreamError, match="closed; build a new one"):
        next(stream)


def test_the_public_names() -> None:
    assert synthpipe.pipeline.build_stream is build_stream
    assert synthpipe.pipeline.Stream is Stream
    with pytest.raises(AttributeError, match="build_stream"):
        _ = synthpipe.pipeline.build_streams


class FailsOnce(Half):
    """Runs out of memory once."""

    def __init__(self, at: int) -> None:
        self._calls_left = at

    def apply(self, batch: Batch, params: dict[str, Any]) -> Batch:
        self._calls_left -= 1
        if self._calls_left == 0:
            raise MemoryError("no memory left on the device")
        return super().apply(batch, params)


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("pool", [0, 12])
def test_after_an_error_the_same_batch_is_made_again(tmp_path: Path, prefetch: int, pool: int) -> None:
    options = small_options(write_corpus(tmp_path, [9]), pool=pool, batch_size=5, prefetch=prefetch)
    with build_stream(options, degrade=Half()) as stream:
        expected = take(stream, 9)
    for at in range(1, 8):
        batches = []
        with build_stream(options, degrade=FailsOnce(at)) as stream:
            while len(batches) < 9:
                try:
                    batches.append(next(stream))
                except MemoryError:
                    failed_at = len(batches)
        assert same_batches(batches, expected)
        assert failed_at < 9


@pytest.mark.gpu
def test_on_the_gpu_a_stream_gives_what_it_gives_on_the_cpu(tmp_path: Path) -> None:
    shards = write_corpus(tmp_path, [9, 4])
    with open_stream(shards, workers=2) as plain:
        expected = take(plain, 20)
    options = small_options(shards, workers=2, prefetch=2)
    with build_stream(options, degrade=NoisyHalf(), device="cuda") as stream:
        first = take(stream, 8)
        state = stream.state_dict()
    with build_stream(options, degrade=NoisyHalf(), device="cuda") as stream:
        stream.load_state_dict(state)
        batches = first + take(stream, 12)
    for ours, theirs in zip(batches, expected, strict=True):
        assert ours["gt_path"] == theirs["gt_path"]
        assert ours["gt"].is_cuda
        assert torch.equal(ours["gt"].cpu(), theirs["gt"])
        # resizing sums in another order there, so that a value may round to the neighbouring level
        assert (ours["lq"].cpu() - theirs["lq"]).abs().max() < 1.01 / 255

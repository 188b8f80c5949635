"""An index that says something else than its shards hold: told of when the shard is opened, and counted."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import pytest

from synthpipe.corpus.image_units import find_units
from synthpipe.errors import StreamError
from synthpipe.pipeline.build import build_stream
from tests.stream_corpus import NoisyHalf, noise_image, png, small_options, write_corpus

IMAGES = 8


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return Path(write_corpus(tmp_path / "set", [IMAGES])[0])


def write_index(shard: Path, samples: int, size: int | None = None, sha256: str | None = None) -> str:
    entry = {"name": shard.name, "samples": samples, "bytes": size or shard.stat().st_size}
    entry |= {} if sha256 is None else {"sha256": sha256}
    index = {"format": "synthpipe-shards", "version": 1, "samples": samples, "shards": [entry]}
    (shard.parent / "index.json").write_text(json.dumps(index))
    return str(shard.parent)


def passes(shards: Any, number: int = 1, **changes: Any) -> tuple[int, list[dict[str, int]]]:
    options = small_options([], epochs=1, drop_last=False, patches_per_tile=1, max_bad_fraction=1.0)
    emitted, counts = 0, []
    with build_stream(options | {"shards": shards, **changes}, degrade=NoisyHalf()) as stream:
        for _ in range(number):
            emitted += sum(len(batch["gt_path"]) for batch in stream)
            counts.append(stream.counts())
    return emitted, counts


@pytest.mark.parametrize("workers", [0, 2])
def test_fewer_samples_than_there_are(shard: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    emitted, counts = passes(write_index(shard, 5), 2, workers=workers)
    assert emitted == 10
    assert counts == [{"used": 5, "unlisted_sample": 3}, {"used": 10, "unlisted_sample": 6}]
    if not workers:
        assert f"{shard}: 3 samples more than the 5 that its index lists, never read." in caplog.text
        assert "remove the index" in caplog.text


def test_the_alarm(shard: Path) -> None:
    with pytest.raises(StreamError, match=r"unlisted_sample 3.*3 samples more than the 5 that its index lists"):
        passes(write_index(shard, 5), max_bad_fraction=0.02)


def test_more_samples_than_there_are(shard: Path) -> None:
    assert passes(write_index(shard, 11))[1] == [{"used": IMAGES, "truncated_shard": 3}]


def test_a_sample_appended_later(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = shard.stat().st_size
    folder = write_index(shard, IMAGES)
    with tarfile.open(shard, "a") as tar:
        data = png(noise_image(99))
        info = tarfile.TarInfo("late.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert passes(folder)[1] == [{"used": IMAGES, "unlisted_sample": 1}]
    assert f"{shard}: has {shard.stat().st_size} bytes and {size} by its index: " in caplog.text


@pytest.mark.parametrize("change", [-1, 1])
def test_other_bytes(shard: Path, change: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_index(shard, IMAGES, shard.stat().st_size + change)
    assert passes(folder)[1] == [{"used": IMAGES}]
    assert sum("bytes and" in line and "by its index" in line for line in caplog.messages) == 1


def test_right_ones_say_nothing(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "synthpipe"):
        assert passes(write_index(shard, IMAGES), 2) == (16, [{"used": IMAGES}, {"used": 2 * IMAGES}])
    assert not caplog.messages


def said_of_bytes(shard: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Once the threads that read beside the stream are through."""
    for thread in threading.enumerate():
        if thread.name.startswith("checksum "):
            thread.join(20)
    return [line for line in caplog.messages if line.startswith(f"{shard}: has other bytes than its index says")]


def test_other_bytes_of_the_same_number(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last byte of a tar is padding: no image is damaged, and the file is not the one that was indexed."""
    folder = write_index(shard, IMAGES, sha256=hashlib.sha256(shard.read_bytes()).hexdigest())
    assert passes(folder, epochs=2)[1] == [{"used": 2 * IMAGES}]
    assert said_of_bytes(shard, caplog) == []
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert passes(folder, epochs=2)[1] == [{"used": 2 * IMAGES}]
    (said,) = said_of_bytes(shard, caplog)
    assert hashlib.sha256(shard.read_bytes()).hexdigest()[:12] in said


@pytest.mark.parametrize("right", [True, False])
def test_bytes_of_a_remote_shard(right: bool, shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = fsspec.filesystem("memory")
    write_index(shard, IMAGES, sha256=hashlib.sha256(shard.read_bytes()).hexdigest() if right else "0" * 64)
    for path in (shard, shard.parent / "index.json"):
        files.pipe_file(f"/listed/{path.name}", path.read_bytes())
    try:
        assert passes("memory://listed", epochs=2)[1] == [{"used": 2 * IMAGES}]
    finally:
        files.rm("/listed", recursive=True)
    assert sum("has other bytes than its index says" in line for line in caplog.messages) == (not right)


def test_of_a_remote_shard(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = fsspec.filesystem("memory")
    write_index(shard, 5, 1)
    for path in (shard, shard.parent / "index.json"):
        files.pipe_file(f"/listed/{path.name}", path.read_bytes())
    try:
        assert passes("memory://listed")[1] == [{"used": 5, "unlisted_sample": 3}]
    finally:
        files.rm("/listed", recursive=True)
    assert f"has {shard.stat().st_size} bytes and 1 by its index" in caplog.text


def test_a_resumed_stream_counts_once(shard: Path) -> None:
    options = small_options([write_index(shard, 5)], epochs=1, batch_size=1, max_bad_fraction=1.0)
    with build_stream(options, degrade=NoisyHalf()) as stream:
        for _ in range(4):
            next(stream)
        state = stream.state_dict()
    with build_stream(options, degrade=NoisyHalf()) as stream:
        stream.load_state_dict(state)
        list(stream)
        assert stream.counts() == {"used": 5, "unlisted_sample": 3}


def test_an_index_of_a_million_samples_takes_no_memory(shard: Path) -> None:
    """Addresses are made as they are needed, and the losses end the stream."""
    folder = write_index(shard, 1_000_000)
    options = small_options([], epochs=1, batch_size=1, shuffle_buffer=0) | {"shards": folder}
    with build_stream(options, degrade=NoisyHalf()) as stream:
        tracemalloc.start()
        with pytest.raises(StreamError, match=r"truncated_shard 100\d\d.* the shard ends after 8 samples"):
            list(stream)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()


@pytest.mark.parametrize(("samples", "more"), [(5, 0), (11, 0), (IMAGES, 1), (IMAGES, 0)])
def test_other_readers_read_all_and_say_so(
    samples: int, more: int, shard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = shard.stat().st_size
    (unit,) = find_units([write_index(shard, samples, size + more)])
    with unit.open() as (_, images):
        assert len(list(images)) == IMAGES
    said = f"{shard}: holds {IMAGES} samples in {size} bytes, and by its index {samples} in {size + more}"
    assert (said in caplog.text) == bool(more or samples != IMAGES)

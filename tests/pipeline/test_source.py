"""One reader: what it yields, what it skips and counts, and that its state is exact."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe.pipeline import source as source_module
from synthpipe.pipeline.source import USED, SourceSettings, TileReader, TileSource
from synthpipe.seeds import sample_seed
from synthpipe.shards import shard_reader
from tests.stream_corpus import noise_image, png, write_corpus, write_tar


def settings_for(urls: list[str], counts: list[int], **changes: Any) -> SourceSettings:
    given: dict[str, Any] = {
        "urls": tuple(urls),
        "counts": tuple(counts),
        "seed": 5,
        "tile": 20,
        "tiles_per_batch": 3,
        "crops_per_image": 1,
        "hflip": True,
        "rotate": True,
        "open_shards": 2,
        "shuffle_buffer": 4,
        "alpha": "white",
        "spool_dir": None,
        "rank": 0,
        "world_size": 1,
    }
    return SourceSettings(**{**given, **changes})


def reader_for(settings: SourceSettings, stop: int | None = 1) -> TileReader:
    return TileReader(settings, worker=0, workers=1, epoch=0, stop=stop)


def drain(reader: TileReader) -> list[dict[str, Any]]:
    return list(reader)


def keys_of(records: list[dict[str, Any]]) -> list[str]:
    return [key for record in records for key in record["key"]]


def counts_of(urls: list[str], counts: list[int], **changes: Any) -> dict[str, int]:
    """What one epoch counts."""
    return drain(reader_for(settings_for(urls, counts, **changes)))[-1]["counts"]


def test_every_tile_is_a_turned_window_of_its_own_image(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [4, 3], height=26, width=30)
    images = {f"{s}_{i:03d}": noise_image(1000 * s + i, 26, 30) for s, n in enumerate([4, 3]) for i in range(n)}
    records = drain(reader_for(settings_for(urls, [4, 3])))
    assert sorted(keys_of(records)) == sorted(images)
    for record in records:
        for tile, key, path in zip(record["tile"], record["key"], record["path"], strict=True):
            assert path == f"{urls[int(key[0])]}/{key}.png"
            pixels = tile.numpy().transpose(1, 2, 0)
            turned = [np.rot90(p, t) for p in (pixels, pixels[:, ::-1]) for t in range(4)]
            windows = np.lib.stride_tricks.sliding_window_view(images[key], (20, 20), axis=(0, 1))
            windows = windows.transpose(0, 1, 3, 4, 2).reshape(-1, 20, 20, 3)
            assert any((windows == candidate).all((1, 2, 3)).any() for candidate in turned)


def test_seeds_come_from_stream_seed_epoch_and_key_alone(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [5, 4])
    reader = reader_for(settings_for(urls, [5, 4], tiles_per_batch=1), stop=2)
    for record in reader:
        assert record["seed"].tolist() == [sample_seed(5, record["epoch"], record["key"][0])]


def test_a_sample_does_not_depend_on_order_or_batching(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [5, 4])

    def tiles(**changes: Any) -> dict[str, bytes]:
        records = drain(reader_for(settings_for(urls, [5, 4], **changes)))
        return {
            k: t.numpy().tobytes() for record in records for k, t in zip(record["key"], record["tile"], strict=True)
        }

    assert tiles() == tiles(tiles_per_batch=2, open_shards=1, shuffle_buffer=0)


def test_several_crops_of_an_image_have_their_own_keys_and_seeds(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [3])
    records = drain(reader_for(settings_for(urls, [3], crops_per_image=4)))
    keys = keys_of(records)
    assert sorted(keys) == sorted(f"0_{i:03d}#{c}" for i in range(3) for c in range(4))
    assert len({seed for record in records for seed in record["seed"].tolist()}) == 12
    assert records[-1]["counts"] == {USED: 3}


def corpus_with_damage(folder: Path) -> tuple[list[str], list[int]]:
    """Nine good images among seven that are bad for five reasons."""
    urls = write_corpus(folder, [4, 6])
    third = write_tar(
        folder / "s-2.tar",
        [
            ("a.png", png(noise_image(1))),
            ("b.png", png(noise_image(2))[:100]),
            ("c.json", b"{}"),
            ("d.png", b"not an image"),
            ("e.png", png(noise_image(3, 10, 10))),
        ],
    )
    # cut inside the data of the fifth image: four are whole
    size = len(png(noise_image(1004))) + 512
    data = Path(urls[1]).read_bytes()
    cut = next(i for i in range(0, len(data), 512) if data[i : i + 9] == b"1_004.png") + size // 2
    Path(urls[1]).write_bytes(data[:cut])
    return [*urls, str(third), str(folder / "absent.tar")], [4, 6, 5, 2]


DAMAGE = {
    USED: 9,
    "truncated_shard": 2,
    "truncated": 1,
    "missing_image": 1,
    "unreadable": 1,
    "too_small": 1,
    "missing_shard": 2,
}


def test_bad_samples_are_skipped_and_counted_by_reason(tmp_path: Path) -> None:
    urls, counts = corpus_with_damage(tmp_path)
    records = drain(reader_for(settings_for(urls, counts)))
    assert sorted(keys_of(records)) == [*(f"0_{i:03d}" for i in range(4)), *(f"1_{i:03d}" for i in range(4)), "a"]
    assert records[-1]["counts"] == DAMAGE


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("damaged", [False, True])
def test_state_is_exact_after_every_batch(tmp_path: Path, crops: int, damaged: bool) -> None:
    urls, counts = corpus_with_damage(tmp_path) if damaged else (write_corpus(tmp_path, [4, 5]), [4, 5])
    settings = settings_for(urls, counts, crops_per_image=crops)
    reader = reader_for(settings, stop=3)
    states, records = [reader.state_dict()], []
    for record in reader:
        records.append(record)
        states.append(reader.state_dict())
    for place, state in enumerate(states):
        resumed = reader_for(settings, stop=3)
        resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
        assert resumed.state_dict() == state
        rest = drain(resumed)
        assert [record["counts"] for record in rest] == [record["counts"] for record in records[place:]]
        assert keys_of(rest) == keys_of(records[place:])
        for left, right in zip(rest, records[place:], strict=True):
            assert torch.equal(left["tile"], right["tile"])
            assert np.array_equal(left["seed"], right["seed"])


def test_no_sample_is_read_ahead_of_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # webdataset's `batched` asks for sample n + 1 before it emits n
    urls = write_corpus(tmp_path, [9])
    decoded: list[str] = []
    real = source_module.decode_image

    def counting(data: bytes, name: str, **options: Any) -> np.ndarray:
        decoded.append(name)
        return real(data, name, **options)

    monkeypatch.setattr(source_module, "decode_image", counting)
    reader = reader_for(settings_for(urls, [9]))
    next(reader)
    assert len(decoded) == 3
    assert reader.state_dict()["position"] == 3
    reader.close()


def test_state_stays_small_whatever_the_buffer(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [9])
    reader = reader_for(settings_for(urls, [9], shuffle_buffer=100_000), stop=None)
    for _ in range(7):
        next(reader)
    assert len(pickle.dumps(reader.state_dict())) < 500
    reader.close()


def test_shards_are_closed_when_the_plan_is_through_with_them(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [2] * 12)
    reader = reader_for(settings_for(urls, [2] * 12, shuffle_buffer=0, tiles_per_batch=1))
    for _ in reader:
        assert len(reader._readers) <= 3
    assert len(reader._readers) == 0


def test_only_so_many_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = write_corpus(tmp_path, [4] * 8)
    expected = drain(reader_for(settings_for(urls, [4] * 8, shuffle_buffer=100)))
    monkeypatch.setattr(shard_reader, "_OPEN_FILES", 2)
    reader = reader_for(settings_for(urls, [4] * 8, shuffle_buffer=100))
    records = []
    for record in reader:
        records.append(record)
        assert sum(shard.awake for shard in reader._readers._open.values()) <= 2
    assert keys_of(records) == keys_of(expected)
    assert all(torch.equal(a["tile"], b["tile"]) for a, b in zip(records, expected, strict=True))


def test_fewer_samples_than_readers_ends_instead_of_spinning(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [2])
    readers = [TileReader(settings_for(urls, [2]), worker, 5, 0, None) for worker in range(5)]
    found = [next(reader, None) for reader in readers]
    assert [record is None for record in found].count(True) == 3


def test_a_reader_that_meets_only_bad_samples_reports(tmp_path: Path) -> None:
    reader = reader_for(settings_for([str(tmp_path / "absent.tar")], [50]), stop=None)
    record = next(reader)
    assert record["key"] == []
    assert record["tile"].shape == (0, 3, 20, 20)
    assert record["counts"] == {"missing_shard": 32}


def test_bad_samples_after_the_last_tile_are_reported(tmp_path: Path) -> None:
    urls = [str(write_tar(tmp_path / "x.tar", [("a.png", png(noise_image(0))), ("b.png", b""), ("c.png", b"")]))]
    records = drain(reader_for(settings_for(urls, [3], tiles_per_batch=1, shuffle_buffer=0)))
    assert [record["key"] for record in records] == [["a"], []]
    assert records[-1]["counts"] == {USED: 1, "truncated": 2}


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_members_are_never_unpickled(tmp_path: Path) -> None:
    # webdataset's generic decoder would load .pth and .pyd members
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    urls = [str(write_tar(tmp_path / "x.tar", [("a.pyd", trap), ("a.pth", trap), ("a.png", png(noise_image(0)))]))]
    assert keys_of(drain(reader_for(settings_for(urls, [1])))) == ["a"]
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../a.png", png(noise_image(0)))], "unsafe_name"),
        ([("/etc/a.png", png(noise_image(0)))], "unsafe_name"),
        ([("a.png", png(noise_image(0))), ("a.png", png(noise_image(1)))], "duplicate_key"),
        ([("a.txt", b"no image")], "missing_image"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], reason: str) -> None:
    urls = [str(write_tar(tmp_path / "x.tar", members))]
    assert counts_of(urls, [1]) == {reason: 1}


def test_a_key_that_comes_again_later_is_refused(tmp_path: Path) -> None:
    image = png(noise_image(0))
    urls = [str(write_tar(tmp_path / "x.tar", [("a.png", image), ("b.png", image), ("a.png", image)]))]
    assert counts_of(urls, [3]) == {USED: 2, "duplicate_key": 1}


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100])
def test_a_file_that_is_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    assert counts_of([str(path)], [3]) == {"unreadable_shard": 3}


def test_transparent_images_by_option(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 4), np.uint8)).save(buffer, "PNG")
    urls = [str(write_tar(tmp_path / "x.tar", [("a.png", buffer.getvalue())]))]
    assert counts_of(urls, [1], alpha="refuse") == {"alpha": 1}
    (record,) = drain(reader_for(settings_for(urls, [1])))
    assert (record["tile"] == 255).all()


def test_extra_files_and_folders_in_the_tar_are_harmless(tmp_path: Path) -> None:
    members = [
        ("__meta__/info.json", b"{}"), ("x/a.json", b"{}"), ("x/a.png", png(noise_image(0))), ("x/a.cls", b"3"),
        ("y/b.jpg", png(noise_image(1))),
    ]  # fmt: skip
    urls = [str(write_tar(tmp_path / "x.tar", members))]
    assert sorted(keys_of(drain(reader_for(settings_for(urls, [2]))))) == ["x/a", "y/b"]


def test_a_source_crosses_process_borders(tmp_path: Path) -> None:
    urls = write_corpus(tmp_path, [3])
    copy = pickle.loads(pickle.dumps(TileSource(settings_for(urls, [3]), first_epoch=2, epochs=1)))
    assert [record["epoch"] for record in copy] == [2]

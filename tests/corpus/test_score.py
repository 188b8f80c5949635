"""The table of scores: what is in it, and that no kill, engine, cache or cutting into shards changes it."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import weakref
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image

from synthpipe import checkpoints
from synthpipe.config.score import ScoreOptions
from synthpipe.corpus import score as shard_score
from synthpipe.corpus.image_units import StoredImage
from synthpipe.corpus.score_table import ScoreRow
from synthpipe.errors import CheckpointError, OptionError, ShardError
from synthpipe.files import storage
from synthpipe.files.decode import Decoded, decode_image
from synthpipe.shards import engine
from synthpipe.shards.shard_names import expand_urls
from synthpipe.transforms.density import score_image
from tests.scored_corpus import encoded, everything, rows_of, score, shard_photos, write_photos, write_weights
from tests.shards.test_pack import die_at, run_and_die
from tests.stream_corpus import samples_by_webdataset, write_tar
from tests.tiny_scorer import tiny_scorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight pictures in three shards."""
    return shard_photos(photos, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def table(weights: str, shards: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("table") / "hr.parquet"
    score(weights, shards, path)
    return path.read_bytes()


def never(*args: object, **kwargs: object) -> None:
    pytest.fail("computed again")


class TestRows:
    def test_one_for_each_sample_with_its_own_numbers(self, weights: str, shards: str, tmp_path: Path) -> None:
        report = score(weights, shards, tmp_path / "hr.parquet")
        assert (report.images, report.scored, report.units, report.errors) == (8, 8, 3, {})
        rows = rows_of(tmp_path / "hr.parquet")
        scorer = tiny_scorer()
        for row, sample in zip(rows, samples_by_webdataset(expand_urls(shards)), strict=True):
            about = json.loads(sample["json"])
            suffix = "png" if "png" in sample else "jpg"
            assert row["key"] == sample["__key__"]
            assert row["shard"] == Path(sample["__url__"]).name
            assert row["path"] == f"{sample['__key__']}.{suffix}"
            assert row["source"] == {"city": "city", "wood": "wood"}.get(about["source"].split("/")[0], "")
            assert (row["width"], row["height"], row["bytes"]) == (30, 24, len(sample[suffix]))
            assert row["sha256"] == about["sha256"] == hashlib.sha256(sample[suffix]).hexdigest()
            pixels = torch.from_numpy(decode_image(sample[suffix], "x").pixels).permute(2, 0, 1)
            expected = score_image(scorer, pixels, tiles=4)
            assert {name: row[name] for name in expected} == expected
            assert row["error"] is None
        assert len({row["degraded_logit"] for row in rows}) == 8

    def test_metadata_says_what_scored(self, weights: str, shards: str, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        score(weights, shards, tmp_path / "hr.parquet")
        about = json.loads(pq.read_schema(tmp_path / "hr.parquet").metadata[b"synthpipe"])
        assert about["scorer"] == checkpoints.fingerprint_of(tiny_scorer())
        assert (about["tiles"], about["images"], about["kind"]) == (4, 8, "shards")
        assert about["columns"] == [*tiny_scorer().columns, "degraded_logit_q10", "degraded_logit_q90"]

    def test_images_that_cannot_be_used_are_rows_with_the_reason(self, weights: str, tmp_path: Path) -> None:
        whole = encoded(0)
        members = [
            ("a.png", whole),
            ("a.json", b"no json {"),
            ("b.png", whole[:-60]),
            ("c.png", encoded(1, height=15, width=40)),
            ("d.txt", b"words alone"),
            ("e.png", whole),
            ("e.PNG", whole),
            ("f/../g.png", whole),
            ("h.jpg", b"not an image"),
            ("a.png", encoded(3)),
            ("i.JPEG", encoded(2, "JPEG")),
        ]
        shard = write_tar(tmp_path / "odd.tar", members)
        report = score(weights, str(shard), tmp_path / "odd.parquet")
        found = {(row["key"], row["error"]) for row in rows_of(tmp_path / "odd.parquet")}
        assert found == {
            ("a", None),
            ("a", "duplicate_key"),
            ("b", "truncated"),
            ("c", "too_small"),
            ("d", "missing_image"),
            ("e", "duplicate_key"),
            ("f/../g", "unsafe_name"),
            ("h", "unreadable"),
            ("i", None),
        }
        assert report.errors == {
            "duplicate_key": 2,
            "missing_image": 1,
            "too_small": 1,
            "truncated": 1,
            "unreadable": 1,
            "unsafe_name": 1,
        }
        assert (report.images, report.scored) == (9, 2)
        small = next(row for row in rows_of(tmp_path / "odd.parquet") if row["key"] == "c")
        assert (small["width"], small["height"], small["degraded_logit"]) == (40, 15, None)

    @pytest.mark.parametrize("damage", ["cut", "header"])
    def test_a_damaged_shard_is_used_as_far_as_it_goes(self, weights: str, tmp_path: Path, damage: str) -> None:
        data = write_tar(tmp_path / "x.tar", [(f"{n}.png", encoded(n)) for n in range(4)]).read_bytes()
        size = len(encoded(0)) // 512 * 512 + 1024
        data = data[: 2 * size + 700] if damage == "cut" else data[: 2 * size] + b"\xff" * 512 + data[2 * size + 512 :]
        (tmp_path / "x.tar").write_bytes(data)
        score(weights, str(tmp_path / "x.tar"), tmp_path / "x.parquet")
        rows = [(row["key"], row["error"]) for row in rows_of(tmp_path / "x.parquet")]
        assert rows[:2] == [("0", None), ("1", None)]
        assert rows[-1] == ("", "truncated_shard")
        assert ("3", None) not in rows

    def test_nothing_can_be_scored(self, weights: str, tmp_path: Path) -> None:
        (tmp_path / "text.tar").write_bytes(b"no tar at all")
        report = score(weights, str(tmp_path / "text.tar"), tmp_path / "x.parquet")
        assert (report.scored, report.errors) == (0, {"unreadable_shard": 1})

    def test_shards_of_one_name_are_told_apart(self, weights: str, tmp_path: Path) -> None:
        for number, folder in enumerate(("one", "two")):
            (tmp_path / folder).mkdir()
            write_tar(tmp_path / folder / "s.tar", [("x.png", encoded(number))])
        score(weights, str(tmp_path / "one"), tmp_path / "x.parquet")
        report = score(weights, (str(tmp_path / "one"), str(tmp_path / "two")), tmp_path / "x.parquet")
        assert report.reused_units == 1
        first, second = rows_of(tmp_path / "x.parquet")
        assert (first["shard"], second["shard"]) == ("one/s.tar", "two/s.tar")
        assert first["sha256"] != second["sha256"]

    def test_names_in_any_script_and_in_none(self, weights: str, tmp_path: Path) -> None:
        names = ["写真/été", "a b'c\"<x>&", "x\udcff", "long" * 60]
        shard = write_tar(tmp_path / "s.tar", [(f"{name}.png", encoded(n)) for n, name in enumerate(names)])
        score(weights, str(shard), tmp_path / "x.parquet")
        rows = rows_of(tmp_path / "x.parquet")
        assert [row["key"] for row in rows] == [*names[:2], "x\\udcff", names[3]]
        assert [row["source"] for row in rows] == ["写真", "", "", ""]

    def test_a_folder_has_the_numbers_of_its_shards(
        self, weights: str, photos: Path, table: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / "in").mkdir()
        for path in photos.rglob("*.*"):
            target = tmp_path / "in" / path.relative_to(photos)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        (tmp_path / "in" / "bad.png").write_bytes(b"no image")
        report = score(weights, str(tmp_path / "in"), tmp_path / "x.parquet")
        assert report.errors == {"unreadable": 1}
        rows = {row["key"]: row for row in rows_of(tmp_path / "x.parquet") if row["error"] is None}
        (tmp_path / "y.parquet").write_bytes(table)
        for row in rows_of(tmp_path / "y.parquet"):
            alike = rows.pop(row["key"])
            same = [name for name in row if name not in ("shard", "path")]
            assert {name: row[name] for name in same} == {name: alike[name] for name in same}
            assert alike["shard"] is None
        assert rows == {}

    def test_shards_behind_a_url(self, weights: str, shards: str, table: bytes) -> None:
        memory = fsspec.filesystem("memory")
        for url in expand_urls(shards):
            memory.pipe_file(f"/bucket/{Path(url).name}", Path(url).read_bytes())
        try:
            for _ in range(2):
                report = score(weights, "memory://bucket/*.tar", "memory://out/hr.parquet")
                assert memory.cat_file("/out/hr.parquet") == table
            assert report.reused_units == 3
        finally:
            memory.rm("/bucket", recursive=True)
            memory.rm("/out", recursive=True)

    def test_more_rows_than_a_row_group(
        self, weights: str, shards: str, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import pyarrow.parquet as pq

        from synthpipe.corpus import score_table

        monkeypatch.setattr(score_table, "_ROW_GROUP", 3)
        score(weights, shards, tmp_path / "x.parquet")
        metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
        assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [3, 3, 2]
        (tmp_path / "y.parquet").write_bytes(table)
        assert rows_of(tmp_path / "x.parquet") == rows_of(tmp_path / "y.parquet")


class TestKill:
    def test_at_every_image(
        self, weights: str, shards: str, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in (0, 2, 3, 7):
            out = tmp_path / str(number)
            with monkeypatch.context() as patch:
                patch.setattr(shard_score, "decode_image", die_at(number, shard_score.decode_image))
                run_and_die(lambda out=out: score(weights, shards, out / "hr.parquet", cache=str(out / "cache")))
            assert not (out / "hr.parquet").exists()
            assert len(list((out / "hr.parts").glob("*.parquet"))) == number // 3
            report = score(weights, shards, out / "hr.parquet", cache=str(out / "cache"))
            assert report.reused_units == number // 3
            assert (out / "hr.parquet").read_bytes() == table

    @pytest.mark.parametrize("after", [False, True])
    def test_at_every_rename(
        self, weights: str, shards: str, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        for number in range(3 + 1):
            out = tmp_path / f"{number}.parquet"
            with monkeypatch.context() as patch:
                patch.setattr(storage.os, "replace", die_at(number, os.replace, after))
                run_and_die(lambda out=out: score(weights, shards, out))
            score(weights, shards, out)
            assert out.read_bytes() == table
            assert everything(out.with_suffix(".parts")).keys() == everything(tmp_path / "0.parts").keys()

    @pytest.mark.parametrize("workers", [2, 5])
    def test_the_number_of_workers_changes_nothing(
        self, weights: str, shards: str, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        """With forked workers, which start at once; spawned ones, as in earnest, are in `test_engine.py`."""
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(engine.multiprocessing, "get_context", lambda name: fork)
        report = score(weights, shards, tmp_path / "x.parquet", workers=workers, cache=str(tmp_path / "cache"))
        assert (report.misses, report.scored) == (8, 8)
        assert (tmp_path / "x.parquet").read_bytes() == table


class TestResume:
    def test_finished_shards_are_not_scored_again(
        self, weights: str, shards: str, table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = score(weights, shards, tmp_path / "hr.parquet")
        (tmp_path / "hr.parquet").unlink()
        monkeypatch.setattr(shard_score, "score_image", never)
        again = score(weights, shards, tmp_path / "hr.parquet")
        assert (again.images, again.errors, again.reused_units) == (first.images, first.errors, 3)
        assert (again.hits, again.misses) == (0, 0)
        assert (tmp_path / "hr.parquet").read_bytes() == table

    def test_another_copy_of_the_same_weights_is_the_same_scorer(
        self, weights: str, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        score(weights, shards, tmp_path / "hr.parquet")
        copy = checkpoints.save(tmp_path / "tiny.safetensors", tiny_scorer(), {"note": "another card"})
        monkeypatch.setattr(shard_score, "score_image", never)
        assert score(str(copy), shards, tmp_path / "hr.parquet").reused_units == 3

    def test_what_has_changed_is_scored_again(self, weights: str, photos: Path, tmp_path: Path) -> None:
        shards = shard_photos(photos, tmp_path / "hr")
        out = tmp_path / "hr.parquet"
        score(weights, shards, out)
        assert score(weights, shards, out, tiles=2).reused_units == 0
        assert score(write_weights(tmp_path / "other.safetensors", seed=1), shards, out, tiles=2).reused_units == 0
        assert score(weights, shards, out).reused_units == 0
        whole = out.read_bytes()
        shard = Path(shards) / "shard-000001.tar"
        os.utime(shard, ns=(0, 0))
        assert score(weights, shards, out).reused_units == 2
        part = next((tmp_path / "hr.parts").glob("shard-000002*"))
        part.write_bytes(part.read_bytes()[:-9])
        assert score(weights, shards, out).reused_units == 2
        assert out.read_bytes() == whole

    def test_a_shard_that_changes_while_it_is_scored_is_scored_again(
        self, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shard = write_tar(tmp_path / "s.tar", [("0.png", encoded(0))])
        other = write_tar(tmp_path / "new.tar", [("1.png", encoded(1)), ("2.png", encoded(2))])

        def replaced_under_way(data: bytes, name: str, **options: Any) -> Decoded:
            os.replace(other, shard)
            return decode_image(data, name, **options)

        with monkeypatch.context() as patch:
            patch.setattr(shard_score, "decode_image", replaced_under_way)
            score(weights, str(shard), tmp_path / "x.parquet")
        assert score(weights, str(shard), tmp_path / "x.parquet").reused_units == 0
        assert [row["key"] for row in rows_of(tmp_path / "x.parquet")] == ["1", "2"]

    def test_more_shards_cost_only_themselves(self, weights: str, shards: str, table: bytes, tmp_path: Path) -> None:
        out = tmp_path / "hr.parquet"
        urls = expand_urls(shards)
        score(weights, tuple(urls[:2]), out)
        assert score(weights, tuple(urls), out).reused_units == 2
        assert out.read_bytes() == table

    def test_two_runs_at_once(self, weights: str, shards: str, tmp_path: Path) -> None:
        def again(done: int, total: int, images: int) -> None:
            with pytest.raises(ShardError, match="another run is writing here"):
                score(weights, shards, tmp_path / "hr.parquet")

        score(weights, shards, tmp_path / "hr.parquet", again)


class TestCache:
    def test_a_corpus_sharded_anew_is_not_computed_again(
        self, weights: str, photos: Path, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = str(tmp_path / "cache")
        first = score(weights, shards, tmp_path / "one.parquet", cache=cache)
        assert (first.hits, first.misses) == (0, 8)
        other = shard_photos(photos, tmp_path / "other", max_samples=5, seed=1)
        with monkeypatch.context() as patch:
            patch.setattr(shard_score, "score_image", never)
            second = score(weights, other, tmp_path / "two.parquet", cache=cache)
        assert (second.hits, second.misses) == (8, 0)
        one, two = ({row["key"]: row for row in rows_of(tmp_path / f"{name}.parquet")} for name in ("one", "two"))
        assert {key: row | {"shard": ""} for key, row in one.items()} == {
            key: row | {"shard": ""} for key, row in two.items()
        }
        # Other settings are other numbers.
        assert score(weights, other, tmp_path / "three.parquet", cache=cache, tiles=1).misses == 8

    def test_with_and_without_it_the_table_is_the_same(
        self, weights: str, shards: str, table: bytes, tmp_path: Path
    ) -> None:
        for name in ("one", "two"):
            score(weights, shards, tmp_path / f"{name}.parquet", cache=str(tmp_path / "cache"))
            assert (tmp_path / f"{name}.parquet").read_bytes() == table

    def test_equal_images_are_computed_once(self, weights: str, tmp_path: Path) -> None:
        members = [(f"{n}.png", encoded(7)) for n in range(4)] + [("bad.png", b"x"), ("worse.png", b"x")]
        shard = str(write_tar(tmp_path / "s.tar", members))
        report = score(weights, shard, tmp_path / "x.parquet", cache=str(tmp_path / "cache"))
        assert (report.hits, report.misses, report.errors) == (4, 2, {"unreadable": 2})

    def test_a_damaged_one_says_what_to_do(self, weights: str, shards: str, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        score(weights, shards, tmp_path / "one.parquet", cache=str(cache))
        (file,) = cache.glob("*.sqlite")
        file.write_bytes(b"no database" * 500)
        with pytest.raises(ShardError, match=r"cannot be used .* delete the file"):
            score(weights, shards, tmp_path / "two.parquet", cache=str(cache))


class TestRefusals:
    def test_weights_of_another_kind(self, shards: str, tmp_path: Path) -> None:
        path = checkpoints.save(tmp_path / "dde.safetensors", tiny_scorer().dde)
        with pytest.raises(CheckpointError, match="holds a 'dde' model, expected 'density_scorer'"):
            score(str(path), shards, tmp_path / "x.parquet")

    def test_weights_that_change_under_way(self, weights: str, shards: str, tmp_path: Path) -> None:
        path = write_weights(tmp_path / "w.safetensors")

        def change(done: int, total: int, images: int) -> None:
            write_weights(tmp_path / "w.safetensors", seed=5)

        shard_score._scorer.cache_clear()
        with pytest.raises(CheckpointError, match="not the weights that this run was begun with"):
            score(path, shards, tmp_path / "x.parquet", change)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_a_device_that_is_not_there(self, weights: str, shards: str, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match="device: 'cuda' cannot be used here"):
            score(weights, shards, tmp_path / "x.parquet", device="cuda")

    def test_pyarrow_that_is_not_installed(
        self, weights: str, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(OptionError, match=r"pip install 'synthpipe\[score\]'"):
            score(weights, shards, tmp_path / "x.parquet")

    def test_sources_that_are_none(self, weights: str, shards: str, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for source, error, message in [
            ((shards, str(photos)), OptionError, "is a folder of images and"),
            ((str(tmp_path / "empty"),), ShardError, "no images and no shards"),
            ((str(tmp_path / "no.tar"),), ShardError, r"no\.tar: no such shard"),
            (("pipe:cat x.tar",), OptionError, "runs a shell command"),
            ((str(tmp_path / "x.tar.gz"),), ShardError, "compressed"),
        ]:
            with pytest.raises(error, match=message):
                score(weights, source, tmp_path / "x.parquet")

    def test_pipe_that_is_allowed(self, weights: str, shards: str, tmp_path: Path) -> None:
        url = f"pipe:cat {expand_urls(shards)[0]}"
        assert score(weights, url, tmp_path / "x.parquet", allow_pipe=True).scored == 3
        assert score(weights, url, tmp_path / "x.parquet", allow_pipe=True).reused_units == 0

    @pytest.mark.parametrize("output", ["hr.csv", "folder/", ".parquet", "x/.parquet"])
    def test_names_that_are_no_table(self, output: str) -> None:
        with pytest.raises(ValueError, match="output"):
            ScoreOptions(weights="w", source=("x",), output=output)


def test_an_image_is_scored_on_one_thread(
    weights: str, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def watched(*args: object, **kwargs: object) -> dict[str, float]:
        threads.append(torch.get_num_threads())
        return score_image(*args, **kwargs)  # type: ignore[arg-type]

    before = torch.get_num_threads()
    monkeypatch.setattr(shard_score, "score_image", watched)
    torch.set_num_threads(2)
    try:
        score(weights, shards, tmp_path / "x.parquet")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1] * 8


def test_one_image_is_held_at_a_time(
    weights: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: weakref.WeakSet[StoredImage] = weakref.WeakSet()
    counts: list[int] = []
    row = shard_score._Scoring.row

    def watched(scoring: shard_score._Scoring, image: StoredImage) -> ScoreRow:
        held.add(image)
        counts.append(len(held))
        return row(scoring, image)

    monkeypatch.setattr(shard_score._Scoring, "row", watched)
    shards = shard_photos(photos, tmp_path / "hr", max_samples=100)
    for source in (shards, str(photos)):
        score(weights, source, tmp_path / "x.parquet")
    # the one at work, and at times the one before it
    assert len(counts) == 16
    assert max(counts) <= 2


def test_deep_images_are_rounded_without_a_word(weights: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    buffer = io.BytesIO()
    Image.new("I;16", (20, 20), 30000).save(buffer, "PNG")
    score(weights, str(write_tar(tmp_path / "s.tar", [("deep.png", buffer.getvalue())])), tmp_path / "x.parquet")
    assert not [warning for warning in recwarn if "8 bits" in str(warning.message)]

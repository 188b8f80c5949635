"""Kept shards: which samples, with which bytes; and that no kill, engine or other corpus slips in."""

from __future__ import annotations

import hashlib
import io
import json
import math
import multiprocessing
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.config.score import CorpusFilterOptions
from synthpipe.corpus import shard_filter
from synthpipe.corpus.filter import FilterOutcome, filter_corpus
from synthpipe.corpus.keep_rule import Decisions, State, choose_gallery, reject_threshold
from synthpipe.errors import OptionError, ShardError
from synthpipe.files import storage
from synthpipe.pipeline.build import build_stream
from synthpipe.shards import engine
from synthpipe.shards.shard_index import read_index
from synthpipe.shards.shard_names import build_index, expand_urls
from synthpipe.shards.tar_sink import TarSink
from tests.scored_corpus import encoded, everything, rows_of, score, shard_photos, write_photos, write_weights
from tests.shards.test_pack import die_at, run_and_die
from tests.stream_corpus import write_tar


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 11)


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eleven pictures in four shards."""
    return shard_photos(photos, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def scores(weights: str, shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "hr.parquet"
    score(weights, shards, path)
    return path


@pytest.fixture(scope="module")
def kept_half(scores: Path, shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing disturbed leaves when it rejects five of eleven."""
    out = tmp_path_factory.mktemp("half") / "out"
    keep(shards, scores, out, reject=0.5)
    return out


def streamed(shards: str, **options: Any) -> list[tuple[str, bytes]]:
    """Where each patch comes from within its shard, and its pixels, of one epoch."""
    settings = {"shards": shards, "gt_size": 16, "scale": 1, "batch_size": 2, "epochs": 1, "drop_last": False}
    with build_stream(settings | options) as stream:
        batches = list(stream)
    return sorted(
        (path.partition(".tar/")[2], tile.numpy().tobytes())
        for batch in batches
        for path, tile in zip(batch["gt_path"], batch["gt"], strict=True)
    )


def keep(source: Any, scores: Path | str, out: Path | str, **options: Any) -> FilterOutcome:
    on_progress = options.pop("on_progress", None)
    places = (source,) if isinstance(source, str) else tuple(source)
    settings = {"source": places, "scores": str(scores), "output": str(out)} | options
    return filter_corpus(CorpusFilterOptions(**settings), on_progress)


def members(path: Path | str) -> list[tuple[str, bytes, int, int]]:
    """Name, bytes, mode and time of every member, by the standard library."""
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read(), m.mode, m.mtime) for m in tar]  # type: ignore[union-attr]


def edit_scores(scores: Path, target: Path, **columns: Any) -> Path:
    """The table with some columns replaced."""
    table = pq.read_table(scores)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, target)
    return target


def test_kept_shards_stream_what_the_table_lets_through(shards: str, scores: Path, kept_half: Path) -> None:
    """Scored, filtered, streamed: the same patches of the same samples, whether before or while they are read."""
    written = streamed(str(kept_half))
    assert len(written) == read_index(kept_half).samples == 6
    assert written == streamed(shards, filter={"scores": str(scores), "reject": 0.5, "min_keep": 0})


class TestRule:
    @given(
        st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]) | st.floats(-9, 9), min_size=1, max_size=40),
        st.floats(0, 0.999),
    )
    def test_rejects_at_most_the_share_and_no_fewer_than_ties_allow(self, values: list[float], reject: float) -> None:
        threshold = reject_threshold(np.array(values), reject)
        rejected = [value for value in values if value > threshold]
        assert threshold in values
        assert len(rejected) <= reject * len(values) + 1e-6
        # The next lower threshold would reject more than the share.
        assert sum(value >= threshold for value in values) > reject * len(values) - 1e-6

    @pytest.mark.parametrize(("reject", "kept"), [(0, 100), (0.29, 71), (0.5, 50), (0.999, 1)])
    def test_shares_of_a_hundred(self, reject: float, kept: int) -> None:
        values = np.random.default_rng(0).permutation(100).astype(float)
        assert (values <= reject_threshold(values, reject)).sum() == kept

    def test_what_is_kept(self, shards: str, scores: Path, tmp_path: Path) -> None:
        logits = {row["key"]: row["degraded_logit"] for row in rows_of(scores)}
        for reject, count in ((0.0, 11), (0.2, 9), (0.5, 6), (0.95, 1)):
            out = tmp_path / str(reject)
            outcome = keep(shards, scores, out, reject=reject)
            kept = {name.split(".")[0] for url in expand_urls(out) for name, *_ in members(url)}
            assert kept == set(sorted(logits, key=logits.__getitem__)[:count])
            assert (outcome.kept, outcome.images, outcome.index.samples) == (count, 11, count)
            threshold = outcome.decisions.thresholds[None]
            again = keep(shards, scores, tmp_path / f"{reject} again", max_logit=threshold)
            assert again.decisions.states.tolist() == outcome.decisions.states.tolist()

    def test_by_another_column(self, shards: str, scores: Path, tmp_path: Path) -> None:
        keep(shards, scores, tmp_path / "out", reject=0.3, by="contrast")
        values = {row["key"]: row["contrast"] for row in rows_of(scores)}
        kept = {name.split(".")[0] for url in expand_urls(tmp_path / "out") for name, *_ in members(url)}
        assert kept == set(sorted(values, key=values.__getitem__)[:8])

    def test_the_worst_of_each_source(self, shards: str, scores: Path, tmp_path: Path) -> None:
        outcome = keep(shards, scores, tmp_path / "out", reject=0.5, per_source=True)
        rows = rows_of(scores)
        for source in ("city", "wood", ""):
            states = [
                state for row, state in zip(rows, outcome.decisions.states, strict=True) if row["source"] == source
            ]
            assert states.count(State.REJECTED) == len(states) // 2
        assert set(outcome.decisions.thresholds) == {"city", "wood", ""}

    def test_what_has_no_score_is_left_out_by_reason(self, shards: str, scores: Path, tmp_path: Path) -> None:
        logits: list[float | None] = [row["degraded_logit"] for row in rows_of(scores)]
        logits[1], logits[4], logits[5] = None, math.nan, math.inf
        errors = [None, "truncated", *[None] * 9]
        table = edit_scores(scores, tmp_path / "x.parquet", degraded_logit=logits, error=errors)
        outcome = keep(shards, table, tmp_path / "out", reject=0.0)
        assert outcome.decisions.without_score == {"truncated": 1}
        assert [outcome.decisions.count(state) for state in State] == [8, 0, 1, 2]
        told = json.loads((tmp_path / "out" / "report.json").read_text())
        assert (told["kept"], told["not_finite"], told["without_score"]) == (8, 2, {"truncated": 1})

    def test_equal_values_meet_the_same_fate(self, shards: str, scores: Path, tmp_path: Path) -> None:
        table = edit_scores(scores, tmp_path / "x.parquet", degraded_logit=[1.0] * 6 + [2.0] * 5)
        assert keep(shards, table, tmp_path / "a", reject=0.3).kept == 11
        assert keep(shards, table, tmp_path / "b", reject=0.5).kept == 6

    def test_gallery(self) -> None:
        values = np.linspace(-5, 5, 201)
        states = np.where(values <= 1, State.KEPT, State.REJECTED).astype(np.int8)
        decisions = Decisions("x", values, states, {None: 1.0}, np.ones(201), {})
        gallery = choose_gallery(decisions, seed=3)
        assert gallery.worst == tuple(range(200, 176, -1))
        assert gallery.barely_kept == tuple(range(120, 108, -1))
        assert gallery.barely_rejected == tuple(range(121, 133))
        assert len(set(gallery.kept)) == 24
        assert max(gallery.kept) <= 120
        assert choose_gallery(decisions, seed=3) == gallery
        assert choose_gallery(decisions, seed=4).kept != gallery.kept


class TestBytes:
    def test_kept_members_are_the_very_same(self, shards: str, scores: Path, kept_half: Path) -> None:
        kept = 0
        for url in expand_urls(kept_half):
            original = members(Path(shards) / Path(url).name)
            found = members(url)
            assert [member for member in original if member in found] == found
            assert len(found) == 2 * len({name.rsplit(".", 1)[0] for name, *_ in found})
            kept += len(found) // 2
        assert kept == 6

    def test_all_kept_is_a_copy(self, shards: str, scores: Path, tmp_path: Path) -> None:
        keep(shards, scores, tmp_path / "out", reject=0)
        names = [Path(url).name for url in expand_urls(shards)]
        assert all((tmp_path / "out" / name).read_bytes() == (Path(shards) / name).read_bytes() for name in names)
        assert (tmp_path / "out" / "index.json").read_bytes() == (Path(shards) / "index.json").read_bytes()

    def test_index(self, kept_half: Path) -> None:
        index, counted = read_index(kept_half), build_index(str(kept_half))
        assert [(s.samples, s.bytes) for s in index.shards] == [(s.samples, s.bytes) for s in counted.shards]
        for entry, url in zip(index.shards, index.urls(), strict=True):
            assert hashlib.sha256(Path(url).read_bytes()).hexdigest() == entry.sha256

    @pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    def test_shards_of_other_tools(self, weights: str, tmp_path: Path, layout: int) -> None:
        """Members in any order, names of any length and case, several images and other files in a sample."""
        path = tmp_path / "s.tar"
        parts: list[tuple[str, bytes]] = [("__info__/x", b"skipped")]
        for number in range(4):
            key = f"{'very' * 40}/Ünïcode {number}"
            parts += [
                (f"{key}.txt", b"a caption"),
                (f"{key}.PNG", encoded(number)),
                (f"{key}.seg.png", b"mask"),
                (f"{key}.cls", b""),
            ]
        with tarfile.open(path, "w", format=layout) as tar:
            for number, (name, data) in enumerate(parts):
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.mode = len(data), 1000 + number, 0o640
                tar.addfile(info, io.BytesIO(data))
        score(weights, str(path), tmp_path / "x.parquet")
        outcome = keep(str(path), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)
        kept = {
            row["key"]
            for row, s in zip(rows_of(tmp_path / "x.parquet"), outcome.decisions.states, strict=True)
            if not s
        }
        assert members(tmp_path / "out" / "s.tar") == [m for m in members(path) if m[0].split(".")[0] in kept]

    def test_a_damaged_shard_gives_what_is_whole(self, weights: str, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "s.tar", [(f"{n}.png", encoded(n)) for n in range(4)])
        path.write_bytes(path.read_bytes()[: 2 * (len(encoded(0)) // 512 * 512 + 1024) + 700])
        score(weights, str(path), tmp_path / "x.parquet")
        outcome = keep(str(path), tmp_path / "x.parquet", tmp_path / "out", reject=0)
        assert [name for name, *_ in members(tmp_path / "out" / "s.tar")] == ["0.png", "1.png"]
        assert outcome.decisions.without_score["truncated_shard"] >= 1

    def test_shards_of_one_name(self, weights: str, tmp_path: Path) -> None:
        for number, folder in enumerate(("one", "two")):
            (tmp_path / folder).mkdir()
            write_tar(tmp_path / folder / "s.tar", [("x.png", encoded(number))])
        source = (str(tmp_path / "one"), str(tmp_path / "two"))
        score(weights, source, tmp_path / "x.parquet")
        keep(source, tmp_path / "x.parquet", tmp_path / "out", reject=0)
        assert [entry.name for entry in read_index(tmp_path / "out").shards] == ["one-s.tar", "two-s.tar"]

    def test_a_file_url_is_a_folder_of_this_machine(
        self, shards: str, scores: Path, kept_half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        keep(shards, scores, f"file://{tmp_path}/out", reject=0.5)
        assert everything(tmp_path / "out") == everything(kept_half)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_behind_a_url(self, shards: str, scores: Path, kept_half: Path) -> None:
        memory = fsspec.filesystem("memory")
        try:
            for url in expand_urls(shards):
                memory.pipe_file(f"/bucket/{Path(url).name}", Path(url).read_bytes())
            memory.pipe_file("/scores/hr.parquet", scores.read_bytes())
            keep("memory://bucket/*.tar", "memory://scores/hr.parquet", "memory://out", reject=0.5)
            found = {name.removeprefix("/out/"): memory.cat_file(name) for name in memory.find("/out")}
            local = everything(kept_half)
            same = [name for name in local if not name.endswith("plan.json")]
            assert {name: found[name] for name in same} == {name: local[name] for name in same}
        finally:
            for place in ("/bucket", "/scores", "/out"):
                memory.rm(place, recursive=True)


class TestKill:
    @pytest.mark.parametrize("after", [False, True])
    def test_at_every_rename(
        self, shards: str, scores: Path, kept_half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
    ) -> None:
        whole = everything(kept_half)
        renames = len(whole)
        assert renames == 1 + 4 + len(list(kept_half.glob("*.tar"))) + 2  # plan; states; shards; report and index
        for number in range(renames):
            out = tmp_path / str(number)
            with monkeypatch.context() as patch:
                patch.setattr(storage.os, "replace", die_at(number, os.replace, after))
                run_and_die(lambda out=out: keep(shards, scores, out, reject=0.5))
            if number < renames - 1:
                assert not (out / "index.json").exists()
            keep(shards, scores, out, reject=0.5)
            assert everything(out) == whole

    def test_in_the_middle_of_a_shard(
        self, shards: str, scores: Path, kept_half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(TarSink, "copy", die_at(4, TarSink.copy))
            run_and_die(lambda: keep(shards, scores, tmp_path / "out", reject=0.5))
        with pytest.raises(ShardError, match="has not finished here"):
            expand_urls(tmp_path / "out")
        keep(shards, scores, tmp_path / "out", reject=0.5)
        assert everything(tmp_path / "out") == everything(kept_half)

    def test_workers_change_nothing(
        self, shards: str, scores: Path, kept_half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fork = multiprocessing.get_context("fork")
        monkeypatch.setattr(engine.multiprocessing, "get_context", lambda name: fork)
        keep(shards, scores, tmp_path / "out", reject=0.5, workers=3)
        assert everything(tmp_path / "out") == everything(kept_half)

    def test_finished_shards_are_not_written_again(
        self, shards: str, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = keep(shards, scores, tmp_path / "out", reject=0.5)
        whole = everything(tmp_path / "out")
        with monkeypatch.context() as patch:
            patch.setattr(TarSink, "copy", lambda *args: pytest.fail("written again"))
            again = keep(shards, scores, tmp_path / "out", reject=0.5)
        assert (again.pictures, again.names, again.index) == (first.pictures, first.names, first.index)
        shard = next((tmp_path / "out").glob("*.tar"))
        damaged = bytearray(shard.read_bytes())
        damaged[700] ^= 1
        shard.write_bytes(damaged)
        keep(shards, scores, tmp_path / "out", reject=0.5)
        assert everything(tmp_path / "out") == whole


class TestFolders:
    @pytest.fixture
    def folder(self, photos: Path, tmp_path: Path) -> Path:
        shutil.copytree(photos, tmp_path / "in")
        (tmp_path / "in" / "bad.png").write_bytes(b"no image")
        return tmp_path / "in"

    def test_a_list(self, weights: str, folder: Path, tmp_path: Path) -> None:
        score(weights, str(folder), tmp_path / "x.parquet")
        outcome = keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)
        rows = [row for row in rows_of(tmp_path / "x.parquet") if row["error"] is None]
        rows.sort(key=lambda row: row["degraded_logit"])
        kept = (tmp_path / "out" / "kept.txt").read_text().splitlines()
        assert sorted(kept) == sorted(row["path"] for row in rows[:6])
        assert outcome.kept == 6
        assert not (tmp_path / "out" / "index.json").exists()
        assert all((folder / name).is_file() for name in kept)

    def test_a_finished_list_is_not_made_again(
        self, weights: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        score(weights, str(folder), tmp_path / "x.parquet")
        first = keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)
        whole = everything(tmp_path / "out")
        with monkeypatch.context() as patch:
            patch.setattr(shard_filter, "decode_image", lambda *args: pytest.fail("read again"))
            assert keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5).pictures == first.pictures
        assert everything(tmp_path / "out") == whole
        # An earlier version left nothing about the files, so that they are looked at once more.
        state = tmp_path / "out" / "_state" / "images-000000.tar.json"
        about = json.loads(state.read_text())
        del about["source"]
        state.write_text(json.dumps(about))
        keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)
        assert everything(tmp_path / "out") == whole

    @pytest.mark.parametrize("mode", ["link", "copy"])
    def test_links_and_copies(self, weights: str, folder: Path, tmp_path: Path, mode: str) -> None:
        score(weights, str(folder), tmp_path / "x.parquet")
        for _ in range(2):  # again over what is there
            keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5, files=mode)
        kept = (tmp_path / "out" / "kept.txt").read_text().splitlines()
        images = tmp_path / "out" / "images"
        assert sorted(p.relative_to(images).as_posix() for p in images.rglob("*") if p.is_file()) == sorted(kept)
        for name in kept:
            assert (images / name).read_bytes() == (folder / name).read_bytes()
            assert (images / name).samefile(folder / name) == (mode == "link")

    def test_a_file_that_has_changed(self, weights: str, folder: Path, tmp_path: Path) -> None:
        score(weights, str(folder), tmp_path / "x.parquet")
        keep(str(folder), tmp_path / "x.parquet", tmp_path / "finished", reject=0.5)
        (folder / "city" / "0.png").write_bytes(encoded(77))
        with pytest.raises(ShardError, match="'city/0' has other bytes than the one that was scored"):
            keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)
        with pytest.raises(ShardError, match="'city/0' has other bytes than the one that was scored"):
            keep(str(folder), tmp_path / "x.parquet", tmp_path / "finished", reject=0.5)
        (folder / "new.png").write_bytes(encoded(1))
        with pytest.raises(ShardError, match="scores of 12 files, but the source holds 13"):
            keep(str(folder), tmp_path / "x.parquet", tmp_path / "out", reject=0.5)


class TestRefusals:
    @pytest.mark.parametrize("packed", [False, True])
    def test_bytes_that_have_changed_behind_the_same_size_and_time(
        self, weights: str, tmp_path: Path, packed: bool
    ) -> None:
        """What `score` cannot see `filter` does, and what it advises leads on."""
        photos, scores = write_photos(tmp_path / "photos", 2), tmp_path / "x.parquet"
        source = shard_photos(photos, tmp_path / "hr") if packed else str(photos)
        score(weights, source, scores)
        path = max((path for path in Path(source).rglob("*") if path.suffix in (".tar", ".png")), key=str)
        before, data = path.stat(), bytearray(path.read_bytes())
        data[data.index(b"IEND") - 12] ^= 1  # in the pixels' last bytes
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert score(weights, source, scores).reused_units > 0
        with pytest.raises(ShardError, match=r"other bytes than the one that was scored.*remove the table's \.parts"):
            keep(source, scores, tmp_path / "out", reject=0)
        shutil.rmtree(tmp_path / "x.parts")
        assert score(weights, source, scores).reused_units == 0
        keep(source, scores, tmp_path / "new", reject=0)

    def test_nothing_is_kept(self, shards: str, scores: Path, tmp_path: Path) -> None:
        outcome = keep(shards, scores, tmp_path / "out", max_logit=-1e9)
        assert (outcome.kept, outcome.index.shards) == (0, ())
        assert not list((tmp_path / "out").glob("*.tar"))
        assert not (tmp_path / "out" / "index.json").exists()

    def test_no_image_has_a_score(self, weights: str, tmp_path: Path) -> None:
        shard = str(write_tar(tmp_path / "s.tar", [("a.png", b"x")]))
        score(weights, shard, tmp_path / "x.parquet")
        with pytest.raises(ShardError, match=r"none of 1 image has a score \(1 unreadable\)"):
            keep(shard, tmp_path / "x.parquet", tmp_path / "out", reject=0.5)

    @pytest.mark.parametrize("change", ["bytes", "key", "more", "fewer"])
    def test_other_images_than_were_scored(self, weights: str, tmp_path: Path, change: str) -> None:
        images = [(f"{n}.png", encoded(n)) for n in range(3)]
        path = write_tar(tmp_path / "s.tar", images)
        score(weights, str(path), tmp_path / "x.parquet")
        changed = {
            "bytes": [*images[:2], ("2.png", encoded(9))],
            "key": [*images[:2], ("9.png", encoded(2))],
            "more": [*images, ("3.png", encoded(3))],
            "fewer": images[:2],
        }[change]
        write_tar(path, changed)
        message = {
            "bytes": "s.tar: image '2' has other bytes",
            "key": "image 2 is '9', scored was '2'",
            "more": "image '3' has no score, 3 have",
            "fewer": "holds 2 images, scored were 3",
        }[change]
        with pytest.raises(ShardError, match=f"{message}.*run `synthpipe score` again"):
            keep(str(path), tmp_path / "x.parquet", tmp_path / "out", reject=0)
        assert not list((tmp_path / "out").glob("*.tar"))

    def test_other_shards_than_were_scored(self, shards: str, scores: Path, photos: Path, tmp_path: Path) -> None:
        urls = expand_urls(shards)
        for source, message in [
            (urls[:2], r"holds scores of shard 'shard-000002\.tar', which the source lacks"),
            ([urls[1], urls[0], *urls[2:]], "the same shards in another order"),
            ([str(photos)], "scores of shards, but the source is folder"),
        ]:
            with pytest.raises(ShardError, match=message):
                keep(source, scores, tmp_path / "out", reject=0.5)

    def test_tables_that_are_none(self, shards: str, scores: Path, tmp_path: Path) -> None:
        (tmp_path / "text.parquet").write_text("no table")
        pq.write_table(pa.table({"key": ["a"]}), tmp_path / "other.parquet")
        table = pq.read_table(scores)
        about = json.loads(table.schema.metadata[b"synthpipe"]) | {"version": 9}
        pq.write_table(table.replace_schema_metadata({b"synthpipe": json.dumps(about)}), tmp_path / "newer.parquet")
        for name, message in [
            ("text", "not a readable Parquet file"),
            ("other", "not a table of scores"),
            ("newer", "version 9.*update synthpipe"),
            ("absent", "cannot open"),
        ]:
            with pytest.raises(ShardError, match=message):
                keep(shards, tmp_path / f"{name}.parquet", tmp_path / "out", reject=0.5)

    def test_a_column_that_is_not_there(self, shards: str, scores: Path, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"no column 'beauty' of numbers; there are degraded_logit, "):
            keep(shards, scores, tmp_path / "out", reject=0.5, by="beauty")

    def test_a_folder_with_something_else_in_it(self, shards: str, scores: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious.tar").write_bytes(b"x")
        with pytest.raises(ShardError, match=r"already holds 'precious\.tar' of another origin"):
            keep(shards, scores, tmp_path / "out", reject=0.5)
        copy = shutil.copytree(shards, tmp_path / "source")
        with pytest.raises(ShardError, match="begun by another command or version"):
            keep(shards, scores, copy, reject=0.5)

    def test_another_rule_or_other_scores(self, shards: str, scores: Path, tmp_path: Path) -> None:
        keep(shards, scores, tmp_path / "out", reject=0.5)
        with pytest.raises(ShardError, match=r"reject was 0\.5, is 0\.2"):
            keep(shards, scores, tmp_path / "out", reject=0.2)
        edited = edit_scores(scores, tmp_path / "x.parquet", degraded_logit=list(range(11)))
        with pytest.raises(ShardError, match="begun with other scores"):
            keep(shards, edited, tmp_path / "out", reject=0.5)
        (tmp_path / "out" / "_state" / "plan.json").write_text("{")
        with pytest.raises(ShardError, match="damaged plan"):
            keep(shards, scores, tmp_path / "out", reject=0.5)

    def test_two_runs_at_once(self, shards: str, scores: Path, tmp_path: Path) -> None:
        def again(done: int, total: int) -> None:
            with pytest.raises(ShardError, match="another run is writing here"):
                keep(shards, scores, tmp_path / "out", reject=0.5)

        keep(shards, scores, tmp_path / "out", reject=0.5, on_progress=again)

    @pytest.mark.parametrize(
        "rule", [{}, {"reject": 0.5, "max_logit": 1.0}, {"reject": 1.0}, {"max_logit": 1.0, "per_source": True}]
    )
    def test_rules_that_are_none(self, rule: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"reject|per_source"):
            CorpusFilterOptions(source=("x",), scores="y", output="z", **rule)

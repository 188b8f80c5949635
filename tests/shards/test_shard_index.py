"""Naming shards and reading their headers, with tar files made by the standard library."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from synthpipe.errors import OptionError, ShardError
from synthpipe.shards.shard_index import ShardIndex, ShardInfo, read_index
from synthpipe.shards.shard_names import build_index, expand_urls
from synthpipe.shards.tar_walk import check_member_name
from tests.stream_corpus import samples_by_webdataset


def tar(path: Path, *names: str, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 5
            file.addfile(member, io.BytesIO(b"bytes"))
    return path


def index(*names: str, root: str = "") -> ShardIndex:
    return ShardIndex(tuple(ShardInfo(name, 3, 10240, "ab" * 32) for name in names), root)


def put_index(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").write_text(index(*names).to_json())


class TestExpand:
    def test_braces(self) -> None:
        assert expand_urls("/d/hr-{000008..000011}.tar") == [f"/d/hr-{n:06d}.tar" for n in range(8, 12)]
        assert expand_urls("s3://b/{a,b}-{0..1}.tar") == [f"s3://b/{x}-{n}.tar" for x in "ab" for n in (0, 1)]
        assert expand_urls("http://h/x.tar") == ["http://h/x.tar"]

    def test_fsspec_chains_are_left_whole(self) -> None:
        assert expand_urls("simplecache::s3://b/x.tar") == ["simplecache::s3://b/x.tar"]

    def test_existing_names_with_braces_are_names(self, tmp_path: Path) -> None:
        path = tar(tmp_path / "x{1,2}.tar", "a.png")
        assert expand_urls(path) == [str(path)]

    def test_folder_without_an_index_is_sorted(self, tmp_path: Path) -> None:
        for name in ("b.tar", "a.tar", "c.txt"):
            tar(tmp_path / name, "a.png")
        assert expand_urls(tmp_path) == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
        assert expand_urls(f"{tmp_path}/") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
        assert expand_urls(str(tmp_path / "?.tar")) == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]

    def test_index_decides_what_belongs_to_a_folder(self, tmp_path: Path) -> None:
        tar(tmp_path / "stray.tar", "a.png")
        put_index(tmp_path, "b.tar", "a.tar")
        expected = [f"{tmp_path}/b.tar", f"{tmp_path}/a.tar"]
        assert expand_urls(tmp_path) == expand_urls(tmp_path / "index.json") == expected

    def test_list_of_all_kinds(self, tmp_path: Path) -> None:
        put_index(tmp_path / "one", "x.tar")
        tar(tmp_path / "two" / "y.tar", "a.png")
        entries = [tmp_path / "one", str(tmp_path / "two"), "/d/{0..1}.tar"]
        assert expand_urls(entries) == [f"{tmp_path}/one/x.tar", f"{tmp_path}/two/y.tar", "/d/0.tar", "/d/1.tar"]

    def test_remote_folders(self) -> None:
        files = fsspec.filesystem("memory")
        files.pipe(
            {"/m/plain/b.tar": b"", "/m/plain/a.tar": b"", "/m/indexed/index.json": index("q.tar").to_json().encode()}
        )
        assert expand_urls("memory://m/plain") == ["memory:///m/plain/a.tar", "memory:///m/plain/b.tar"]
        assert expand_urls("memory://m/plain/*.tar") == ["memory:///m/plain/a.tar", "memory:///m/plain/b.tar"]
        assert expand_urls("memory://m/indexed") == ["memory://m/indexed/q.tar"]
        files.rm("/m", recursive=True)

    @pytest.mark.parametrize("shards", ["pipe:cat x.tar", ["a.tar", "pipe:cat x.tar"], "{a,pipe:cat x}.tar"])
    def test_pipe_is_refused(self, shards: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "system", lambda *a: pytest.fail("ran a shell"))
        with pytest.raises(OptionError, match=r"runs a shell command; set allow_pipe: true"):
            expand_urls(shards)

    def test_pipe_when_allowed(self) -> None:
        assert expand_urls("pipe:cat {0..1}.tar", allow_pipe=True) == ["pipe:cat 0.tar", "pipe:cat 1.tar"]

    def test_same_shard_twice(self) -> None:
        with pytest.raises(OptionError, match=r"'/d/1\.tar' is named twice"):
            expand_urls(["/d/{0..2}.tar", "/d/1.tar"])

    def test_unbalanced_brace(self) -> None:
        with pytest.raises(OptionError, match="unbalanced braces"):
            expand_urls("/d/{0..2.tar")

    @pytest.mark.parametrize("shards", [[], "{tmp}", "{tmp}/nowhere", "{tmp}/*.tar"])
    def test_nothing_there(self, shards: Any, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match="no shards"):
            expand_urls(shards.replace("{tmp}", str(tmp_path)) if shards else shards)

    def test_a_relative_folder_is_told_in_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ShardError, match=rf"no shards at 'hr': .*, found no '{tmp_path}/hr'"):
            expand_urls("hr")
        (tmp_path / "hr").mkdir()
        with pytest.raises(ShardError, match=r"no shards at 'hr': .*; `synthpipe shard` makes them of images"):
            expand_urls("hr")

    def test_unknown_protocol(self) -> None:
        with pytest.raises(ShardError, match="nosuch"):
            expand_urls("nosuch://bucket/folder")


class TestReadIndex:
    def test_round_trip(self, tmp_path: Path) -> None:
        put_index(tmp_path, "a.tar", "b.tar")
        read = read_index(tmp_path)
        assert read == index("a.tar", "b.tar", root=str(tmp_path))
        assert (read.samples, read.bytes) == (6, 20480)
        assert read.urls() == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]

    def test_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put_index(tmp_path, "a.tar")
        monkeypatch.chdir(tmp_path)
        assert read_index("index.json").urls() == ["./a.tar"]
        assert read_index(".").urls() == ["./a.tar"]

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"no shard index at .* write one with `synthpipe shard`"):
            read_index(tmp_path)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"version": 2}, "index version 2, this synthpipe reads up to 1"),
            ({"format": "other"}, "its format is 'other'"),
            ({"samples": 7}, "6 samples listed, 7 stated"),
            ({"shards": [{"name": "a.tar"}]}, "damaged shard index"),
            ({"shards": [{"name": "../a.tar", "samples": 6, "bytes": 1}]}, "not a plain file name"),
            ({"shards": [{"name": "/etc/a.tar", "samples": 6, "bytes": 1}]}, "not a plain file name"),
            ({"shards": [{"name": "a.tar", "samples": 0, "bytes": 1}]}, "with 0 samples"),
            ({"shards": [{"name": "a.tar", "samples": 3, "bytes": 1}] * 2}, "damaged shard index"),
            ({"shards": 5}, "damaged shard index"),
        ],
    )
    def test_what_is_refused(self, change: dict[str, Any], said: str, tmp_path: Path) -> None:
        content = json.loads(index("a.tar", "b.tar").to_json()) | change
        (tmp_path / "index.json").write_text(json.dumps(content))
        with pytest.raises(ShardError, match=said):
            read_index(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
    def test_garbage(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(ShardError, match=r"index\.json: damaged shard index"):
            read_index(tmp_path)


class TestBuildIndex:
    def test_counts_what_webdataset_yields(self, tmp_path: Path) -> None:
        members = ["a.png", "a.json", "d/b.jpg", "__meta__/x.png", "c.x.webp", "c.y.json", "README", "e.tif"]
        path = tar(tmp_path / "x.tar", *members)
        with tarfile.open(path, "a") as file:
            folder = tarfile.TarInfo("folder.png")
            folder.type = tarfile.DIRTYPE
            file.addfile(folder)
        built = build_index(path)
        assert built.samples == len(samples_by_webdataset([path])) == 4
        assert built.shards == (ShardInfo(str(path), 4, path.stat().st_size),)
        assert built.urls() == [str(path)]

    @pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
    def test_compressed(self, mode: str, tmp_path: Path) -> None:
        path = tar(tmp_path / "x.tar", "a.png", "b.png", mode=mode)
        assert build_index(path).shards == (ShardInfo(str(path), 2, path.stat().st_size),)

    @pytest.mark.parametrize(
        "names",
        [("a.png", "b.png", "a.png"), ("a.png", "b.png", "a.json"), ("a.png", "a.png"), ("a.png", "a.PNG")],
        ids=["apart", "in parts", "together", "by case of the suffix"],
    )
    def test_duplicate_keys_in_a_shard(self, names: tuple[str, ...], tmp_path: Path) -> None:
        path = tar(tmp_path / "x.tar", *names)
        with pytest.raises(ShardError, match=r"x\.tar.*a\.|key 'a' comes more than once"):
            build_index(path)

    def test_duplicate_keys_across_shards(self, tmp_path: Path) -> None:
        tar(tmp_path / "0.tar", *(f"{n}.png" for n in range(50)))
        tar(tmp_path / "1.tar", *(f"{n}.png" for n in range(50, 99)))
        assert build_index(tmp_path).samples == 99
        tar(tmp_path / "2.tar", "x.png", "37.jpg", "y.png")
        with pytest.raises(ShardError, match=r"1 duplicate keys: key '37' .*/0\.tar and .*/2\.tar"):
            build_index(tmp_path)

    @pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "x/../../a.png", "C:\\a.png", "..\\a.png", "x/.."])
    def test_names_that_point_outside(self, name: str, tmp_path: Path) -> None:
        path = tar(tmp_path / "x.tar", "fine.png", name)
        with pytest.raises(ShardError, match=r"x\.tar: refused, its member"):
            build_index(path)
        with pytest.raises(ShardError, match="absolute name or has a"):
            check_member_name(name, "x.tar")

    @pytest.mark.parametrize("name", ["a..b.png", "..a/b.png", "a/b..png", "写真.png"])
    def test_names_that_do_not(self, name: str, tmp_path: Path) -> None:
        check_member_name(name, "x.tar")

    @pytest.mark.parametrize("names", [(), ("a.json", "b.txt")])
    def test_shard_without_images(self, names: tuple[str, ...], tmp_path: Path) -> None:
        path = tar(tmp_path / "x.tar", *names)
        with pytest.raises(ShardError, match=r"x\.tar: a shard without images"):
            build_index(path)

    @pytest.mark.parametrize("length", range(0, 2049, 128))
    def test_tar_that_is_cut_off(self, length: int, tmp_path: Path) -> None:
        """Two members of two blocks each: without the block of zeros behind them, something may be missing."""
        path = tar(tmp_path / "x.tar", "a.png", "b.png")
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ShardError, match=r"x\.tar: not a readable tar file"):
            build_index(path)

    @pytest.mark.parametrize("position", [0, 1024 + 10])
    def test_damaged_header(self, position: int, tmp_path: Path) -> None:
        path = tar(tmp_path / "x.tar", "a.png", "b.png")
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"x\.tar: not a readable tar file"):
            build_index(path)

    def test_missing_shard(self, tmp_path: Path) -> None:
        with pytest.raises(ShardError, match=r"cannot open .*x\.tar"):
            build_index(str(tmp_path / "x.tar"))

    def test_pipes_cannot_be_scanned(self) -> None:
        with pytest.raises(ShardError, match="only files and URLs"):
            build_index("pipe:cat x.tar", allow_pipe=True)

"""One shard under two names is refused; what an index leaves out is told of."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import fsspec
import pytest

from synthpipe.errors import OptionError, ShardError, SynthPipeError
from synthpipe.shards import shard_names
from synthpipe.shards.shard_names import expand_urls


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of other bytes, links to the first, an index of both."""
    (tmp_path / "a.tar").write_bytes(b"one")
    (tmp_path / "b.tar").write_bytes(b"two")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.tar").symlink_to(tmp_path / "a.tar")
    (tmp_path / "sub" / "hard.tar").hardlink_to(tmp_path / "a.tar")
    (tmp_path / "other").symlink_to(tmp_path)
    shards = [{"name": name, "samples": 1, "bytes": 3} for name in ("a.tar", "b.tar")]
    index = {"format": "synthpipe-shards", "version": 1, "samples": 2, "shards": shards}
    (tmp_path / "index.json").write_text(json.dumps(index))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "second",
    [
        "./a.tar",
        "sub/../a.tar",
        ".//a.tar",
        "{here}/a.tar",
        "file://{here}/a.tar",
        "file://{here}//a.tar",
        "sub/link.tar",
        "sub/hard.tar",
        "other/a.tar",
        "other/index.json",
        "{here}",
        "*.tar",
        "{{x,a}}.tar",
    ],
)
def test_of_the_same_file(second: str, folder: Path) -> None:
    with pytest.raises(OptionError, match=r"shard '.*a\.tar|link\.tar|hard\.tar") as caught:
        expand_urls(["a.tar", second.format(here=folder)])
    assert "'a.tar'" in str(caught.value)
    assert "samples would come twice" in str(caught.value)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("http://h/x/a.tar", "http://h/x//a.tar"),
        ("http://h/x/a.tar", "http://h/./x/y/../a.tar"),
        ("http://h/x/a.tar", "HTTP://H:80/x/a.tar"),
        ("https://h/~u/a.tar", "https://h:443/%7Eu/a.tar"),
        ("http://h/a.tar", "http://user@h/a.tar"),
        ("s3://b/x/a.tar", "s3://b/x/./a.tar"),
        ("memory://x/a.tar", "memory://x//a.tar"),
        ("not/there.tar", "./not/there.tar"),
    ],
)
def test_of_the_same_url(first: str, second: str, order: int) -> None:
    names = [first, second][::order]
    with pytest.raises(OptionError, match="are the same file") as caught:
        expand_urls(names)
    assert all(repr(name) in str(caught.value) for name in names)


def test_others_are_not_the_same(folder: Path) -> None:
    os.utime("b.tar", ns=(os.stat("a.tar").st_mtime_ns,) * 2)
    names = [
        "a.tar", "b.tar", "http://h/a.tar", "https://h/a.tar", "http://h:81/a.tar", "http://g/a.tar", "http://h/A.tar",
        "s3://b/a.tar", "s3://c/a.tar", "simplecache::s3://b/a.tar",
    ]  # fmt: skip
    assert expand_urls(names) == names


def test_many_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_names, "MOST_SHARDS", 150)
    with pytest.raises(OptionError, match=r"shards 'b-.*more than MOST_SHARDS \(150\) shards in all"):
        expand_urls(["a-{0..99}.tar", "b-{0..99}.tar"])


class TestUnlisted:
    @pytest.mark.parametrize("name", ["", "index.json", "file://"])
    def test_shards_beside_an_index(self, name: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        (folder / "c.tar").touch()
        place = f"file://{folder}" if name == "file://" else f"{folder}/{name}".rstrip("/")
        with caplog.at_level(logging.WARNING, "synthpipe"):
            assert [url.rpartition("/")[2] for url in expand_urls(place)] == ["a.tar", "b.tar"]
        (line,) = caplog.messages
        assert "1 tar file not in its index.json and not read, as 'c.tar'" in line

    def test_all_listed(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        expand_urls(str(folder))
        assert not caplog.messages


@pytest.mark.parametrize("text", ["a\0.tar", "x" * 5000 + ".tar", "\ud800.tar"])
def test_names_of_tars_go_through_until_they_are_opened(text: str) -> None:
    assert expand_urls(text) == [text]


@pytest.mark.parametrize(
    "text", ["a\0", "\0*.tar", "x" * 5000, "x" * 5000 + "/*.tar", "\ud800/x", "{" + "x" * 300 + ",y}"]
)
def test_names_that_no_system_takes(text: str) -> None:
    """They have to be looked up, and are refused in words."""
    with pytest.raises(SynthPipeError, match=r"cannot (read|list)|no shards at|expected"):
        expand_urls(text)


def test_remote_folder_with_an_index_that_is_broken() -> None:
    files = fsspec.filesystem("memory")
    files.pipe({"/broken/index.json": b"[" * 100_000})
    with pytest.raises(ShardError, match="damaged shard index"):
        expand_urls("memory://broken")
    files.rm("/broken", recursive=True)


def test_two_hundred_thousand_are_quick() -> None:
    begin = time.perf_counter()
    assert len(expand_urls("http://h.example/hr-{000000..199999}.tar")) == 200_000
    assert time.perf_counter() - begin < 15

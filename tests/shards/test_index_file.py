"""Index files that mean harm, or are none: refused in one sentence, within bounds of time and memory."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from synthpipe.errors import ShardError
from synthpipe.shards import shard_index
from synthpipe.shards.shard_index import MOST_SAMPLES, find_index, read_index

SHARD = {"name": "a.tar", "samples": 3, "bytes": 10240}
WHOLE = {"format": "synthpipe-shards", "version": 1, "samples": 3, "shards": [SHARD]}


def text_with(shard: str = "", **head: str) -> str:
    """The whole index with values in the words of JSON."""
    fields = {"name": '"a.tar"', "samples": "3", "bytes": "10240"} | json.loads(shard or "{}")
    entry = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    values = {"format": '"synthpipe-shards"', "version": "1", "samples": "3", "shards": f"[{{{entry}}}]"} | head
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def test_the_whole_one(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text_with())
    assert read_index(tmp_path).samples == 3


NUMBERS = [
    "Infinity",
    "-Infinity",
    "NaN",
    "true",
    "false",
    "null",
    '"3"',
    "3.0",
    "-1",
    "1e400",
    "[]",
    "{}",
    "1" + "0" * 400,
]


@pytest.mark.parametrize("number", [*NUMBERS, "1" + "0" * 5000, str(MOST_SAMPLES + 1)])
@pytest.mark.parametrize("place", ["samples", "bytes", "version", "stated"])
def test_numbers(number: str, place: str, tmp_path: Path) -> None:
    if number == str(MOST_SAMPLES + 1) and place in ("bytes", "version"):
        return
    if place in ("samples", "bytes"):
        text = text_with(json.dumps({place: number}))
    else:
        text = text_with(**{"samples" if place == "stated" else place: number})
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ShardError, match=r"index\.json: damaged shard index") as caught:
        read_index(tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name", ["a\0.tar", "", "../a.tar", ".a.tar", "a/b.tar", "a\\b.tar", "\ud800.tar", 3, None, True, ["a.tar"], {}]
)
def test_names(name: Any, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(WHOLE | {"shards": [SHARD | {"name": name}]}))
    with pytest.raises(ShardError, match=r"index\.json: (refused, shard name|damaged)"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"shards":' * 100_000,
        text_with(shards="[" * 5000 + "]" * 5000),
        json.dumps(WHOLE | {"shards": [3]}),
        json.dumps(WHOLE | {"shards": [[SHARD]]}),
        json.dumps(WHOLE | {"shards": SHARD}),
        json.dumps(WHOLE | {"shards": [SHARD | {"sha256": 5}]}),
        json.dumps(WHOLE | {"shards": [SHARD, SHARD], "samples": 6}),
        json.dumps({"format": "synthpipe-shards"}),
        json.dumps(WHOLE)[:-5],
        json.dumps(WHOLE).replace('"version": 1', '"version": 1, "version": 2'),
        "\ufeff" + json.dumps(WHOLE),
    ],
    ids=range(12),
)
def test_other_damage(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ShardError, match=r"index\.json: damaged shard index"):
        read_index(tmp_path)


def test_utf16(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(json.dumps(WHOLE).encode("utf-16"))
    with pytest.raises(ShardError, match="damaged shard index"):
        read_index(tmp_path)


def test_a_shard_listed_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(WHOLE | {"shards": [SHARD, SHARD], "samples": 6}))
    with pytest.raises(ShardError, match=r"shard 'a\.tar' is listed twice; write the set anew"):
        read_index(tmp_path)


def test_a_file_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_index, "LARGEST_INDEX", 1 << 20)
    with (tmp_path / "index.json").open("wb") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(ShardError, match=r"index\.json': more than 1048576 bytes"):
        read_index(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ShardError, match=r"cannot read .*no regular file"):
        find_index(str(tmp_path))

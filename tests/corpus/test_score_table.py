"""A table of scores from anywhere: what it says of itself is checked before it is used."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthpipe.corpus.score_cache import CachedScore, ScoreCache
from synthpipe.corpus.score_table import ScoreRow, merge_parts, open_scores, read_part, write_part
from synthpipe.errors import ShardError

ABOUT = {"columns": ["logit"], "kind": "folder", "weights": "w", "scorer": "s", "tiles": 1}


def table(folder: Path) -> Path:
    rows = [ScoreRow(f"k{i}", f"k{i}.png", f"k{i}.png", 8, 8, 100, "00", (0.5 * i,), 1) for i in range(40)]
    write_part(folder / "part.parquet", rows, ["logit"], {})
    found = read_part((folder / "part.parquet").read_bytes())
    assert found is not None
    merge_parts(folder / "table.parquet", iter([("a.tar", found[1])]), ["logit"], ABOUT)
    return folder / "table.parquet"


def with_metadata(path: Path, text: bytes) -> str:
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"synthpipe": text}), path)
    return str(path)


def read_all(url: str) -> list[float]:
    with open_scores(url) as scores:
        scores.codes("key")
        return scores.numbers(scores.columns[0]).tolist()


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    assert read_all(str(table(tmp_path))) == [0.5 * i for i in range(40)]


NOTE = {"format": "synthpipe-scores", "version": 1, **ABOUT}


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (b"[" * 100_000, "at most 64 lists and objects within each other"),
        (b"\xff", "not a readable Parquet file"),
        (b"[]", "not a table of scores"),
        (b"{}", "not a table of scores"),
        (json.dumps({**NOTE, "version": "1"}).encode(), "expected a version from 1, got '1'"),
        (json.dumps({**NOTE, "version": None}).encode(), "expected a version from 1, got None"),
        (json.dumps({**NOTE, "version": 2}).encode(), "table version 2, this synthpipe reads up to 1"),
        (json.dumps({**NOTE, "columns": "logit"}).encode(), "expected the names of its 'columns', got 'logit'"),
        (json.dumps({**NOTE, "columns": [1]}).encode(), "expected the names of its 'columns', got [1]"),
        (json.dumps({**NOTE, "columns": ["other"]}).encode(), "no column 'other'"),
        (json.dumps({**NOTE, "columns": ["key"]}).encode(), "cannot be told apart"),
        (json.dumps({**NOTE, "kinds": 5}).encode(), "expected the names of its 'kinds', got 5"),
        (json.dumps({**NOTE, "kinds": "noise"}).encode(), "expected the names of its 'kinds', got 'noise'"),
    ],
)
def test_notes_that_do_not_fit_are_refused(tmp_path: Path, note: bytes, words: str) -> None:
    with pytest.raises(ShardError) as error:
        read_all(with_metadata(table(tmp_path), note))
    assert words in str(error.value)


def test_what_a_filter_needs_is_asked_for(tmp_path: Path) -> None:
    url = with_metadata(table(tmp_path), json.dumps({k: v for k, v in NOTE.items() if k != "kind"}).encode())
    assert len(read_all(url)) == 40  # a stream needs nothing but the numbers
    with open_scores(url) as scores, pytest.raises(ShardError, match=r"its metadata lack \['kind'\]"):
        scores.require_facts("kind", "tiles")


@pytest.mark.parametrize(("name", "kind"), [("logit", pa.string()), ("key", pa.int64()), ("tiles", pa.float64())])
def test_columns_of_another_type_are_refused(tmp_path: Path, name: str, kind: Any) -> None:
    path = table(tmp_path)
    whole = pq.read_table(path)
    column: Any = [None] * len(whole)
    place = whole.schema.get_field_index(name)
    pq.write_table(whole.set_column(place, name, pa.array(column, kind)), path)
    with pytest.raises(ShardError, match=f"damaged table of scores: {name} of {kind}"):
        read_all(str(path))


@pytest.mark.parametrize("what", ["empty", "cut", "page"])
def test_damaged_files_are_named(tmp_path: Path, what: str) -> None:
    path = table(tmp_path)
    data = path.read_bytes()
    damaged = {"empty": b"", "cut": data[: len(data) // 2], "page": data[:4] + b"\xff" * 200 + data[204:]}[what]
    path.write_bytes(damaged)
    with pytest.raises(ShardError, match=r"table\.parquet: (not a readable Parquet file|damaged table of scores)"):
        read_all(str(path))


@pytest.mark.parametrize(
    "row",
    [
        "[" * 5000,
        "3",
        "[1, 2]",
        "null",
        '["8", 8, [0.5], 1, null]',
        '[8, 8, ["x"], 1, null]',
        "[8, 8, 3, 1, null]",
        '[8, 8, [0.5], 1, null, {"alpha": "x"}]',
    ],
)
def test_a_cache_with_rows_that_no_scorer_wrote_says_what_to_do(tmp_path: Path, row: str) -> None:
    cache = ScoreCache(str(tmp_path), "a")
    cache.put({"00": CachedScore(8, 8, (0.5, float("nan")), 1, None)})
    found = cache.get("00")
    assert found is not None
    assert found.numbers is not None
    assert found.numbers[0] == 0.5
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE scores SET score = ?", (row,))
    with pytest.raises(ShardError, match=r"a\.sqlite: the cache of scores is damaged .*delete the file"):
        cache.get("00")

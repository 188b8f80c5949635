"""Places in options: what they expand to, what is refused, and that no option that is one has another type."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthpipe.config.filter import FilterOptions
from synthpipe.config.places import Place, expand_place, written_place
from synthpipe.config.reader import parse_options, read_options
from synthpipe.config.run import DomainOptions
from synthpipe.config.score import ScoreOptions
from synthpipe.config.shard import ShardOptions
from synthpipe.config.stream import StreamOptions
from synthpipe.config.training import write_options
from synthpipe.errors import OptionError
from tests.config.test_descriptions import schemas_of_the_package

#: Texts that are no places.
_OTHER_TEXTS = {
    "by",  # a column
    "device",
    "ignore",  # parts of a scorer, by pattern
    "kind",
    "name",
    "prefix",
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISK", "/mnt/disk")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("photos", "photos"),
        ("~", "HOME"),
        ("~/photos", "HOME/photos"),
        ("~root/x", f"{os.path.expanduser('~root')}/x"),
        ("./~", "./~"),
        ("a/~/b", "a/~/b"),
        ("$DISK/hr", "/mnt/disk/hr"),
        ("${DISK}2/hr", "/mnt/disk2/hr"),
        ("~/$DISK", "HOME//mnt/disk"),
        ("costs$$5 $5", "costs$5 $5"),
        ("hr-{000..063}.tar", "hr-{000..063}.tar"),
        ("$DISK/hr-{000..063}.tar", "/mnt/disk/hr-{000..063}.tar"),
        ("file://~/hr", "file://HOME/hr"),
        ("file://$DISK/hr", "file:///mnt/disk/hr"),
        ("s3://${DISK}/hr", "s3:///mnt/disk/hr"),
        ("s3://bucket/~/hr", "s3://bucket/~/hr"),
        ("https://host/x?$UNSET=~", "https://host/x?$UNSET=~"),
        ("filecache::https://host/x?$UNSET", "filecache::https://host/x?$UNSET"),
        ("filecache::s3://$DISK/x", "filecache::s3:///mnt/disk/x"),
        ("pipe:cat ~/$UNSET", "pipe:cat ~/$UNSET"),
        ("\\\\?\\C:\\photos", "\\\\?\\C:\\photos"),
        ("C:\\photos", "C:\\photos"),
        ("caf\udce9", "caf\udce9"),
        ("cafe\u0301", "cafe\u0301"),  # as it is: file systems tell it from the composed spelling
    ],
)
def test_places_expand(text: str, place: str, tmp_path: Path) -> None:
    expected = place.replace("HOME", str(tmp_path / "home"))
    found = expand_place(text)
    assert found == expected
    assert expand_place(found) == expected  # never twice
    assert expand_place(written_place(found)) == expected
    assert pickle.loads(pickle.dumps(found)) == found
    assert isinstance(pickle.loads(pickle.dumps(found)), Place)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab~$/{}.:é\udce9 ", min_size=1, max_size=12))
def test_whatever_a_place_is_called_it_reads_back(name: str) -> None:
    written = written_place(name)
    assert expand_place(written) in (name, f"./{name}")
    assert written_place(expand_place(written)) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a path"),
        ("$UNSET/hr", "the variable UNSET is not set or empty.*write \\$\\$"),
        ("a/${UNSET}", "the variable UNSET is not set or empty"),
        ("$EMPTY/hr", "the variable EMPTY is not set or empty"),
        ("~nobody9/hr", "no user 'nobody9' on this machine.*write ./~nobody9"),
        ("file://~nobody9/hr", "no user 'nobody9' on this machine"),
        ("a\0b", "without a zero byte"),
        ("x/" + "é" * 128 + "/y", "a name of 256 bytes, expected at most 255"),
        ("x/" * 2048, "a path of 4096 bytes, expected fewer than 4096"),
    ],
)
def test_what_is_no_place_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        expand_place(text)


def test_a_long_pattern_has_short_names() -> None:
    text = "hr-{" + ",".join(f"{n:06d}" for n in range(2000)) + "}.tar"
    assert expand_place(text) == text


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "said"),
    [(_fifo, "a named pipe"), (_socket, "a socket"), (_device, "a device"), (_loop, "a link that leads to itself")],
)
def test_what_is_neither_file_nor_folder_is_refused(
    make: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    make(Path("x"))
    with pytest.raises(ValueError, match=f"{said}.*'?x'?"):
        expand_place("x")
    with pytest.raises(OptionError, match=f"'shards'.*{said}"):
        parse_options({"shards": "x", "gt_size": 32}, StreamOptions)


def test_options_hold_expanded_places(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    stream = parse_options({"shards": ["~/a", "$DISK/b"], "gt_size": 32, "spool_dir": "~/spool"}, StreamOptions)
    assert stream.shards == (f"{home}/a", "/mnt/disk/b")
    assert stream.spool_dir == f"{home}/spool"
    assert DomainOptions(folder="~/a").places == (f"{home}/a",)
    assert FilterOptions(scores="~/t.parquet", max_logit=0.0).scores == f"{home}/t.parquet"
    assert ShardOptions(inputs=("~/a",), output="s3://$DISK/x").output == "s3:///mnt/disk/x"


@pytest.mark.parametrize(
    "place", ["~nobody9/x", "$UNSET", ["a", "$UNSET"], ["~nobody9"]], ids=["user", "variable", "in a list", "one"]
)
def test_an_option_that_does_not_expand_is_named_once(place: object) -> None:
    with pytest.raises(OptionError) as caught:
        parse_options({"folder": place}, DomainOptions, source="train.yml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("train.yml: option 'folder")


def test_options_read_back_as_they_were_written(tmp_path: Path) -> None:
    shards = ("$DISK/a$$b", "./~c", "caf\udce9")
    options = parse_options({"shards": shards, "gt_size": 32, "spool_dir": "$DISK"}, StreamOptions)
    assert options.shards == ("/mnt/disk/a$b", "./~c", "caf\udce9")
    write_options(tmp_path / "options.yml", options)
    assert read_options(tmp_path / "options.yml", StreamOptions) == options


def test_a_table_ends_in_parquet(tmp_path: Path) -> None:
    given = {"weights": "w", "source": ["s"]}
    assert parse_options({**given, "output": "~/t.parquet"}, ScoreOptions).output == f"{tmp_path}/home/t.parquet"
    for name in ("t.csv", "~/.parquet", "$DISK/"):
        with pytest.raises(OptionError, match=r"'output': expected a text that matches"):
            parse_options({**given, "output": name}, ScoreOptions)


def test_every_text_that_is_a_place_is_of_the_type_for_it() -> None:
    texts = {
        path[-1] if path[-1] else path[-2]
        for schema in schemas_of_the_package()
        for path in _plain_texts(schema.model_json_schema(), (schema.__name__,))
    }
    assert texts == _OTHER_TEXTS, "a new text: give it a type of config/places.py, or name it here"


def _plain_texts(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Names of properties that are free texts."""
    if not isinstance(node, dict):
        return
    if node.get("type") == "string" and not {"format", "enum", "const"} & node.keys():
        yield path
    for block in (node, *node.get("$defs", {}).values()):
        for name, inside in block.get("properties", {}).items():
            yield from _plain_texts(inside, (*path, name))
    for key in ("items", "additionalProperties"):
        yield from _plain_texts(node.get(key), path)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inside in node.get(key, ()):
            yield from _plain_texts(inside, path)

"""Option files are read within bounds, and what stands in them keeps its meaning; every refusal says where and why."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.cli import main
from synthpipe.config import Options, parse_options, read_options
from synthpipe.config.training import read_train_options
from synthpipe.config.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml, read_text
from synthpipe.errors import LONGEST_EXCERPT, OptionError


class Inner(Options):
    lr: float = 1.0
    name: str = ""


class Outer(Options):
    steps: int = 1
    on: bool = True
    text: str = ""
    first: Inner = Inner()
    second: Inner = Inner()


def read(tmp_path: Path, data: bytes, *overrides: str) -> Outer:
    path = tmp_path / "options.yml"
    path.write_bytes(data)
    return read_options(path, Outer, overrides)


def refused(text: str) -> str:
    with pytest.raises(OptionError) as error:
        parse_yaml(text, "x.yml")
    assert str(error.value).startswith("x.yml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("010", "010"),
        ("-007", "-007"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("0o9", "0o9"),
        ("0b11", 3),
        ("0x", "0x"),
        ("-0", 0),
        ("+3", 3),
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1_0.5", 10.5),
        ("-.INF", -math.inf),
        ("~", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("True", True),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("! 3", "3"),
        ("!!float 3", 3),
        ("1.2.3", "1.2.3"),
        ('"caf\\udce9.png"', "caf\udce9.png"),  # the name of a file that is not UTF-8, as options.yml has it
        ("", None),
        ("[1, {a: b}, []]", [1, {"a": "b"}, []]),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("{c: {<<: [{a: 1, b: 1}, {b: 2, c: 2}], c: 3}}", {"c": {"a": 1, "b": 1, "c": 3}}),
        ("{'<<': 3}", {"<<": 3}),
    ],
)
def test_what_is_written_keeps_its_meaning(text: str, value: Any) -> None:
    found = parse_yaml(text, "x.yml")
    assert found == value
    assert type(found) is type(value)


def texts(most: int) -> st.SearchStrategy[str]:
    """But ``1E0`` and the like, which PyYAML leaves without quotes: to it ``1.0e+0`` alone is a number."""
    return st.text(max_size=most).filter(lambda text: not re.fullmatch(r"[-+]?[\d_.]+[eE][-+]?\d+", text))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | texts(20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(8), inner, max_size=4),
        max_leaves=12,
    )
)
def test_what_pyyaml_writes_comes_back(value: Any) -> None:
    if "\\0" in repr(value) or "\\x00" in repr(value):
        return  # refused, below
    assert parse_yaml(yaml.safe_dump(value), "x.yml") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]", "line 1, column 8: the alias *a stands within what it names"),
        ("a: &a {b: {c: *a}}", "the alias *a stands within"),
        ("a: *b", "no anchor &b stands before this alias"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands twice"),
        ("a: {b: 1, 'b': 2}", "the key 'b' stands twice"),
        ("{<<: {a: 1}, <<: {b: 1}}", "the key '<<' stands twice"),
        ("<<: 3", "expected a block of options behind '<<', got 3"),
        ("1: 2", "expected a text as key, got 1"),
        ("true: 2", "expected a text as key, got True"),
        ("~: 2", "expected a text as key, got None"),
        ("? [1, 2]\n: 3", "expected a text as key, got [1, 2]"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected one document"),
        ("!!set {a, b}", "the tag !!set has no meaning"),
        ("a: !!binary aGVs", "the tag !!binary has no meaning"),
        ("a: !!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system has no meaning"),
        ("a: !!timestamp 2020-01-01", "the tag !!timestamp"),
        ("a: !mine 3", "the tag !mine has no meaning"),
        ("a: !!seq {}", "the tag !!seq has no meaning"),
        ("a: !!int abc", "'abc' is not what its tag !!int says"),
        ("a: !!int true", "'true' is not what its tag !!int says"),
        ("a: !!bool maybe", "'maybe' is not what its tag !!bool says"),
        ("a: " + "9" * 5000, "expected a number of at most 40 digits, got 5000"),
        ("a: 0x" + "f" * 5000, "expected a number of at most 40 digits, got 5002"),
        ("a: 1" + "0" * 5000 + ".5", "expected a number of at most 40 digits, got 5003"),
        ("a: " + "[" * 5000, f"expected at most {MAX_DEPTH} blocks and lists within each other"),
        ("a: " + "{b: " * 5000, f"expected at most {MAX_DEPTH} blocks"),
        ("- " * 5000, f"expected at most {MAX_DEPTH} blocks"),
        ("? " * 5000, f"expected at most {MAX_DEPTH} blocks"),
        ("[" + "1," * 60_000 + "]", f"expected at most {MAX_VALUES} values"),
        ("#" * (MAX_BYTES + 1), f"expected at most {MAX_BYTES} characters, got {MAX_BYTES + 1}"),
        (f"a: &a {'x' * 400_000}\nb: [*a, *a]", f"expected at most {MAX_BYTES} characters, aliases counted"),
        ("a: \x00", "not valid YAML"),
        ('a: "\\0"', "line 1, column 4: expected a text without the character '\\x00'"),
        ('a: "\\ud800"', "expected a text without the character '\\ud800'"),
        ('a: "\\U99999999"', "not valid YAML"),
        ("%YAML " + "1" * 5000 + ".1\n--- 1", "not valid YAML"),
        ("&a &b 1", "not valid YAML"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, words: str) -> None:
    said = refused(text)
    assert words in said
    assert len(said) < 3 * LONGEST_EXCERPT


def test_aliases_count_as_what_they_stand_for() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    bomb += "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    assert f"expected at most {MAX_VALUES} values" in refused(bomb)
    merged = "a: &a {k: 1}\n" + "".join(
        f"b{i}: &b{i} {{l: *{'a' if i == 0 else f'b{i - 1}'}, m: *{'a' if i == 0 else f'b{i - 1}'}}}\n"
        for i in range(30)
    )
    assert f"expected at most {MAX_VALUES} values" in refused(merged)


def test_an_override_changes_the_block_that_it_names_and_none_that_an_alias_shares(tmp_path: Path) -> None:
    options = read(tmp_path, b"first: &f {lr: 3}\nsecond: *f\n", "first.lr=5")
    assert (options.first.lr, options.second.lr) == (5.0, 3.0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps=" + "[" * 3000, f"at most {MAX_DEPTH} blocks"),
        ("text=&a [*a]", "the alias *a stands within"),
        ("steps=2020-01-01", "option 'steps': expected an integer, got '2020-01-01'"),
        ("steps=" + "7" * 3000, "a number of at most 40 digits, got 3000"),
        ("steps=1:30", "expected an integer, got '1:30'"),
        ("steps=!!python/name:os.system x", "the tag !!python/name:os.system has no meaning"),
        ("first.lr=.inf", "expected a finite number, got inf"),
        ("first.lr=.nan", "expected a finite number, got nan"),
        ("first={lr: 1, lr: 2}", "the key 'lr' stands twice"),
        (".".join("a" * 4000) + "=1", f"expected at most {MAX_DEPTH} blocks within each other, got 3999"),
        ("x" * 5000 + "=1", "unknown option 'xxx"),
        ("text=[" + "abc," * 9000 + "]", "option 'text': expected a text, got ['abc', 'abc',"),
        ("steps=" + "a" * 9000, "expected an integer, got 'aaa"),
        ("=1", "expected key.sub=value"),
        ("steps=--- 1\n--- 2", "expected one document"),
    ],
)
def test_overrides_are_read_like_files(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(OptionError) as error:
        read(tmp_path, b"steps: 3", override)
    assert words in str(error.value)
    assert len(str(error.value)) < 4 * LONGEST_EXCERPT


def test_words_and_digits_reach_the_options_that_want_them(tmp_path: Path) -> None:
    given = read(tmp_path, b"steps: 1_000\non: no\ntext: no\nfirst: {lr: 1e-3, name: 2020-01-01}")
    assert (given.steps, given.on, given.text) == (1000, False, "no")
    assert (given.first.lr, given.first.name) == (1e-3, "2020-01-01")
    assert read(tmp_path, b"steps: 010").steps == 10


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_of_every_unicode_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, "text: café\nsteps: 4\n".encode(encoding)) == Outer(text="café", steps=4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"text: x\nfirst: caf\xe9\n", "options.yml, line 2, byte 11: expected text in UTF-8, got the byte 0xe9"),
        ("text: cafe".encode("utf-16-le"), "not valid YAML"),
        (b"\xff\xfex", "expected text in UTF-16"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "line 1, byte 1: expected text in UTF-8, got the byte 0x89"),
        (b"#" * (MAX_BYTES + 1), f"an option file of at most {MAX_BYTES} bytes"),
        (b"[1, 2]", "expected a mapping of options at the top level, got list"),
        (b"just words", "expected a mapping of options at the top level, got str"),
    ],
)
def test_files_that_are_no_options_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(OptionError) as error:
        read(tmp_path, data)
    assert words in str(error.value)


def test_a_file_that_is_far_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sparse.yml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OptionError, match="at most 1048576 bytes"):
        read_text(path)


def test_a_name_with_a_nul_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read option file"):
        read_text("a\0b.yml")
    with pytest.raises(OptionError, match="cannot read option file"):
        read_text(tmp_path)


def test_many_problems_are_told_in_part() -> None:
    with pytest.raises(OptionError) as error:
        parse_options({f"key{i}": 1 for i in range(1000)}, Outer, "x.yml")
    assert len(str(error.value).splitlines()) == 21
    assert str(error.value).endswith("x.yml: and 980 more problems")
    with pytest.raises(OptionError, match="expected a mapping of options at the top level, got list"):
        parse_options([1], Outer, "x.yml")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["[deflow]", "{a: 1}", "2020-01-01", "5"])
def test_a_kind_that_is_no_text_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(f"kind: {kind}\n")
    with pytest.raises(OptionError, match="option 'kind': expected one of"):
        read_train_options(path)


def test_the_command_line_tells_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yml"
    path.write_bytes(b"kind: deflow\nrun_dir: caf\xe9\n")
    assert main(["train", str(path)]) == 2
    assert "byte 0xe9; save the file as UTF-8" in capsys.readouterr().err

"""Patterns with braces: counted as braceexpand expands them, and refused before they fill the memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.errors import OptionError
from synthpipe.shards.brace_pattern import (
    DEEPEST_BRACES,
    LONGEST_PATTERN,
    MOST_CHARACTERS,
    MOST_SHARDS,
    count_names,
    expand_braces,
)

TEXT = st.text("ab-.\\01", max_size=3)
RANGE = st.builds(
    "{{{}..{}{}}}".format,
    st.sampled_from(["0", "1", "007", "-3", "12", "b", "Z"]),
    st.sampled_from(["0", "2", "010", "-1", "a", "d"]),
    st.sampled_from(["", "..2", "..-3", "..0"]),
)
PATTERNS = st.recursive(
    TEXT | RANGE,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"),
        st.lists(inner, max_size=3).map("".join),
    ),
    max_leaves=8,
)


@given(pattern=PATTERNS)
def test_as_braceexpand_does(pattern: str) -> None:
    """An odd number of backslashes at the end would take the brace that follows along."""
    try:
        expected = list(braceexpand(pattern))
    except ValueError:
        with pytest.raises(ValueError, match="brace"):
            count_names(pattern)
        return
    assert count_names(pattern) == len(expected)
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x{3..1}", ["x3", "x2", "x1"]),
        ("x{09..1..4}", ["x09", "x05", "x01"]),
        ("x{a,b{1..2}}.tar", ["xa.tar", "xb1.tar", "xb2.tar"]),
        ("x{}", ["x{}"]),
        (r"x\{1,2\}", ["x{1,2}"]),
    ],
)
def test_names(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_as_many_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthpipe.shards.brace_pattern.MOST_SHARDS", 1000)
    assert len(expand_braces("{000..999}")) == 1000
    with pytest.raises(OptionError, match="expands to 1001 names"):
        expand_braces("{0..1000}")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("x-{0..99999999}.tar", rf"expands to 100000000 names .* MOST_SHARDS \({MOST_SHARDS}\)"),
        ("x-{99999999..0}.tar", "expands to 100000000 names"),
        ("x-{-99999999..99999999..3}.tar", "expands to 66666667 names"),
        ("{a,b}" * 40, "expands to 1099511627776 names"),
        ("{a,b}" * 10_000, r"expands to 10\*\*3010 names"),
        ("{{a..z},{a..z}{a..z}}" * 6, "names"),
        (f"{'9' * 600}-{{0..999999}}", rf"MOST_CHARACTERS \({MOST_CHARACTERS}\)"),
        ("{" * (DEEPEST_BRACES + 1) + "a,b" + "}" * (DEEPEST_BRACES + 1), rf"DEEPEST_BRACES \({DEEPEST_BRACES}\)"),
        ("{" * 60_000, r"DEEPEST_BRACES"),
        ("x" * LONGEST_PATTERN + "{1,2}", rf"LONGEST_PATTERN \({LONGEST_PATTERN}\)"),
        ("{0.." + "9" * 5000 + "}", "braces"),
    ],
    ids=range(11),
)
def test_a_pattern_without_bounds(pattern: str, said: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(OptionError, match=said) as caught:
            expand_braces(pattern)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000


def test_what_webdataset_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_ROOT", "/d/{x,y}")
    assert expand_braces("${ROOT}/{0..1}.tar::z") == ["/d/x/0.tar", "/d/x/1.tar", "/d/y/0.tar", "/d/y/1.tar", "z"]
    monkeypatch.delenv("WDS_ROOT")
    with pytest.raises(OptionError, match=r"\$\{ROOT\} stands for the variable WDS_ROOT, which is not set"):
        expand_braces("${ROOT}/x.tar")


def test_a_hundred_thousand_are_quick() -> None:
    begin = time.perf_counter()
    assert len(set(expand_braces("{a..z}/./{0..9}{a,b}/{a..t}{,x}-{0..9}.tar"))) == 26 * 10 * 2 * 20 * 2 * 10
    assert time.perf_counter() - begin < 10

"""JSON that anyone may have written is read within bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthpipe.json_text import MAX_DEPTH, parse_json


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_json_writes_comes_back(value: Any) -> None:
    assert parse_json(json.dumps(value), 10**6) == value
    assert parse_json(json.dumps(value, indent=1).encode(), 10**6) == value


def test_depth_is_counted_outside_texts() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, 1000) is not None
    assert parse_json(json.dumps('[{"\\' * 500), 10**4) == '[{"\\' * 500
    for opening in ("[", '{"a":', '["[",', '[{"a":'):
        with pytest.raises(ValueError, match=f"at most {MAX_DEPTH} lists and objects within each other"):
            parse_json(opening * 100_000, 10**6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff[]", "can't decode byte 0xff"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice in one object"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "the key 'b' stands twice"),
        (b"1" * 5000, "4300 digits"),
        (b"[1", "Expecting"),
        (b"", "Expecting value"),
        (b" " * 10_001, "expected at most 10000 bytes of JSON, got 10001"),
    ],
)
def test_what_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text, 10_000)

"""JSON from a file that anyone may have written, within bounds."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["MAX_DEPTH", "parse_json"]

#: Lists and objects within each other.
MAX_DEPTH = 64

# Texts are passed over whole, so that brackets in them do not count.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_STEP = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def parse_json(data: str | bytes, max_bytes: int) -> Any:
    """The value of ``data``, UTF-8; NaN and infinity are numbers, as Python writes them.

    Args:
        data: the text.
        max_bytes: longest text that is looked at.

    Raises:
        ValueError: too long, not UTF-8, not JSON, a key twice in one object, lists and objects deeper than
            ``MAX_DEPTH``, a number of thousands of digits.

    >>> from synthpipe.json_text import parse_json
    >>> parse_json('{"a": [1]}', max_bytes=100)
    {'a': [1]}
    >>> parse_json("[" * 70 + "]" * 70, max_bytes=1000)
    Traceback (most recent call last):
    ValueError: expected at most 64 lists and objects within each other, got more
    """
    encoded = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    if len(encoded) > max_bytes:
        raise ValueError(f"expected at most {max_bytes} bytes of JSON, got {len(encoded)}")
    text = encoded.decode()
    depth = 0
    for token in _TOKEN.finditer(encoded):
        depth += _STEP.get(token[0], 0)
        if depth > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} lists and objects within each other, got more")
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return found

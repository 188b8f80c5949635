"""Names with braces, as the shell expands them: ``hr-{000..511}.tar``, ``{a,b}``, nested, with steps.

How many there are is counted before any of them is made.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass

from webdataset.shardlists import expand_urls as webdataset_expand

from synthpipe.errors import OptionError, excerpt

__all__ = ["DEEPEST_BRACES", "LONGEST_PATTERN", "MOST_CHARACTERS", "MOST_SHARDS", "count_names", "expand_braces"]

#: Shards in a corpus: names that one pattern, or several together, may make.
MOST_SHARDS = 1_000_000
#: Characters of all names of a pattern.
MOST_CHARACTERS = 1 << 29
#: Characters of a pattern.
LONGEST_PATTERN = 1 << 16
#: Braces within braces.
DEEPEST_BRACES = 32

_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?$")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?$")
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase
# An escaped character is none of these.
_MARKS = re.compile(r"\\.|[{},]", re.DOTALL)


def expand_braces(pattern: str) -> list[str]:
    """All names of a pattern, in the shell's order.

    Raises:
        OptionError: braces without a partner, more names than :data:`MOST_SHARDS` (or, taken together, more of
            :data:`MOST_CHARACTERS`), a pattern longer than :data:`LONGEST_PATTERN`, or braces deeper than
            :data:`DEEPEST_BRACES`.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise OptionError(
            f"shards {excerpt(pattern)}: a pattern of {len(pattern)} characters, more than LONGEST_PATTERN "
            f"({LONGEST_PATTERN}); name a folder or its index.json"
        )
    try:
        count = count_names(pattern)
        if count > MOST_SHARDS or count * len(pattern) > MOST_CHARACTERS:
            raise OptionError(
                f"shards {excerpt(pattern)}: expands to {_number(count)} names of up to {len(pattern)} characters, "
                f"more than MOST_SHARDS ({MOST_SHARDS}) or MOST_CHARACTERS ({MOST_CHARACTERS}) allow"
            )
        return list(webdataset_expand(pattern))
    except ValueError as error:
        raise OptionError(
            f"shards {excerpt(pattern)}: unbalanced braces, expected a pattern like hr-{{000..511}}.tar"
        ) from error


def _number(count: int) -> str:
    return str(count) if count < 10**15 else f"10**{math.floor(count.bit_length() * math.log10(2))}"


@dataclass
class _Brace:
    """An open brace: where its inside begins, names of the alternative under way, and of those before it."""

    begin: int
    names: int = 1
    before: int = 0
    commas: bool = False


def count_names(pattern: str) -> int:
    """How many names a pattern makes, without making them.

    Raises:
        OptionError: braces deeper than :data:`DEEPEST_BRACES`.
        ValueError: braces without a partner, or a number of thousands of digits.
    """
    open_braces = [_Brace(0)]
    for mark in _MARKS.finditer(pattern):
        brace = open_braces[-1]
        if mark[0] == "{":
            if len(open_braces) > DEEPEST_BRACES:
                raise OptionError(f"shards {excerpt(pattern)}: braces deeper than DEEPEST_BRACES ({DEEPEST_BRACES})")
            open_braces.append(_Brace(mark.end()))
        elif mark[0] == "," and len(open_braces) > 1:
            brace.before, brace.names, brace.commas = brace.before + brace.names, 1, True
        elif mark[0] == "}":
            open_braces.pop()
            if not open_braces:
                raise ValueError("a closing brace without an opening one")
            if brace.commas:
                found = brace.before + brace.names
            else:
                # Braces around anything else are text.
                found = _range_length(pattern[brace.begin : mark.start()]) or brace.names
            open_braces[-1].names *= found
    if len(open_braces) > 1:
        raise ValueError("an opening brace without a closing one")
    return open_braces[0].names


def _range_length(text: str) -> int | None:
    """Members of ``1..9``, ``9..1``, ``a..e`` or ``0..99..5``; None where it is none of these."""
    found = _NUMBERS.match(text)
    if found is not None:
        first, last = int(found[1]), int(found[2])
    else:
        found = _LETTERS.match(text)
        if found is None:
            return None
        first, last = _ALPHABET.index(found[1]), _ALPHABET.index(found[2])
    return abs(last - first) // (int(found[3] or 1) or 1) + 1

"""Names with braces, as the shell expands them: ``hr-{000..511}.tar``, ``{a,b}``, nested, with steps.

How many there are is counted before any of them is made.
"""

from __future__ import annotations

import math
import os
import re
import string
from dataclasses import dataclass, field

from synthpipe.errors import OptionError, excerpt

__all__ = ["DEEPEST_BRACES", "LONGEST_PATTERN", "MOST_CHARACTERS", "MOST_SHARDS", "count_names", "expand_braces"]

#: Shards in a corpus: names that one pattern, or several together, may make.
MOST_SHARDS = 250_000
#: Characters of all names of a pattern.
MOST_CHARACTERS = 1 << 29
#: Characters of a pattern.
LONGEST_PATTERN = 1 << 16
#: Braces within braces.
DEEPEST_BRACES = 32

_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?$")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_ESCAPED = re.compile(r"\\(.)")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?$")
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase
# An escaped character is none of these.
_MARKS = re.compile(r"\\.|[{},]", re.DOTALL)


def expand_braces(pattern: str) -> list[str]:
    """All names of a pattern, in the shell's order.

    As WebDataset has it, ``::`` stands between patterns, and ``${NAME}`` for the environment's ``WDS_NAME``.

    Raises:
        OptionError: braces without a partner, a variable that is not set, more names than :data:`MOST_SHARDS` (or,
            taken together, more of :data:`MOST_CHARACTERS`), a pattern longer than :data:`LONGEST_PATTERN`, or braces
            deeper than :data:`DEEPEST_BRACES`.
    """
    names: list[str] = []
    for part in pattern.split("::"):
        whole = _VARIABLE.sub(_value, part)
        _check_size(whole)
        names += _expanded(whole)
        if len(names) > MOST_SHARDS:
            raise OptionError(f"shards {excerpt(pattern)}: more than MOST_SHARDS ({MOST_SHARDS}) names")
    return names


def _check_size(pattern: str) -> None:
    if len(pattern) > LONGEST_PATTERN:
        raise OptionError(
            f"shards {excerpt(pattern)}: a pattern of {len(pattern)} characters, more than LONGEST_PATTERN "
            f"({LONGEST_PATTERN}); name a folder or its index.json"
        )
    try:
        count = count_names(pattern)
    except ValueError as error:
        raise OptionError(
            f"shards {excerpt(pattern)}: unbalanced braces, expected a pattern like hr-{{000..511}}.tar"
        ) from error
    if count > MOST_SHARDS or count * len(pattern) > MOST_CHARACTERS:
        raise OptionError(
            f"shards {excerpt(pattern)}: expands to {_number(count)} names of up to {len(pattern)} characters, "
            f"more than MOST_SHARDS ({MOST_SHARDS}) or MOST_CHARACTERS ({MOST_CHARACTERS}) allow"
        )


def _value(match: re.Match[str]) -> str:
    value = os.environ.get(f"WDS_{match[1]}")
    if value is None:
        raise OptionError(f"shards: {match[0]} stands for the variable WDS_{match[1]}, which is not set")
    return value


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
    """How many names a pattern makes, without making them; ``::`` and variables are text.

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
            found = _range(pattern[brace.begin : mark.start()])
            count = brace.names if found is None else _length(*found)
            open_braces[-1].names *= brace.before + brace.names if brace.commas else count
    if len(open_braces) > 1:
        raise ValueError("an opening brace without a closing one")
    return open_braces[0].names


@dataclass
class _Words:
    """An open brace as :class:`_Brace`, with the names themselves."""

    begin: int
    names: list[str] = field(default_factory=lambda: [""])
    before: list[str] = field(default_factory=list)
    commas: bool = False

    def add(self, ends: list[str]) -> None:
        """Each name goes on with each of these."""
        if len(self.names) == 1 and not self.names[0]:
            self.names = ends
        elif ends != [""]:
            self.names = [name + end for name in self.names for end in ends]


def _expanded(pattern: str) -> list[str]:
    """The names of a pattern whose braces have partners."""
    words = [_Words(0)]
    place = 0
    for mark in _MARKS.finditer(pattern):
        if mark[0][0] == "\\" or (mark[0] == "," and len(words) == 1):
            continue
        word = words[-1]
        word.add([_ESCAPED.sub(r"\1", pattern[place : mark.start()])])
        place = mark.end()
        if mark[0] == "{":
            words.append(_Words(place))
        elif mark[0] == ",":
            word.before, word.names, word.commas = word.before + word.names, [""], True
        else:
            words.pop()
            found = _range(pattern[word.begin : mark.start()])
            if word.commas:
                words[-1].add(word.before + word.names)
            else:
                # Braces around anything else are text.
                plain = [f"{{{name}}}" for name in word.names]
                words[-1].add(plain if found is None else _members(*found))
    words[0].add([_ESCAPED.sub(r"\1", pattern[place:])])
    return words[0].names


def _range(text: str) -> tuple[str, str, int] | None:
    """First, last and step of ``1..9``, ``9..1``, ``a..e`` or ``0..99..5``; None where it is none of these."""
    found = _NUMBERS.match(text) or _LETTERS.match(text)
    return None if found is None else (found[1], found[2], int(found[3] or 1) or 1)


def _length(first: str, last: str, step: int) -> int:
    begin, end = (_ALPHABET.index(end) if end.isalpha() else int(end) for end in (first, last))
    return abs(end - begin) // step + 1


def _members(first: str, last: str, step: int) -> list[str]:
    letters = first.isalpha()
    begin, end = (_ALPHABET.index(end) if letters else int(end) for end in (first, last))
    numbers = range(begin, end + 1, step) if begin < end else range(begin, end - 1, -step)
    if letters:
        return [_ALPHABET[number] for number in numbers]
    padded = any(text.startswith(("0", "-0")) and text not in ("0", "-0") for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return [f"{number:0{width}d}" for number in numbers]

"""YAML of an option file or of a value on the command line, as plain values and within bounds.

Differs from PyYAML's ``safe_load``, whose rules are YAML 1.1's, where that would change what someone wrote or let a
small file ask for much: dates, times (``1:30``), ``yes``, ``no``, ``on``, ``off`` and digits behind a leading zero stay
texts; ``1e-4`` is a number; a key given twice is an error; aliases are copies, and count as what they stand for.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from synthpipe.errors import OptionError, excerpt, shortened

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_DIGITS", "MAX_VALUES", "parse_yaml", "read_text"]

#: Of an option file, and of the characters that its values come to once aliases stand for what they name.
MAX_BYTES = 1 << 20
#: Keys, texts, numbers, lists and blocks in a file, those behind aliases counted each time.
MAX_VALUES = 50_000
#: Blocks and lists within each other.
MAX_DEPTH = 32
#: Of one number.
MAX_DIGITS = 40

# The first that fits; UTF-32's mark begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Stand in no text, and in no name of a file; names that are not UTF-8 have the halves of surrogates that are left out
# here.  Escapes can write them.
_UNUSABLE = re.compile("[\x00\ud800-\udc7f\udd00-\udfff]")
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(?:(?P<decimal>0|[1-9][0-9_]*)|0(?P<radix>[xob])(?P<digits>[0-9a-fA-F_]+))")
_RADIX = {"x": 16, "o": 8, "b": 2}
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[1-9][0-9_]*[eE][-+]?[0-9]+)"
)
_INFINITE = re.compile(r"(?P<sign>[-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS = {"": None, "~": None} | {
    spelling: value
    for word, value in {"null": None, "true": True, "false": False}.items()
    for spelling in (word, word.capitalize(), word.upper())
}


def read_text(path: str | Path) -> str:
    """The text of an option file: UTF-8, or UTF-16 or UTF-32 where the file begins with their mark.

    Raises:
        OptionError: a file that cannot be read, is larger than ``MAX_BYTES``, or is not text.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OptionError(f"cannot read option file {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL in it
        raise OptionError(f"cannot read option file {excerpt(str(path))}: {error}") from error
    if len(data) > MAX_BYTES:
        raise OptionError(f"{path}: expected an option file of at most {MAX_BYTES} bytes, got more")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        lines = data[: error.start].split(b"\n")
        byte = data[error.start]
        raise OptionError(
            f"{path}, line {len(lines)}, byte {len(lines[-1]) + 1}: expected text in {encoding.upper()}, got the byte "
            f"0x{byte:02x}; save the file as UTF-8"
        ) from error


def parse_yaml(text: str, source: str) -> Any:
    """The one document in ``text``: dictionaries with texts as keys, lists, texts, numbers, booleans, None.

    Args:
        text: of a file, or of one value.
        source: named in errors.

    Raises:
        OptionError: not YAML, several documents, a key twice or no text, a tag, or more than a bound of this module.
    """
    if len(text) > MAX_BYTES:
        raise OptionError(f"{source}: expected at most {MAX_BYTES} characters, got {len(text)}")
    try:
        return _Document(text, source).value()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: of escapes and directives
        raise OptionError(f"{source}: not valid YAML: {shortened(str(error))}") from error


class _Document:
    """Builds values from PyYAML's events, each checked as it comes."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._source = source
        #: What an anchor names, with its values and characters; None while it is being built.
        self._anchors: dict[str, tuple[Any, int, int] | None] = {}
        self._values = 0
        self._characters = 0

    def value(self) -> Any:
        """All of the document; None for an empty one."""
        next(self._events)  # of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        found = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._refuse(following, "expected one document, got another one behind '---'")
        return found

    def _node(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            self._refuse(event, f"expected at most {MAX_DEPTH} blocks and lists within each other, got more")
        values, characters = self._values, self._characters
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._count(event, 1, 0)
        build: Callable[[Any, int], Any] = {
            yaml.ScalarEvent: self._scalar,
            yaml.SequenceStartEvent: self._list,
            yaml.MappingStartEvent: self._mapping,
        }[type(event)]
        found = build(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (found, self._values - values, self._characters - characters)
        return found

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            self._refuse(event, f"no anchor &{shortened(event.anchor)} stands before this alias")
        named = self._anchors[event.anchor]
        if named is None:
            self._refuse(event, f"the alias *{shortened(event.anchor)} stands within what it names")
        found, values, characters = named
        self._count(event, values, characters)
        return _copied(found)

    def _count(self, event: Any, values: int, characters: int) -> None:
        self._values += values
        self._characters += characters
        if self._values > MAX_VALUES:
            self._refuse(event, f"expected at most {MAX_VALUES} values, aliases counted each time, got more")
        if self._characters > MAX_BYTES:
            self._refuse(event, f"expected at most {MAX_BYTES} characters, aliases counted each time, got more")

    def _list(self, event: Any, depth: int) -> list[Any]:
        self._require_tag(event, "seq")
        found = []
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            found.append(self._node(item, depth + 1))
        return found

    def _mapping(self, event: Any, depth: int) -> dict[str, Any]:
        self._require_tag(event, "map")
        own: dict[str, Any] = {}
        merged: dict[str, Any] | None = None
        while not isinstance(item := next(self._events), yaml.MappingEndEvent):
            is_merge = isinstance(item, yaml.ScalarEvent) and item.value == "<<" and item.implicit[0]
            key = self._node(item, depth + 1)
            if not isinstance(key, str):
                self._refuse(item, f"expected a text as key, got {excerpt(key)}; write it in quotes")
            if key in own or (is_merge and merged is not None):
                self._refuse(item, f"the key {excerpt(key)} stands twice in one block; leave one of them")
            value_event = next(self._events)
            value = self._node(value_event, depth + 1)
            if is_merge:
                merged = self._merged(value_event, value)
            else:
                own[key] = value
        return {**(merged or {}), **own}

    def _merged(self, event: Any, value: Any) -> dict[str, Any]:
        """What ``<<`` brings in: of several blocks the first one that has a key counts."""
        blocks = value if isinstance(value, list) else [value]
        if not all(isinstance(block, dict) for block in blocks):
            self._refuse(event, f"expected a block of options behind '<<', got {excerpt(value)}")
        return {key: item for block in reversed(blocks) for key, item in block.items()}

    def _scalar(self, event: Any, depth: int) -> Any:
        del depth
        text: str = event.value
        self._count(event, 0, len(text))
        if unusable := _UNUSABLE.search(text):
            self._refuse(event, f"expected a text without the character {unusable[0]!r}, got {excerpt(text)}")
        if event.tag is None:
            return self._plain(event, text) if event.implicit[0] else text
        if event.tag in ("!", f"{_TAG}str"):
            return text
        found = self._plain(event, text)
        kinds: dict[str, set[type]] = {"int": {int}, "float": {int, float}, "bool": {bool}, "null": {type(None)}}
        allowed = {_TAG + name: types for name, types in kinds.items()}.get(event.tag)
        if allowed is None:
            self._refuse_tag(event)
        if type(found) not in allowed:
            self._refuse(event, f"{excerpt(text)} is not what its tag !!{event.tag.removeprefix(_TAG)} says")
        return found

    def _plain(self, event: Any, text: str) -> Any:
        """The meaning of a text without quotes."""
        if text in _WORDS:
            return _WORDS[text]
        if text[:1] not in "+-.0123456789":
            return text
        if number := _INTEGER.fullmatch(text):
            self._require_digits(event, text)
            radix = 10 if number["decimal"] else _RADIX[number["radix"]]
            try:
                return int(text.replace("_", ""), radix)
            except ValueError:  # 0b12, 0o9, 0x_
                return text
        if _FLOAT.fullmatch(text):
            self._require_digits(event, text)
            return float(text.replace("_", ""))
        if infinite := _INFINITE.fullmatch(text):
            return float("nan") if infinite["sign"] is None else float(f"{infinite['sign']}inf")
        return text

    def _require_digits(self, event: Any, text: str) -> None:
        if len(text) > MAX_DIGITS:
            self._refuse(event, f"expected a number of at most {MAX_DIGITS} digits, got {len(text)}: {excerpt(text)}")

    def _require_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", _TAG + kind):
            self._refuse_tag(event)

    def _refuse_tag(self, event: Any) -> NoReturn:
        tag = event.tag.replace(_TAG, "!!", 1) if event.tag.startswith(_TAG) else event.tag
        self._refuse(event, f"the tag {shortened(tag)} has no meaning in options; write the value without it")

    def _refuse(self, event: Any, problem: str) -> NoReturn:
        mark = event.start_mark
        raise OptionError(f"{self._source}, line {mark.line + 1}, column {mark.column + 1}: {problem}")


def _copied(value: Any) -> Any:
    """So that a change of one block, by an override, is not one of all that its alias stands in."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value

"""Pages of the option reference for a terminal of any width."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from synthpipe.config.reference.blocks import Block, Option, blocks_at
from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.config.reference.topics import TOPICS, topic_blocks

__all__ = ["flags_of", "names_page", "topic_page"]

#: The columns of types and defaults are at most so wide; where less than the last is left for the meaning, options
#: are written below each other instead.
_TYPE, _DEFAULT, _MEANING = 24, 12, 32
_GAP = 2
_HEADER = Option("OPTION", "TYPE", "DEFAULT", "MEANING")
_HINT = (
    "`synthpipe options NAME` prints the options of a name, `synthpipe options NAME.OPTION` one of them or a "
    "block, `synthpipe options stages.jpeg` those of a stage."
)


def names_page(width: int) -> str:
    """All topics, one a line or more."""
    column = max(map(len, TOPICS))
    lines = [
        line for name, topic in TOPICS.items() for line in _row((name, topic.what), (column, width - column - _GAP))
    ]
    return "\n".join([*lines, "", textwrap.fill(_HINT, width)])


def topic_page(name: str, path: str, width: int) -> str:
    """The options of the topic ``name``; with a dotted ``path`` only those at and below it, if there are any."""
    blocks = topic_blocks(name)
    if path:
        return _blocks(blocks_at(blocks, path), width)
    kinds = [f"  {other}" for other in TOPICS if other.startswith(f"{name}.")]
    more = ["\n".join(["Each kind has more:", *kinds])] if kinds else []
    flags = [textwrap.fill(flags_of(name, blocks[0].options), width)] if TOPICS[name].command else []
    examples = [textwrap.indent(text.rstrip(), "    ") for text in EXAMPLES.get(name, ())]
    if examples:
        examples.insert(0, "Example:" if len(examples) == 1 else "Examples:")
    head = textwrap.fill(f"{name}: {TOPICS[name].what}", width)
    return "\n\n".join([head, *more, *flags, _blocks(blocks, width), *examples])


def flags_of(topic: str, options: Sequence[Option]) -> str:
    """How options are given to the command of a topic."""
    command = topic.partition(".")[0]
    name = next(option.name for option in options if "_" in option.name)
    return f"Flags of the command: `{name}` is `--{name.replace('_', '-')}`; `synthpipe {command} --help` has them all."


def _blocks(blocks: Sequence[Block], width: int) -> str:
    """All blocks as tables, or none, where one would be too wide."""
    tables = [_table_widths(block.options, width) for block in blocks]
    fits = all(widths[-1] >= _MEANING for widths in tables)
    texts = []
    for block, widths in zip(blocks, tables, strict=True):
        rows = _table(block.options, widths) if fits else _below_each_other(block.options, width)
        texts.append("\n".join([*_heading(block, width), *rows]))
    return "\n\n".join(texts)


def _heading(block: Block, width: int) -> Iterator[str]:
    paragraphs = block.text.split("\n\n") if block.text else []
    title = ", ".join(part for part in (block.name, block.tag) if part)
    if title:
        paragraphs = [": ".join([title, *paragraphs[:1]]), *paragraphs[1:]]
    for paragraph in paragraphs:
        yield from (textwrap.fill(paragraph, width), "")


def _table_widths(options: Sequence[Option], width: int) -> tuple[int, int, int, int]:
    rows = [_HEADER, *options]
    name = max(len(row.name) for row in rows)
    type_ = min(max(len(row.type) for row in rows), _TYPE)
    default = min(max(len(row.default) for row in rows), _DEFAULT)
    return name, type_, default, width - name - type_ - default - 3 * _GAP


def _table(options: Sequence[Option], widths: Sequence[int]) -> Iterator[str]:
    for row in (_HEADER, *options):
        yield from _row((row.name, row.type, row.default, row.meaning), widths)


def _row(texts: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Texts beside each other, each wrapped."""
    columns = [textwrap.wrap(text, width) for text, width in zip(texts, widths, strict=True)]
    for parts in itertools.zip_longest(*columns, fillvalue=""):
        yield (" " * _GAP).join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()


def _below_each_other(options: Sequence[Option], width: int) -> Iterator[str]:
    for option in options:
        default = f"default {option.default}" if option.default not in ("", "required") else option.default
        # A path that is wider than the terminal goes on in the next line.
        name = option.name if len(option.name) < width else ". ".join(option.name.rsplit(".", 1))
        head = f"{name}: {', '.join(part for part in (option.type, default) if part)}"
        yield from textwrap.wrap(head, width, subsequent_indent="  ", break_long_words=False)
        yield from textwrap.wrap(option.meaning, width, initial_indent="    ", subsequent_indent="    ")

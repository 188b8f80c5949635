"""The option reference as a guide in Markdown, with the schemas for editors beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from synthpipe.config.reference.blocks import Block, Option
from synthpipe.config.reference.examples import EXAMPLES
from synthpipe.config.reference.terminal import flags_of
from synthpipe.config.reference.topics import EDITOR_TOPICS, TOPICS, editor_schema, topic_blocks

__all__ = ["WRITE_COMMAND", "guide_files", "write_guide"]

#: What writes the files of the repository anew.
WRITE_COMMAND = "synthpipe options --write recipes/guides"

_INTRODUCTION = f"""\
# Options

Every option of every file and command, with its type, its default and its meaning.

*Generated from the schemas in `synthpipe/config/`; change a description there, not here, then run
`{WRITE_COMMAND}`. In a terminal, `synthpipe options` lists the names below,
`synthpipe options stream` prints one of them, `synthpipe options stream.degrade` a block.*

How to read it:

* `a.b` is the option `b` in the block `a`: in a file `a: {{b: 1}}`, on the command line of `synthpipe train` `a.b=1`;
  `a[].b` is of each entry of the list `a`.
* *block* is a group of options, described in a table of its own; *block by type (x, y)* is one of several, and its
  option `type` says which.
* *weights* is a `.safetensors` file or the name of weights that ship with synthpipe; *shards* is a path or URL, with
  ranges such as `{{000..511}}`, or a folder with an index.
* In every path, here and in arguments of commands, `~`, `~user`, `$NAME` and `${{NAME}}` are replaced; a user or
  variable that is unknown is an error. `$$` is a `$` itself, `./~` a name that begins so. `http(s)://` and `pipe:` stay
  as they are.
* `null`, in YAML also `~`, says that an option is not set; leaving it out does the same where that is its default.
* A misspelt option is an error that names the nearest known one.

## In an editor

[schema/](schema) has JSON schemas of the three kinds of files that people write. An editor with
[yaml-language-server](https://github.com/redhat-developer/yaml-language-server) completes, explains and checks options
by the first line of a file:

```yaml
# yaml-language-server: $schema=train.schema.json
```

with the schema from `synthpipe options train --json-schema > train.schema.json`; likewise `stream` and `basicsr`. For
a file in a folder of `recipes/`, `../guides/schema/train.json` is at hand.
"""


def guide_files() -> dict[str, str]:
    """Text of each file, by its path within the guides' folder."""
    files = {"options.md": _guide()}
    for name in EDITOR_TOPICS:
        files[f"schema/{name}.json"] = json.dumps(editor_schema(name), indent=1, ensure_ascii=False) + "\n"
    return files


def write_guide(folder: Path) -> list[Path]:
    """Write the files below ``folder``; returns their paths."""
    files = {folder / name: text for name, text in guide_files().items()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def _guide() -> str:
    contents = [f"* [{name}](#{_anchor(name)}): {topic.what}" for name, topic in TOPICS.items()]
    chapters = ["\n".join(_chapter(name)) for name in TOPICS]
    return "\n".join([_INTRODUCTION, "## Contents", "", *contents, "", "\n\n".join(chapters), ""])


def _anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _chapter(name: str) -> Iterator[str]:
    topic = TOPICS[name]
    blocks = topic_blocks(name, link=True)
    yield from (f"## {name}", "", topic.what[0].upper() + topic.what[1:] + ".")
    if topic.like:
        yield from ("", f"It has all options of [{topic.like}](#{_anchor(topic.like)}), and these.")
        blocks = _without(blocks, topic_blocks(topic.like, link=True))
    if topic.command:
        yield from ("", flags_of(name, blocks[0].options))
    for text in EXAMPLES.get(name, ()):
        yield from ("", "```yaml", text.rstrip(), "```")
    for block in blocks:
        yield from _section(block, topic.what)


def _without(blocks: list[Block], others: list[Block]) -> list[Block]:
    """``blocks`` without the options that ``others`` have just so."""
    known = {(block.name, block.tag, option) for block in others for option in block.options}
    left = [
        Block(b.name, b.tag, b.text, tuple(o for o in b.options if (b.name, b.tag, o) not in known)) for b in blocks
    ]
    return [block for block in left if block.options]


def _section(block: Block, known: str) -> Iterator[str]:
    title = ", ".join(f"`{part}`" for part in (block.name, block.tag) if part)
    if title:
        yield from ("", f"### {title}")
    if block.text and known not in block.text:
        yield from ("", _escaped(block.text))
    yield from ("", "| option | type | default | meaning |", "| --- | --- | --- | --- |")
    for option in block.options:
        default = f"`{option.default}`" if option.default not in ("", "required") else option.default
        yield f"| `{option.name}` | {_type(option)} | {default} | {_escaped(option.meaning)} |"


def _type(option: Option) -> str:
    return f"[{option.see}](#{_anchor(option.see)}) {option.type}" if option.see else _escaped(option.type)


def _escaped(text: str) -> str:
    """``text`` with what Markdown would take for markup outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*|<])", r"\\\1", part) for part in parts)

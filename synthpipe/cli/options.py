"""``synthpipe options``: every option, its type, default and meaning."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
from pathlib import Path
from typing import Any

from synthpipe.cli.command import add_command
from synthpipe.cli.places import local_path
from synthpipe.errors import OptionError

__all__ = ["add_parser", "run"]

_EXAMPLE = """\
  synthpipe options                                          # all names
  synthpipe options stream
  synthpipe options train deflow                             # one kind of training; `options train`: what all have
  synthpipe options train.deflow.model.encoder               # one block, or one option
  synthpipe options train --json-schema > train.schema.json  # for editors, see recipes/guides/options.md
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "options",
        help="say what every option means",
        description="Print the options of a file, a block or a command: name, type, default and meaning.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "name", nargs="*", metavar="NAME", help="such as stream, degrade or train deflow (default: list)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json-schema", action="store_true", help="print the JSON schema of the file or block instead")
    how.add_argument(
        "--write", type=local_path, metavar="DIR", help="write options.md and schema/ with all of it to DIR"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print; always 0."""
    from synthpipe.config.reference.terminal import names_page, topic_page
    from synthpipe.config.reference.topics import editor_schema

    name = ".".join(args.name)
    width = shutil.get_terminal_size((100, 24)).columns
    if args.write is not None:
        _write(args.write, name)
        return 0
    if not name:
        if args.json_schema:
            raise OptionError("--json-schema: expected a NAME, such as stream or train")
        print(names_page(width))
        return 0
    topic, path = _find(name)
    if args.json_schema:
        if path:
            raise OptionError(
                f"--json-schema: expected a name of `synthpipe options`, got a part of {topic!r}: {path!r}"
            )
        print(json.dumps(editor_schema(topic), indent=1, ensure_ascii=False))
    else:
        print(topic_page(topic, path, width))
    return 0


def _write(folder: Path, name: str) -> None:
    from synthpipe.config.reference.guide import write_guide

    if name:
        raise OptionError(f"--write writes all names; leave out {name!r}")
    try:
        paths = write_guide(folder)
    except OSError as error:
        raise OptionError(f"--write: cannot write {str(folder)!r}: {error.strerror or error}") from error
    print("\n".join(map(str, paths)))


def _find(name: str) -> tuple[str, str]:
    """The topic that ``name`` begins with, and the dotted path of the block or option within it.

    Raises:
        OptionError: no such name; names the nearest.
    """
    from synthpipe.config.reference.blocks import blocks_at, kinds_of, paths_of
    from synthpipe.config.reference.topics import TOPICS, topic_blocks

    topic = max((t for t in TOPICS if f"{name}.".startswith(f"{t}.")), key=len, default="")
    path = name.removeprefix(topic).lstrip(".")
    if topic and (not path or blocks_at(topic_blocks(topic), path)):
        return topic, path
    blocks = topic_blocks(topic) if topic else []
    inside = [f"{topic}.{known}" for known in (*kinds_of(blocks), *paths_of(blocks))]
    near = difflib.get_close_matches(name, [*TOPICS, *inside], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(TOPICS)}"
    raise OptionError(f"unknown name {name!r}; {hint}")

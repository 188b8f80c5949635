"""JSON schemas of options: for editors, and what the option reference is read from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

__all__ = ["DIALECT", "definition", "json_schema", "plain_text"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Node = dict[str, Any]


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def json_schema(schema: Any) -> Node:
    """The JSON schema of ``schema``, a model or a union of models told apart by a key, unknown keys refused.

    Unlike pydantic's own it requires that key in each member of a union, as reading does, and its texts are plain.
    """
    made = TypeAdapter(schema).json_schema(schema_generator=_WithoutTitles)
    for node in _nodes(made):
        _modernize(node)
        if isinstance(node.get("description"), str):
            node["description"] = plain_text(node["description"])
        if "discriminator" in node:
            tag = node["discriminator"]["propertyName"]
            for reference in node["discriminator"]["mapping"].values():
                member = definition(made, reference)
                member["required"] = [tag, *(name for name in member.get("required", ()) if name != tag)]
    return made


def definition(root: Node, reference: str) -> Node:
    """What ``#/$defs/NAME`` stands for in ``root``."""
    found: Node = root["$defs"][reference.rsplit("/", 1)[1]]
    return found


def plain_text(docstring: str) -> str:
    """A docstring without markup of Sphinx: paragraphs on one line each, code in single backticks."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring).replace("``", "`")
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _modernize(node: Node) -> None:
    """Spell ``node`` as pydantic 2.14 does where earlier versions have another way to say the same."""
    if len(node.get("allOf", ())) == 1:
        node.update(node.pop("allOf")[0])
    if "const" in node:
        node.pop("enum", None)


def _nodes(node: Any) -> Iterator[Node]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)

"""Options of a JSON schema as rows, block by block, with dotted names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthpipe.config.reference.json_schema import definition
from synthpipe.config.reference.words import type_words, value_words

__all__ = ["Block", "Option", "blocks_at", "kinds_of", "option_blocks", "paths_of", "references"]

Node = dict[str, Any]

_REQUIRED = "required"
_NO_DEFAULT = object()


@dataclass(frozen=True)
class Option:
    """One option: what may stand there, what stands there if it is not given, and what it means."""

    name: str
    type: str
    default: str
    meaning: str
    #: Topic that describes the block which stands here, where it is not described in place.
    see: str = ""


@dataclass(frozen=True)
class Block:
    """Options that stand together.

    ``name`` is a dotted path, empty at the top, with ``[]`` after what is a list; ``tag`` is ``type: rrdb`` where the
    block is one of several, else empty.
    """

    name: str
    tag: str
    text: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class _Member:
    """A block that may stand at some place; ``key`` and ``value`` tell it from the others there."""

    node: Node
    reference: str = ""
    key: str = ""
    value: str = ""

    def takes(self, default: Any) -> bool:
        """Whether ``default`` is a value of this block."""
        return isinstance(default, dict) and (not self.key or default.get(self.key) == self.value)


def option_blocks(root: Node, shared: Mapping[frozenset[str], str] | None = None) -> list[Block]:
    """The block that ``root`` is, or those of which it is one, and all below, each before those that it holds.

    Args:
        root: a schema of :func:`synthpipe.config.reference.json_schema.json_schema`.
        shared: blocks that are described elsewhere: :func:`references` -> name of the topic.
    """
    reader = _Reader(root, shared or {})
    members = _members(root, root)
    around = frozenset(member.reference for member in members)
    return [block for member in members for block in reader.block("", member, {}, around)]


def references(root: Node) -> frozenset[str]:
    """How other schemas refer to the block, or to those of which it is one, that ``root`` is."""
    return frozenset(m.reference or f"#/$defs/{root['title']}" for m in _members(root, root))


def blocks_at(blocks: Sequence[Block], path: str) -> list[Block]:
    """The option at the dotted ``path``, alone, and the blocks at and below it; empty where there is none.

    Where ``blocks`` are one of several, told apart by their type, a type may stand in front: ``jpeg.quality``.
    """
    path = _plain(path)
    kind, _, rest = path.partition(".")
    if kind in kinds_of(blocks):
        of_kind = _of_kind(blocks, kind)
        return blocks_at(of_kind, rest) if rest else of_kind
    named = [option for block in blocks for option in block.options if _plain(option.name) == path]
    inside = [block for block in blocks if f"{_plain(block.name)}.".startswith(f"{path}.")]
    return [*([Block("", "", "", tuple(named))] if named else []), *inside]


def kinds_of(blocks: Sequence[Block]) -> list[str]:
    """The types of the blocks at the top, where they are one of several."""
    return [block.tag.rpartition(": ")[2] for block in blocks if not block.name and block.tag]


def _of_kind(blocks: Sequence[Block], kind: str) -> list[Block]:
    """The block of this type at the top, and those below it, which follow it."""
    start = next(n for n, block in enumerate(blocks) if not block.name and block.tag.endswith(f": {kind}"))
    return [blocks[start], *itertools.takewhile(lambda block: block.name, blocks[start + 1 :])]


def paths_of(blocks: Sequence[Block]) -> list[str]:
    """Dotted paths of all options in ``blocks``."""
    return [_plain(option.name) for block in blocks for option in block.options]


def _plain(name: str) -> str:
    return name.replace("[]", "")


def _members(root: Node, node: Node) -> list[_Member]:
    """The blocks that may stand at ``node``, also as entries of a list there."""
    if "$ref" in node:
        return [_Member(definition(root, node["$ref"]), node["$ref"])]
    if "discriminator" in node:
        key, mapping = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
        values = {reference: value for value, reference in mapping.items()}
        references = [branch["$ref"] for branch in node["oneOf"]]
        return [_Member(definition(root, r), r, key, values[r]) for r in references]
    if "properties" in node:
        return [_Member(node)]
    branches = [*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())]
    return [member for branch in branches for member in _members(root, branch)]


class _Reader:
    def __init__(self, root: Node, shared: Mapping[frozenset[str], str]) -> None:
        self._root, self._shared = root, shared

    def block(self, name: str, member: _Member, given: Mapping[str, Any], around: frozenset[str]) -> list[Block]:
        """A block and those below it; ``given`` are values that the block's own default sets.

        ``around`` are references of the blocks that it stands in, and of those beside them: one that may stand in
        itself is described once.
        """
        node, options, below = member.node, [], []
        for key, child in node["properties"].items():
            path = f"{name}.{key}" if name else key
            value = given.get(key, child.get("default", _NO_DEFAULT))
            found = _members(self._root, child)
            names = frozenset(m.reference for m in found if m.reference)
            see = next((topic for known, topic in self._shared.items() if names and names <= known), "")
            required = key in node.get("required", ()) and key not in given
            default = _REQUIRED if required or key == member.key else _default(value, found)
            options.append(Option(path, type_words(child), default, child.get("description", ""), see))
            for inner in [] if see else found:
                place = path + "[]" * _is_list(child)
                if inner.reference not in around or not inner.reference:
                    below += self.block(place, inner, value if inner.takes(value) else {}, around | names)
        tag = f"{member.key}: {member.value}" if member.key else ""
        return [Block(name, tag, node.get("description", ""), tuple(options)), *below]


def _default(value: Any, found: Sequence[_Member]) -> str:
    """A block's default is the value that tells it from others; the rest is said at its own options."""
    if value is _NO_DEFAULT:
        return ""
    if not isinstance(value, dict):
        return value_words(value)
    return next((member.value for member in found if member.key and member.takes(value)), "")


def _is_list(node: Node) -> bool:
    return (node.get("type") == "array" and "items" in node) or any(
        _is_list(branch) for branch in node.get("anyOf", ())
    )

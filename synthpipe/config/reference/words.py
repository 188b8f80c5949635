"""Types and defaults of a JSON schema in the words of somebody who writes YAML."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["listed", "type_words", "value_words"]

Node = dict[str, Any]

_COUNTABLE = re.compile(r"\b(pair|number|integer|text|folder|file|block|list)\b")


def type_words(node: Node) -> str:
    """What may stand at ``node``: ``integer from 1 to 64``, ``one of flips, none``, ``folder or null``, ..."""
    if "enum" in node:
        return _choice(node["enum"])
    if "const" in node:
        return value_words(node["const"])
    if "$ref" in node:
        return "block"
    if "discriminator" in node:
        tag = node["discriminator"]
        values = {reference: value for value, reference in tag["mapping"].items()}
        return f"block by {tag['propertyName']} ({', '.join(values[branch['$ref']] for branch in node['oneOf'])})"
    if "anyOf" in node:
        return _any_of([type_words(branch) for branch in node["anyOf"]])
    if node["type"] == "array":
        return _list(node)
    if node["type"] == "string":
        pattern = f" matching `{node['pattern']}`" if "pattern" in node and "format" not in node else ""
        return str(node.get("format", "text")) + pattern
    if node["type"] in ("integer", "number"):
        return f"{node['type']} {_bounds(node)}".strip()
    return {"boolean": "true or false", "null": "null", "object": "block"}[node["type"]]


def value_words(value: Any) -> str:
    """``value`` as YAML has it on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_words, value))}]"
    return str(value)


def listed(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _choice(values: list[Any]) -> str:
    # A number and its text are one choice: YAML reads `32` as a number.
    words = list(dict.fromkeys(map(value_words, values)))
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


def _any_of(words: list[str]) -> str:
    simple = not any("," in word and not word.endswith(")") for word in words)
    return listed(words) if simple else ", or ".join(words)


def _list(node: Node) -> str:
    if "prefixItems" in node:
        kinds = dict.fromkeys(map(type_words, node["prefixItems"]))
        if len(kinds) == len(node["prefixItems"]) == 2:
            return f"pair [{', '.join(kinds)}]"
        inner = _plural(next(iter(kinds))) if len(kinds) == 1 else ", ".join(kinds)
        return f"list of {len(node['prefixItems'])} {inner}"
    if "items" not in node:
        return "list"
    inner = type_words(node["items"])
    some = "non-empty list" if node.get("minItems", 0) > 0 else "list"
    plain = not inner.startswith("one of") and ", or " not in inner
    return f"{some} of {_plural(inner)}" if plain else f"{some}, each {inner}"


def _plural(words: str) -> str:
    return _COUNTABLE.sub(r"\1s", words, count=1)


def _bounds(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f"from {_bound(low)} to {_bound(high)}"
    parts = []
    for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("maximum", "<="), ("exclusiveMaximum", "<")):
        if key in node:
            parts.append(f"{sign} {_bound(node[key])}")
    return " and ".join(parts)


def _bound(value: float) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 32 and value == 2**power else value_words(value)

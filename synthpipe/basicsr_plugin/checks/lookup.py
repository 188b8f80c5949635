"""Looking into nested options by dotted path, and the nearest known name to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["block_at", "nearest", "value_at"]


def value_at(options: Mapping[str, Any], path: str) -> Any:
    """The value at ``train.optim_g.lr``, or None where a key on the way is missing."""
    value: Any = options
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def block_at(options: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The block at ``path``, empty where there is none."""
    value = value_at(options, path)
    return value if isinstance(value, Mapping) else {}


def nearest(name: str, known: Iterable[str], otherwise: str = "known", cutoff: float = 0.5) -> str:
    """A hint: the closest of ``known``, or all of them."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=cutoff)
    return f"did you mean {lowered[near[0]]!r}?" if near else f"{otherwise}: {', '.join(sorted(lowered.values()))}"

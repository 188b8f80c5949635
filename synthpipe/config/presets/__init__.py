"""Chains by name, written from papers: the value of ``degrade`` may be such a name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["PRESETS", "preset_chain"]

#: What makes the stages of each preset, as they stand in an option file.
PRESETS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {}


def preset_chain(name: str) -> list[dict[str, Any]]:
    """The stages of a preset.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(PRESETS))
        raise ValueError(f"expected a block of options, a list of stages, or a preset ({known}), got {name!r}{hint}")
    return PRESETS[name]()

"""Chains by name, written from papers or learned: the value of ``degrade`` may be such a name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from synthpipe.config.presets.bsrgan import bsrgan_chain
from synthpipe.config.presets.real_esrgan import real_esrgan_chain
from synthpipe.config.presets.zoo import ZOO, zoo_chain

__all__ = ["PRESETS", "ZOO", "preset_chain"]

#: What makes the stages of each preset, as they stand in an option file.
PRESETS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "real-esrgan": real_esrgan_chain,
    "bsrgan": bsrgan_chain,
    "bsrgan-x2": partial(bsrgan_chain, 2),
    **{name: partial(zoo_chain, name) for name in ZOO},
}


def preset_chain(name: str) -> list[dict[str, Any]]:
    """The stages of a preset, for the caller to change.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(PRESETS))
        raise ValueError(f"expected a block of options, a list of stages, or a preset ({known}), got {name!r}{hint}")
    return [_own(stage) for stage in PRESETS[name]()]


def _own(value: Any) -> Any:
    """A copy in which nothing stands in two places."""
    if isinstance(value, Mapping):
        return {key: _own(item) for key, item in value.items()}
    return [_own(item) for item in value] if isinstance(value, list | tuple) else value

"""The options as BasicSR will see them: its file by the rules of YAML 1.1, with ``--force_yml`` applied.

Our own files are read by :mod:`synthpipe.config.reader`, to which ``1e-4`` is a number; to BasicSR it is text, and a
file has to mean the same to both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import yaml

from synthpipe.basicsr_plugin.command_line import CommandLine, keys_of
from synthpipe.config.yaml_text import MAX_DEPTH, MAX_VALUES, read_text
from synthpipe.errors import OptionError, shortened

__all__ = ["read_option_file"]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as BasicSR's loader reads it, but without objects of Python's, and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's, which takes the last of two equal keys."""
        seen = set()
        for key, _ in getattr(node, "value", ()):
            if key.value != "<<" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while reading a block", node.start_mark, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_option_file(command: CommandLine) -> dict[str, Any]:
    """The options of a run, ``--force_yml`` applied in BasicSR's way.

    Raises:
        OptionError: a file that cannot be read, or an entry of ``--force_yml`` that names no place in it.
    """
    path = command.option_file
    text = read_text(path)
    try:
        options = yaml.load(text, Loader=_Loader)  # derived from SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise OptionError(f"{path}: not valid YAML: {shortened(str(error))}") from error
    if not isinstance(options, dict):
        raise OptionError(f"{path}: expected a mapping of options at the top level, got {type(options).__name__}")
    _check_bounds(options, path)
    for entry in command.overrides:
        _override(options, entry)
    return options


def _check_bounds(options: dict[str, Any], path: str) -> None:
    """Aliases may stand for more than memory holds, or for themselves."""
    waiting: list[tuple[Any, int]] = [(options, 0)]
    values = 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        inner = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
        if depth > MAX_DEPTH or values + len(waiting) + len(inner) > MAX_VALUES:
            raise OptionError(
                f"{path}: expected at most {MAX_VALUES} values, and {MAX_DEPTH} blocks and lists within each other, "
                "aliases counted each time; got more"
            )
        waiting += [(each, depth + 1) for each in inner]


def _override(options: dict[str, Any], entry: str) -> None:
    """BasicSR runs ``exec`` on the keys; a missing one ends it with a KeyError that names no entry."""
    from basicsr.utils.options import _postprocess_yml_value

    if entry.count("=") != 1:
        raise OptionError(f"--force_yml {entry!r}: expected key:sub=value with one '='")
    *parents, last = keys_of(entry)
    block: Any = options
    for depth, parent in enumerate(parents):
        if not isinstance(block, dict) or parent not in block:
            known = list(block) if isinstance(block, dict) else []
            near = difflib.get_close_matches(parent, [str(key) for key in known], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known there: {', '.join(map(str, known)) or 'none'}"
            where = ":".join(parents[:depth]) or "top level"
            raise OptionError(f"--force_yml {entry!r}: the file has no {parent!r} at its {where}; {hint}")
        block = block[parent]
    if not isinstance(block, dict):
        raise OptionError(f"--force_yml {entry!r}: {':'.join(parents)} is a value, not a block of options")
    try:
        block[last] = _postprocess_yml_value(entry.partition("=")[2].strip())
    except Exception as error:  # BasicSR evaluates what begins with a bracket: anything may come
        raise OptionError(
            f"--force_yml {entry!r}: the value cannot be read ({error}); write a list as [1,2]"
        ) from error

"""The command line of our entry, and the options as BasicSR will see them: the file with ``--force_yml`` applied."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthpipe.config.reader import read_yaml
from synthpipe.errors import OptionError

__all__ = ["CommandLine", "parse_command_line", "read_option_file"]

_RESTART = "--restart_stream"


@dataclass(frozen=True)
class CommandLine:
    """What our entry was called with."""

    option_file: str
    launcher: str = "none"
    auto_resume: bool = False
    debug: bool = False
    restart_stream: bool = False
    #: ``key:sub=value`` of ``--force_yml``.
    overrides: tuple[str, ...] = ()
    #: The arguments that BasicSR's own parser gets.
    for_basicsr: tuple[str, ...] = ()

    @property
    def overridden(self) -> frozenset[str]:
        """Dotted paths of the keys that ``--force_yml`` sets."""
        return frozenset(".".join(_keys(entry)) for entry in self.overrides)


def parse_command_line(arguments: Sequence[str]) -> CommandLine:
    """Read BasicSR's flags and ``--restart_stream``; ends the program with 2 where they cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m synthpipe.basicsr_plugin.train", description="BasicSR training with synthpipe, resumed exactly"
    )
    parser.add_argument("-opt", required=True, metavar="FILE", help="BasicSR's option file, YAML")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="pytorch: torchrun")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest checkpoint of this run")
    parser.add_argument(
        _RESTART,
        action="store_true",
        help="with --auto_resume or path.resume_state: keep networks, optimizers, schedulers and the iteration, and "
        "start the stream anew, because its batch, patches, workers, corpus or degradation were changed on purpose",
    )
    parser.add_argument("--debug", action="store_true", help="log and validate often")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUB=VALUE", help="options over the file's")
    given = parser.parse_args(arguments)
    return CommandLine(
        option_file=given.opt,
        launcher=given.launcher,
        auto_resume=given.auto_resume,
        debug=given.debug,
        restart_stream=given.restart_stream,
        overrides=tuple(given.force_yml),
        for_basicsr=tuple(argument for argument in arguments if not _is_restart(argument)),
    )


def read_option_file(command: CommandLine) -> dict[str, Any]:
    """The options of a run, ``--force_yml`` applied in BasicSR's way.

    Raises:
        OptionError: a file that cannot be read, or an entry of ``--force_yml`` that names no place in it.
    """
    options = read_yaml(command.option_file)
    for entry in command.overrides:
        _override(options, entry)
    return options


def _is_restart(argument: str) -> bool:
    return len(argument) > len("--r") and _RESTART.startswith(argument)  # argparse takes abbreviations


def _keys(entry: str) -> list[str]:
    return entry.partition("=")[0].strip().split(":")


def _override(options: dict[str, Any], entry: str) -> None:
    """BasicSR runs ``exec`` on the keys; a missing one ends it with a KeyError that names no entry."""
    from basicsr.utils.options import _postprocess_yml_value

    if entry.count("=") != 1:
        raise OptionError(f"--force_yml {entry!r}: expected key:sub=value with one '='")
    *parents, last = _keys(entry)
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

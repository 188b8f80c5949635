"""The command line of our entry: BasicSR's flags and one of ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CommandLine", "keys_of", "parse_command_line"]

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
        return frozenset(".".join(keys_of(entry)) for entry in self.overrides)


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


def _is_restart(argument: str) -> bool:
    return len(argument) > len("--r") and _RESTART.startswith(argument)  # argparse takes abbreviations


def keys_of(entry: str) -> list[str]:
    """The keys of an entry of ``--force_yml``, outermost first."""
    return entry.partition("=")[0].strip().split(":")

"""The ``synthpipe`` command: one module per sub-command, each with ``add_parser`` and ``run``.

Exit codes: 0 done, 1 failed, 2 usage (bad arguments or options).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from synthpipe._version import __version__
from synthpipe.errors import OptionError, SynthPipeError, os_error_text

__all__ = ["main"]

_COMMANDS = (
    "shard",
    "check",
    "train",
    "calibrate",
    "degrade",
    "denoise",
    "restore",
    "preview",
    "explain",
    "score",
    "filter",
    "options",
    "import_deflow",
    "import_realesrgan",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synthpipe", description="Learned degradations as a streaming transform.")
    parser.add_argument("--version", action="version", version=f"synthpipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:
        module = import_module(f"synthpipe.cli.{name}")
        module.add_parser(commands).set_defaults(run=module.run)
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The name of a file or folder need not be text; the error stream is like this from the start.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 1
    except OptionError as error:
        _say(args.command, str(error))
        return 2
    except SynthPipeError as error:
        _say(args.command, str(error))
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        _say(args.command, os_error_text(error))
        return 1
    except KeyboardInterrupt:
        _say(args.command, "interrupted")
        return 1


def _reader_is_gone() -> bool:
    """Whether who reads the output, ``head`` for one, has seen enough; if so, the rest goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # The interpreter would flush, and complain, once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _say(command: str, text: str) -> None:
    """One message on the error stream, with the command's name in front unless the message has it already."""
    prefix = f"synthpipe {command}: "
    print(text if text.startswith(prefix) else prefix + text, file=sys.stderr)

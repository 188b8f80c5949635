"""What is wrong with a BasicSR run, found before the first file is written or network is built, all of it at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from synthpipe.basicsr_plugin.checks.data_block import check_data
from synthpipe.basicsr_plugin.checks.models import check_model
from synthpipe.basicsr_plugin.checks.numbers import check_numbers
from synthpipe.basicsr_plugin.checks.run import check_name_and_blocks, check_resume, check_run
from synthpipe.basicsr_plugin.checks.sizes import check_sizes
from synthpipe.basicsr_plugin.checks.types import argument_rules, check_types
from synthpipe.basicsr_plugin.checks.val_pairs import Findings, check_val_pairs
from synthpipe.basicsr_plugin.command_line import CommandLine
from synthpipe.errors import OptionError

__all__ = ["check_options"]


def check_options(options: Mapping[str, Any], command: CommandLine) -> list[str]:
    """Check the options of a whole run, ``--force_yml`` applied; :func:`synthpipe.basicsr_plugin.register` came before.

    Returns:
        What is no error and the log should say.

    Raises:
        OptionError: one line per problem: file, key, what was expected, what came, what to do.
    """
    problems = list(check_name_and_blocks(options))
    notes: list[str] = []
    if not problems:
        found, meant = check_numbers(options, command.overridden, argument_rules(options))
        # The others see what was meant by a number, so that each mistake is said once.
        problems = [
            *found,
            *check_types(meant),
            *check_model(meant),
            *check_data(meant),
            *check_sizes(meant),
            *check_run(meant, command),
            *check_resume(meant, command),
        ]
        # Validation is the first rank's.
        pairs = check_val_pairs(meant) if os.environ.get("RANK", "0") == "0" else Findings([], [])
        problems += pairs.problems
        notes = pairs.notes
    if problems:
        lines = (f"{command.option_file}: {problem}" for problem in dict.fromkeys(problems))
        raise OptionError("\n".join(map(_one_line, lines)))
    return notes


def _one_line(text: str) -> str:
    """Keys and values of a file may hold line ends and what no terminal can show."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

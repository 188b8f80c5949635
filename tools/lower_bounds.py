"""Prints pip constraints that hold every requirement of ``setup.cfg`` at the lowest version it allows.

The test suite on the lower bounds, in an environment of its own::

    python tools/lower_bounds.py >/tmp/lower.txt
    TORCH="torch torchvision" PIP_CONSTRAINT=/tmp/lower.txt VENV=.venv-lower bash tools/setup.sh all
    OMP_NUM_THREADS=1 .venv-lower/bin/python -m pytest -q -W default --hypothesis-profile ci -n 2
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).parent.parent / "setup.cfg"


def lower_bounds(setup: str) -> dict[str, str]:
    """The lowest version allowed of each requirement in the text of a ``setup.cfg``, all extras included.

    Of two lower bounds for one name the higher counts; requirements without a lower bound are left out.
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(setup)
    lists = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    bounds: dict[str, str] = {}
    for line in "\n".join(lists).splitlines():
        found = re.match(r"([\w.-]+)(?:\[.*\])?\s*(?:>=|==)\s*([\d.]+)", line)
        if found:
            name, version = found.groups()
            bounds[name] = max(version, bounds.get(name, "0"), key=_numbers)
    return bounds


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


if __name__ == "__main__":
    for name, version in sorted(lower_bounds(SETUP.read_text(encoding="utf-8")).items()):
        print(f"{name}=={version}")

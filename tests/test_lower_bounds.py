"""``tools/lower_bounds.py`` against the requirements that a package index shows of the installed package."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools" / "lower_bounds.py"

SETUP = """[options]
install_requires =
    torch>=2.6
    webdataset>=1.0.2,<2
    unbounded

[options.extras_require]
# a comment with a bound>=9
a =
    unbounded
    scipy>=1.9
    exact==3.1
b =
    scipy>=1.11.4
    server[all]>=5
c =
    scipy>=1.10
"""


def test_the_highest_lower_bound_of_each_name() -> None:
    bounds = runpy.run_path(str(TOOL))["lower_bounds"](SETUP)
    assert bounds == {
        "torch": "2.6", "webdataset": "1.0.2", "scipy": "1.11.4", "exact": "3.1", "server": "5",
    }  # fmt: skip


def test_what_it_prints_is_one_constraint_a_line() -> None:
    printed = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, check=True).stdout
    constraints = dict(line.split("==") for line in printed.splitlines())
    assert {"torch", "numpy", "pillow", "pydantic", "ray"} <= set(constraints)

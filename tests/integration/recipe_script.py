"""Scripts of recipes, run as from the command line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

__all__ = ["run_script"]


def run_script(script: Path, *argv: object) -> None:
    before = sys.argv
    sys.argv = [script.name, *map(str, argv)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv = before

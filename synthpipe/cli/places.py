"""Types of arguments that are places: every argument that is one has one of these, which a test checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from synthpipe.config.places import Place, expand_place

__all__ = ["local_path", "place"]


def place(text: str) -> Place:
    """A path or URL, with ``~`` and variables replaced.

    Raises:
        argparse.ArgumentTypeError: it cannot be one; see :func:`synthpipe.config.places.expand_place`.
    """
    try:
        return expand_place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_path(text: str) -> Path:
    """A path on this machine, with ``~`` and variables replaced.

    Raises:
        argparse.ArgumentTypeError: it cannot be one, or is a URL.
    """
    found = place(text)
    if "://" in found and not found.startswith("file://"):
        raise argparse.ArgumentTypeError(f"expected a path on this machine, got the URL {text!r}")
    return Path(found.removeprefix("file://"))

"""The ``--device`` of every command that computes."""

from __future__ import annotations

import argparse

__all__ = ["add_device_argument", "find_device"]


def add_device_argument(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Declare ``--device``; ``note`` follows its help."""
    text = "auto (default): CUDA where there is one, else the CPU; or cpu, cuda, cuda:1, ..."
    parser.add_argument("--device", default="auto", help=f"{text}; {note}" if note else text)


def find_device(args: argparse.Namespace) -> str:
    """The device that was asked for, by PyTorch's name.

    Raises:
        OptionError: it is not here.
    """
    from synthpipe.device import resolve_device

    return resolve_device(args.device, "--device")

"""Chains from options, as a stream builds them."""

from __future__ import annotations

from typing import Any

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.chain import Chain

__all__ = ["chain_of"]


class _Block(Options):
    degrade: DegradeOptions


def chain_of(degrade: Any, scale: int = 1) -> Chain:
    """The chain of a list of stages, a choice, or a preset's name."""
    built = build_degrade(parse_options({"degrade": degrade}, _Block).degrade, scale)
    assert isinstance(built, Chain)
    return built

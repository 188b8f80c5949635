"""The learning rate's factor at each step."""

from __future__ import annotations

import math
from typing import assert_never

from synthpipe.config.run import ScheduleOptions

__all__ = ["lr_factor"]


def lr_factor(options: ScheduleOptions, step: int, max_steps: int) -> float:
    """What the learning rates are multiplied by at ``step`` (0-based): warm-up times decay."""
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    match options.kind:
        case "constant":
            return warm * options.factor ** sum(step >= place * max_steps for place in options.milestones)
        case "cosine":
            done = min(1.0, max(0, step - options.warmup_steps) / max(1, max_steps - 1 - options.warmup_steps))
            return warm * (options.final + (1 - options.final) * (1 + math.cos(math.pi * done)) / 2)
        case _:
            assert_never(options.kind)

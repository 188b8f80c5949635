"""Options of a degradation alone: the file of ``synthpipe degrade``."""

from __future__ import annotations

from pydantic import Field

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options

__all__ = ["DegradeFileOptions"]


class DegradeFileOptions(Options):
    """What makes a degraded image of a clean one."""

    degrade: DegradeOptions = Field(description="what makes the low-quality partner")
    scale: int = Field(4, ge=1, le=16, description="HR side over LR side")

"""Options of degradations: what turns a clean tile into its low-quality partner.

:data:`DegradeOptions`, at the end, is the only list of whole ones; :mod:`synthpipe.transforms.build` makes each a
transform.  :data:`synthpipe.config.chain.StageOption` lists the stages of chains.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from synthpipe.config.chain import ChainOptions, ChoiceOptions, ShortForms, as_degrade
from synthpipe.config.classical import (
    BlurOptions,
    ClassicalDegradeOptions,
    GaussianNoiseOptions,
    PoissonGaussianNoiseOptions,
)
from synthpipe.config.stages.deflow import DeFlowDegradeOptions

__all__ = [
    "BlurOptions",
    "ChainOptions",
    "ChoiceOptions",
    "ClassicalDegradeOptions",
    "DeFlowDegradeOptions",
    "DegradeOptions",
    "GaussianNoiseOptions",
    "PoissonGaussianNoiseOptions",
]

#: Every degradation, told apart by ``type``; a list is a chain, a name a preset.
DegradeOptions = Annotated[
    DeFlowDegradeOptions | ClassicalDegradeOptions | ChainOptions | ChoiceOptions,
    Field(discriminator="type"),
    BeforeValidator(as_degrade),
    ShortForms(),
]

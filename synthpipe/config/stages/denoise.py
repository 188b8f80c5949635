"""Options of the stage that smooths as cameras do."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.places import Weights
from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["DenoiseStageOptions"]


class DenoiseStageOptions(StageOptions):
    """Takes away fine texture and keeps edges, as phones do: by the guided filter, or by a denoiser's weights."""

    examples: ClassVar = (
        """\
# noise, and what a camera made of it
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: noise, kinds: {gaussian: 1}, sigma: [0.01, 0.06]}
  - {type: denoise, radius: [1, 4], sigma: [0.03, 0.15], strength: [0.5, 1.0]}
""",
        """\
# the same by a network that is told of more noise than there is
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: denoise, weights: map_small, sigma: [0.05, 0.15], probability: 0.3}
""",
    )

    type: Literal["denoise"] = Field("denoise", description="chooses smoothing as of cameras")
    weights: Weights | None = Field(
        None,
        description="a .safetensors file of any denoiser, or the name of shipped weights (map_small); images must have "
        "one size there; null: the guided filter",
    )
    radius: Range[Annotated[int, Field(ge=1, le=32)]] = Field(
        (1, 4), description="[low, high]: of the guided filter's windows in pixels, a whole number drawn uniformly"
    )
    sigma: Range[Annotated[float, Field(ge=0.002, le=1)]] = Field(
        (0.02, 0.1),
        description="[low, high], on the [0, 1] scale, drawn uniformly: standard deviation in a window up to which the "
        "guided filter smooths more than it keeps; of a network the level of the noise that it takes away",
    )
    strength: Range[Annotated[float, Field(ge=0, le=1)]] = Field(
        (1.0, 1.0), description="[low, high]: 1 is the smoothed image, 0 the image; drawn uniformly"
    )

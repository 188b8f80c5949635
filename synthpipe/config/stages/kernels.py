"""Options of the stage that blurs by learned kernels."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.places import Weights
from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["KERNEL_STRENGTH_MEANING", "KernelStrength", "KernelsStageOptions"]

#: How much of a learned blur.
KernelStrength = Range[Annotated[float, Field(ge=0, le=4)]]
KERNEL_STRENGTH_MEANING = (
    "[low, high]: how much of the difference between the image and its blur, drawn uniformly: 0 is the image, 1 the "
    "kernel as estimated, more goes beyond it"
)


class KernelsStageOptions(StageOptions):
    """Learned blur: each sample by one kernel of a bank that was estimated from images, at a strength of its own."""

    examples: ClassVar = (
        """\
# what a camera's small images lost against reduced ones, at every strength, then its noise
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: kernels, weights: kernels_city100, strength: [0, 1.5]}
  - {type: noise, kinds: {gaussian: 1}, sigma: [0.001, 0.015]}
""",
    )

    type: Literal["kernels"] = Field("kernels", description="chooses learned blur")
    weights: Weights = Field(
        description="a .safetensors file that `synthpipe train` wrote (kind: kernels), or the name of shipped weights "
        "(kernels_city100)"
    )
    strength: KernelStrength = Field(
        (0.0, 1.5),
        description=f"{KERNEL_STRENGTH_MEANING}; a range from none on is safer than the estimate alone, because a "
        "network learns to oversharpen where blur was taken for stronger than it is",
    )
    sharpening: KernelStrength | None = Field(
        None,
        description="[low, high]: the same for what a kernel raises, the camera's sharpening, drawn for itself; "
        "strength is then of the blur alone; null: as strength",
    )
    chroma: KernelStrength | None = Field(
        None,
        description="[low, high]: the same for the kernels of colour, drawn for itself, where the weights have them; "
        "null: as strength",
    )

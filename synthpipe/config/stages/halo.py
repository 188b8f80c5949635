"""Options of the stage that sharpens with halos."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["HaloStageOptions"]


class HaloStageOptions(StageOptions):
    """Unsharp masking, which overshoots at edges: as Real-ESRGAN's, or everywhere."""

    examples: ClassVar = (
        """\
# the halos of photographs that were sharpened too much
degrade:
  - {type: halo, amount: [0.3, 1.5], sigma: [0.7, 3], threshold: null, probability: 0.3}
  - {type: resize, to: lr, filter: bicubic}
""",
    )

    type: Literal["halo"] = Field("halo", description="chooses sharpening with halos")
    amount: Range[Annotated[float, Field(ge=0, le=10)]] = Field(
        (0.5, 0.5),
        description="[low, high]: how much of the difference between the image and its blur is added, drawn uniformly",
    )
    sigma: Range[Annotated[float, Field(gt=0, le=20)]] = Field(
        (8.0, 8.0),
        description="[low, high]: standard deviation of the Gaussian blur in pixels, which ends at 25/8 of it; 8 is "
        "the radius 50 of Real-ESRGAN",
    )
    threshold: Range[Annotated[float, Field(ge=0, le=255)]] | None = Field(
        (10.0, 10.0),
        description="[low, high]: difference, of 255, above which a pixel is sharpened; the blurred mask of those "
        "pixels is how far each is; null: all pixels are",
    )

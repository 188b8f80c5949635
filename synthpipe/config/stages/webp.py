"""Options of the stage that compresses as WebP."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthpipe.config.stages.base import Range, StageOptions

__all__ = ["WebpStageOptions"]


class WebpStageOptions(StageOptions):
    """Lossy WebP and back, on the host, in threads; 8 bits before and after.

    At low qualities it moves edges down and to the right, in brightness by hundredths of a pixel, in colour by a tenth.
    """

    examples: ClassVar = (
        """\
# one image in five was a WebP file
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: webp, quality: [40, 90], probability: 0.2}
""",
    )

    type: Literal["webp"] = Field("webp", description="chooses lossy WebP")
    quality: Range[Annotated[int, Field(ge=0, le=100)]] = Field(
        (40, 95), description="[low, high]: libwebp's quality, 0 to 100, a whole number drawn uniformly"
    )
    method: int = Field(
        4, ge=0, le=6, description="how hard the encoder tries for a small file: 0 is fast, 4 is what programs use"
    )

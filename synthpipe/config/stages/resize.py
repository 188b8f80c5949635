"""Options of the stage that resizes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator

from synthpipe.config.stages.base import Range, StageOptions, Weight, Weights

__all__ = ["DirectionOptions", "ResizeFilters", "ResizeStageOptions"]

_Factor = Annotated[float, Field(gt=0, le=32)]


class ResizeFilters(Weights):
    """How often each filter is drawn, in proportion to the sum; those that are left out never."""

    nearest: Weight = Field(
        0.0,
        description="weight of the pixel under the centre of the new one; moves content by up to half a pixel",
    )
    area: Weight = Field(
        0.0, description="weight of the mean of all pixels that the new one touches, as torch's `area`"
    )
    box: Weight = Field(0.0, description="weight of the mean over the new pixel, as OpenCV's INTER_AREA")
    bilinear: Weight = Field(0.0, description="weight of the triangle")
    hermite: Weight = Field(0.0, description="weight of the cubic of radius 1")
    hamming: Weight = Field(0.0, description="weight of Pillow's Hamming filter")
    bicubic: Weight = Field(
        0.0, description="weight of Keys' cubic, a = -0.5 with antialias (as Pillow), -0.75 without (as OpenCV)"
    )
    mitchell: Weight = Field(0.0, description="weight of Mitchell and Netravali's cubic")
    b_spline: Weight = Field(0.0, description="weight of the cubic B-spline, which blurs")
    gaussian: Weight = Field(0.0, description="weight of a Gaussian with a deviation of half a pixel")
    lanczos: Weight = Field(0.0, description="weight of Lanczos' filter of 3 lobes")

    def drawn(self) -> dict[str, float]:
        """Weights above 0, by name."""
        return {name: weight for name, weight in self if weight > 0}


class _OrOneName:
    """In the JSON schema of the filters: one name will do."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(ResizeFilters.model_fields)}, handler(core)]}


_Filters = Annotated[
    ResizeFilters, BeforeValidator(lambda value: {value: 1.0} if isinstance(value, str) else value), _OrOneName()
]


class DirectionOptions(Weights):
    """Weights of enlarging, reducing, and keeping the size."""

    up: Weight = Field(0.0, description="weight of enlarging: the factor is drawn from 1 to the high end")
    down: Weight = Field(0.0, description="weight of reducing: the factor is drawn from the low end to 1")
    keep: Weight = Field(0.0, description="weight of a factor of 1")


class ResizeStageOptions(StageOptions):
    """Resizes, to the LR size or by a drawn factor; content stays where it is, whatever the sizes."""

    examples: ClassVar = (
        """\
# the reduction to the LR size, by a filter that each sample draws
degrade:
  - {type: resize, to: lr, filter: {area: 1, bilinear: 1, bicubic: 1}}
""",
        """\
# as Real-ESRGAN: by a factor of its own law, then to the LR size; filters as OpenCV's, not antialiased
degrade:
  - type: resize
    factor: [0.15, 1.5]
    direction: {up: 0.2, down: 0.7, keep: 0.1}
    filter: {area: 1, bilinear: 1, bicubic: 1}
    antialias: false
  - {type: resize, to: lr, filter: {area: 1, bilinear: 1, bicubic: 1}, antialias: false}
""",
        """\
# a detour: to between half and all of the LR size and back
degrade:
  - {type: resize, to: lr, factor: [0.5, 1.0], filter: lanczos}
  - {type: resize, to: lr, filter: bilinear}
""",
    )

    type: Literal["resize"] = Field("resize", description="chooses resizing")
    to: Literal["current", "lr"] = Field(
        "current",
        description="what factor multiplies: the size that the image has there (current), or the LR size; "
        "{type: resize, to: lr} gives exactly the LR size",
    )
    factor: Range[_Factor] = Field(
        (1.0, 1.0),
        description="[low, high]: new size over the size that `to` names, one for height and width, drawn for each "
        "sample; sizes are rounded down to whole pixels",
    )
    law: Literal["uniform", "log", "inverse"] = Field(
        "uniform",
        description="what is uniform between the ends of the range: the factor, its logarithm, or 1 / factor",
    )
    direction: DirectionOptions | None = Field(
        None,
        description="draws first whether to enlarge, to reduce or to keep the size, and then the factor on that side "
        "of 1; null: from the whole range",
    )
    filter: _Filters = Field(
        ResizeFilters(bicubic=1.0),
        description="a filter's name, or {name: weight, ...} to draw one for each sample",
        json_schema_extra={"default": "bicubic"},
    )
    antialias: bool = Field(
        True,
        description="widen the filter by the factor of a reduction, as Pillow does; false: its width is in pixels of "
        "the image before, as OpenCV and torch without antialias have it, where fine structure turns into moire; "
        "nearest, area and box are what they are",
    )
    linear_light: bool = Field(
        False, description="decode sRGB before and encode it after, so that means are means of light"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ResizeStageOptions:
        if self.to == "current" and self.factor == (1.0, 1.0):
            raise ValueError("expected to: lr, or a factor other than 1: this stage would change nothing")
        low, high = self.factor
        if self.direction is not None and (self.direction.up > 0 > high - 1 or self.direction.down > 0 > 1 - low):
            raise ValueError(
                "direction: up needs a factor range that ends at 1 or above, down one that begins at 1 or below; got "
                f"{[low, high]}; leave direction out, or the weight of that side"
            )
        return self

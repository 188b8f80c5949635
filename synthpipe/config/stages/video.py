"""Options of the stage that compresses as a frame of a video."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from synthpipe.config.stages.base import Range, StageOptions, Weight

__all__ = ["VideoCodec", "VideoStageOptions"]

#: The codecs, by the names that option files use.
VideoCodec = Literal["h264", "hevc", "mpeg2", "mpeg4", "vp9"]

_Crf = Range[Annotated[int, Field(ge=1, le=51)]]
_Quantiser = Range[Annotated[int, Field(ge=1, le=31)]]


def _one_codec(value: Any) -> Any:
    """A name alone is the only codec."""
    return {value: 1.0} if isinstance(value, str) else value


def _in_one_order(value: dict[VideoCodec, float]) -> dict[VideoCodec, float]:
    """A number between 0 and 1 stands for the same codec however a file orders them."""
    return {name: value[name] for name in get_args(VideoCodec) if name in value}


_Codecs = Annotated[
    dict[VideoCodec, Weight],
    BeforeValidator(_one_codec),
    AfterValidator(_in_one_order),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(get_args(VideoCodec))},
                {"type": "object", "additionalProperties": {"type": "number"}},
            ]
        }
    ),
]
# YAML reads `709` as a number.
_Matrix = Annotated[
    Literal["601", "709"],
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    WithJsonSchema({"enum": ["601", "709", 601, 709]}),
]


class VideoStageOptions(StageOptions):
    """An intra frame of a video and back, 4:2:0, on the host, in threads; 8 bits before and after.

    Needs PyAV: ``pip install 'synthpipe[video]'``.  Pixels are those of the encoders that it brings: another version
    may give others.  At low qualities all but mpeg2 and mpeg4 move edges down and to the right, in brightness by
    hundredths of a pixel, in colour by up to some tenths.
    """

    examples: ClassVar = (
        """\
# frames of DVDs and of streams: each sample has its own codec and quality
degrade:
  - {type: resize, to: lr, filter: bicubic}
  - {type: video, codecs: {mpeg2: 0.3, h264: 0.5, hevc: 0.2}, h264_crf: [18, 35], probability: 0.5}
""",
    )

    type: Literal["video"] = Field("video", description="chooses a frame of a video")
    codecs: _Codecs = Field(
        {"h264": 1.0},
        description="a codec, or {codec: weight} to draw one for each sample: h264, hevc, mpeg2, mpeg4 (part 2, as in "
        "DivX and Xvid), vp9",
    )
    h264_crf: _Crf = Field((18, 38), description="[low, high]: x264's crf, 1 (best) to 51, drawn uniformly")
    hevc_crf: _Crf = Field((18, 38), description="[low, high]: x265's crf, 1 (best) to 51, drawn uniformly")
    vp9_crf: Range[Annotated[int, Field(ge=0, le=63)]] = Field(
        (25, 55), description="[low, high]: libvpx's crf of VP9, 0 (best) to 63, drawn uniformly"
    )
    mpeg2_quantiser: _Quantiser = Field(
        (2, 16), description="[low, high]: MPEG-2's quantiser scale code, 1 (best) to 31, drawn uniformly"
    )
    mpeg4_quantiser: _Quantiser = Field(
        (2, 16), description="[low, high]: MPEG-4's quantiser, 1 (best) to 31, drawn uniformly"
    )
    matrix: _Matrix = Field(
        "709",
        description="how colours become Y'CbCr in limited range: as BT.709 says (high definition), or BT.601 (DVD)",
    )

    @model_validator(mode="after")
    def _some_weight(self) -> VideoStageOptions:
        if sum(self.codecs.values()) <= 0:
            raise ValueError(f"codecs: expected a weight above 0, got {self.codecs}")
        return self

    @property
    def qualities(self) -> dict[VideoCodec, tuple[int, int]]:
        """By codec: the range of its quality."""
        return {
            "h264": self.h264_crf,
            "hevc": self.hevc_crf,
            "mpeg2": self.mpeg2_quantiser,
            "mpeg4": self.mpeg4_quantiser,
            "vp9": self.vp9_crf,
        }

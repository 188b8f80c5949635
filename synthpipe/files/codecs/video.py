"""One frame through the codecs of video, by FFmpeg's libraries (PyAV).

Encoders run in one thread with fixed settings, so that an image gives the same bytes each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np

from synthpipe.errors import OptionError
from synthpipe.files.codecs.yuv import Planes, to_planes, to_rgb

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext

__all__ = ["CODECS", "LONGEST_SIDE", "check_video_codecs", "planes_round_trip", "video_round_trip"]

#: The longest side that all of the codecs take.
LONGEST_SIDE = 8176

_BLOCK = 16  # macroblocks
_X265 = "pools=none:frame-threads=1:wpp=0:info=0:log-level=none:keyint=1:crf={}"
#: The quantiser itself, whatever FFmpeg's rate control would do; in MPEG-4 and MPEG-2 it is 1 to 31.
_QUANTISER = {"qmin": "{}", "qmax": "{}", "lmin": "{lambda}", "lmax": "{lambda}", "i_qfactor": "1", "i_qoffset": "0"}


class _Codec(NamedTuple):
    """FFmpeg's names, and options of the encoder with ``{}`` for the quality."""

    encoder: str
    decoder: str
    options: dict[str, str]


#: By the name that option files use.
CODECS = {
    "h264": _Codec("libx264", "h264", {"preset": "medium", "crf": "{}"}),
    "hevc": _Codec("libx265", "hevc", {"preset": "medium", "x265-params": _X265}),
    "mpeg2": _Codec("mpeg2video", "mpeg2video", _QUANTISER),
    "mpeg4": _Codec("mpeg4", "mpeg4", _QUANTISER),
    "vp9": _Codec(
        "libvpx-vp9",
        "vp9",
        {"crf": "{}", "b": "0", "deadline": "realtime", "cpu-used": "5", "lag-in-frames": "0", "row-mt": "0"},
    ),
}


def check_video_codecs(names: Iterable[str]) -> None:
    """Refuse codecs that this machine lacks.

    Raises:
        OptionError: PyAV is not installed, or its FFmpeg was built without one of them.
    """
    try:
        from av.codec.codec import Codec, UnknownCodecError
    except ImportError as error:
        raise OptionError(
            "degrade: the stage video needs PyAV, which is not installed; run pip install 'synthpipe[video]'"
        ) from error
    for name in names:
        codec = CODECS[name]
        for kind, mode in ((codec.encoder, "w"), (codec.decoder, "r")):
            try:
                Codec(kind, mode)  # type: ignore[arg-type]
            except UnknownCodecError as error:
                raise OptionError(
                    f"degrade: the FFmpeg that PyAV brings here has no {kind}, which the stage video needs for {name}; "
                    f"leave {name} out of `codecs`, or install the wheel of PyAV: pip install 'synthpipe[video]'"
                ) from error


def video_round_trip(levels: np.ndarray, codec: str, quality: int, matrix: str) -> np.ndarray:
    """What is left of an image that was an intra frame; leaves the interpreter free meanwhile.

    Args:
        levels: ``(h, w, 3)`` uint8, RGB; padded to whole blocks by its border pixels, and cut again.
        codec: a key of :data:`CODECS`.
        quality: its crf, or quantiser.
        matrix: of the colours, see :mod:`synthpipe.files.codecs.yuv`.

    Returns:
        ``(h, w, 3)`` uint8.
    """
    height, width, _ = levels.shape
    below, right = (_coded_side(side, codec, longest=max(height, width)) - side for side in (height, width))
    padded = np.pad(levels, ((0, below), (0, right), (0, 0)), mode="edge")
    return to_rgb(planes_round_trip(to_planes(padded, matrix), codec, quality), matrix)[:height, :width]


def planes_round_trip(planes: Planes, codec: str, quality: int) -> Planes:
    """The frame alone; sides are multiples of 16."""
    import av

    height, width = planes.y.shape
    encoder = _context(CODECS[codec].encoder, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 25), Fraction(25), 1
    numbers = {"lambda": 118 * quality}  # FFmpeg's unit of lambda
    encoder.options = {key: text.format(quality, **numbers) for key, text in CODECS[codec].options.items()}
    chroma = (plane.reshape(-1, width) for plane in planes[1:])
    frame = av.VideoFrame.from_ndarray(np.concatenate([planes.y, *chroma]), format="yuv420p")
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = _context(CODECS[codec].decoder, "r")
    frames = [made for packet in [*packets, None] for made in decoder.decode(packet)]
    return _planes_of(frames[0])


def _context(name: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    """An encoder or a decoder in one thread, the caller's."""
    import av

    context = cast("VideoCodecContext", av.CodecContext.create(name, mode))
    context.thread_count = 1
    return context


def _planes_of(frame: av.VideoFrame) -> Planes:
    joined = frame.to_ndarray(format="yuv420p")
    height, width = frame.height, frame.width
    chroma = joined[height:].reshape(2, height // 2, width // 2)
    return Planes(joined[:height], chroma[0], chroma[1])


def _coded_side(side: int, codec: str, longest: int) -> int:
    """The next whole block, and what some encoders ask beside it."""
    coded = -(-side // _BLOCK) * _BLOCK
    if codec == "hevc" and longest > 4096:
        return max(coded, 64)  # its level at this length forbids the smaller coding units of a narrower image
    if codec == "mpeg2" and coded % 4096 == 0:
        return coded + _BLOCK  # its header cannot say such a side
    return coded

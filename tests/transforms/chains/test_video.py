"""The stage `video` against the recommendations' numbers, swscale, and files that FFmpeg's muxer holds."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import torch

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.video import VideoStageOptions
from synthpipe.errors import OptionError
from synthpipe.files.codecs import video
from synthpipe.files.codecs.video import CODECS, planes_round_trip, video_round_trip
from synthpipe.files.codecs.yuv import Planes, to_planes, to_rgb
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.video import Video
from tests.transforms.chains.registration import levels_of, mean_shift
from tests.transforms.chains.stage_battery import check_stage, drawn, photo_like


def stage(**options):
    return Video(parse_options({"type": "video", **options}, VideoStageOptions))


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


def test_contract():
    check_stage(stage(codecs=dict.fromkeys(CODECS, 1.0)))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("red", [False, True])
def test_content_stays_where_it_is_at_good_qualities(codec, red):
    good = {"h264": 12, "hevc": 12, "mpeg2": 2, "mpeg4": 2, "vp9": 8}[codec]
    shift, error = mean_shift(lambda levels: video_round_trip(levels, codec, good, "709"), red=red)
    assert (np.abs(shift) < 0.01).all(), f"{shift} +- {error}"


@pytest.mark.parametrize("codec", ["mpeg2", "mpeg4"])
def test_content_stays_where_it_is_at_any_quality_without_prediction_of_pixels(codec):
    shift, error = mean_shift(lambda levels: video_round_trip(levels, codec, 10, "709"))
    assert (np.abs(shift) < 0.01).all(), f"{shift} +- {error}"
    assert stage(codecs=codec).aligned
    assert not stage(codecs={codec: 1, "h264": 1}).aligned


@pytest.mark.parametrize("codec", CODECS)
def test_colours_stay_where_they_are(codec):
    """A red bump on grey: its place in chroma, which has half the resolution."""
    side = 64
    offset = np.arange(side) - (side - 1) / 2
    bump = np.exp(-0.5 * (offset / 7) ** 2)
    levels = np.full((side, side, 3), 110.0)
    levels[..., 0] += 130 * bump[:, None] * bump
    made = video_round_trip(np.rint(levels).astype(np.uint8), codec, 2, "709").astype(float)
    red = (made[..., 0] - made[..., 2]).clip(10, None) - 10
    for axis in (0, 1):
        line = red.sum(1 - axis)
        assert abs((line * offset).sum() / line.sum()) < 0.01


# ITU-R BT.601 and BT.709, 8 bits, limited range: colour bars of 100 %.
BARS = [
    ("601", (255, 255, 255), (235, 128, 128)),
    ("601", (255, 0, 0), (81, 90, 240)),
    ("601", (0, 255, 0), (145, 54, 34)),
    ("601", (0, 0, 255), (41, 240, 110)),
    ("709", (0, 0, 0), (16, 128, 128)),
    ("709", (255, 0, 0), (63, 102, 240)),
    ("709", (0, 255, 0), (173, 42, 26)),
    ("709", (0, 0, 255), (32, 240, 118)),
]


@pytest.mark.parametrize(("matrix", "rgb", "yuv"), BARS)
def test_colours_are_those_of_the_recommendation(matrix, rgb, yuv):
    levels = np.full((4, 4, 3), rgb, np.uint8)
    planes = to_planes(levels, matrix)
    assert [int(plane[0, 0]) for plane in planes] == list(yuv)
    assert np.abs(to_rgb(planes, matrix).astype(int) - levels).max() <= 2


@pytest.mark.parametrize(("matrix", "space"), [("601", "ITU601"), ("709", "ITU709")])
def test_planes_are_those_of_swscale(matrix, space):
    levels = levels_of(photo_like(48, 64, seed=3))
    frame = av.VideoFrame.from_ndarray(levels, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=space, dst_color_range="MPEG", interpolation="AREA"
    )
    peer = frame.to_ndarray()
    ours = to_planes(levels, matrix)
    assert np.abs(ours.y.astype(int) - peer[:48]).max() <= 1
    # swscale reduces chroma by a filter of its own, which sees neighbours.
    chroma = np.stack([ours.cb, ours.cr]).astype(int) - peer[48:].reshape(2, 24, 32)
    assert np.abs(chroma).mean() < 1
    assert abs(chroma.mean()) < 0.1


def of_file(planes, codec, quality):
    """The frame of a Matroska file that FFmpeg's encoder and muxer wrote with the same settings."""
    height, width = planes.y.shape
    options = {k: v.format(quality, **{"lambda": 118 * quality}) for k, v in CODECS[codec].options.items()}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream(CODECS[codec].encoder, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 1, 1
        joined = np.concatenate([planes.y, planes.cb.reshape(-1, width), planes.cr.reshape(-1, width)])
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(joined, format="yuv420p")), *stream.encode()]:
            file.mux(packet)
    buffer.seek(0)
    with av.open(buffer) as file:
        frames = list(file.decode(video=0))
    assert len(frames) == 1
    assert frames[0].key_frame
    return frames[0].to_ndarray(format="yuv420p")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("quality", [6, 28])
def test_a_frame_is_that_of_a_file(codec, quality):
    planes = to_planes(levels_of(photo_like(48, 80, seed=5)), "709")
    made = planes_round_trip(planes, codec, quality)
    expected = of_file(planes, codec, quality)
    assert np.array_equal(np.concatenate([made.y, *(c.reshape(-1, 80) for c in made[1:])]), expected)


@pytest.mark.parametrize("codec", CODECS)
def test_quality_goes_down_with_the_number(codec):
    levels = levels_of(photo_like(64, 64, seed=6))
    steps = (10, 30, 50, 63) if codec == "vp9" else (4, 14, 24, 31)
    values = [psnr(video_round_trip(levels, codec, quality, "601"), levels) for quality in steps]
    assert values == sorted(values, reverse=True)
    assert values[0] > 28
    assert values[0] - values[-1] > 1


@pytest.mark.parametrize("quality", [1, 2, 7, 31])
def test_mpeg2_has_the_quantiser_that_was_asked_for(quality, monkeypatch):
    """The five bits behind the code of the first slice (ISO/IEC 13818-2, 6.2.4)."""
    sent = []
    context = video._context

    class Spy:
        def __init__(self, inner):
            self.inner = inner

        def decode(self, packet):
            sent.append(b"" if packet is None else bytes(packet))
            return self.inner.decode(packet)

    monkeypatch.setattr(
        video, "_context", lambda name, mode: Spy(context(name, mode)) if mode == "r" else context(name, mode)
    )
    planes_round_trip(to_planes(levels_of(photo_like(32, 32, seed=7)), "601"), "mpeg2", quality)
    data = b"".join(sent)
    assert data[data.index(b"\0\0\1\1") + 4] >> 3 == quality


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 15), (31, 33)])
def test_any_size(codec, size):
    levels = np.full((*size, 3), (200, 40, 90), np.uint8)
    made = video_round_trip(levels, codec, 5, "709")
    assert made.shape == levels.shape
    assert np.abs(made.astype(int) - levels).max() <= 2


@pytest.mark.parametrize(
    ("codec", "size"), [("mpeg2", (16, 4090)), ("mpeg4", (16, 8176)), ("hevc", (16, 5000)), ("hevc", (8170, 8))]
)
def test_long_sides(codec, size):
    levels = np.zeros((*size, 3), np.uint8)
    levels[:, ::50] = 150
    assert np.abs(video_round_trip(levels, codec, 4, "709").astype(float) - levels).mean() < 10


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_bits_from_any_thread(codec):
    levels = levels_of(photo_like(48, 48, seed=8))
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: video_round_trip(levels, codec, 20, "709"), range(8)))
    assert all(np.array_equal(made[0], other) for other in made)


def test_the_stage_is_that_round_trip():
    own = stage(codecs={"h264": 1, "mpeg2": 1}, h264_crf=30, mpeg2_quantiser=9, matrix=601)
    x = photo_like(40, 31, seed=2)
    for seed in range(4):
        params = drawn(own, torch.tensor([seed]))
        codec, quality = [("h264", 30), ("mpeg2", 9)][int(params["codec"])]
        assert int(params["quality"]) == quality
        made = own.on_image(x, params, Context(Size(8, 8), torch.tensor([1]), "video"))
        assert np.array_equal(levels_of(made), video_round_trip(levels_of(x), codec, quality, "601"))


def test_codecs_are_drawn_by_weight_and_qualities_from_their_ranges():
    drawn_ = stage(codecs={"h264": 1, "vp9": 3}, h264_crf=[10, 20], vp9_crf=[40, 50]).draw(
        torch.rand(20000, 2, dtype=torch.float64)
    )
    vp9 = drawn_["codec"] == 1
    assert vp9.double().mean().item() == pytest.approx(0.75, abs=0.012)
    for chosen, low in ((vp9, 40), (~vp9, 10)):
        share = torch.bincount(drawn_["quality"][chosen])[low:] / chosen.sum()
        torch.testing.assert_close(share, torch.full((11,), 1 / 11), atol=0.03, rtol=0)


def test_without_pyav_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "av"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OptionError, match=r"pip install 'synthpipe\[video\]'"):
        stage()


def test_a_codec_that_ffmpeg_lacks_is_named(monkeypatch):
    monkeypatch.setitem(CODECS, "hevc", CODECS["hevc"]._replace(encoder="libnone"))
    stage(codecs={"h264": 1, "hevc": 0})
    with pytest.raises(OptionError, match="no libnone, which the stage video needs for hevc"):
        stage(codecs={"h264": 1, "hevc": 1})


def test_bad_options_are_explained():
    for options, message in [
        ({"codecs": "av1"}, "h264"),
        ({"codecs": {"h264": 0}}, "weight above 0"),
        ({"h264_crf": [0, 20]}, "greater than or equal to 1"),
        ({"matrix": "2020"}, "709"),
    ]:
        with pytest.raises(OptionError, match=message):
            stage(**options)
    size = Size(8177, 8)
    with pytest.raises(OptionError, match="video takes images of at most 8176 pixels a side and has"):
        stage().extent(Extent(size, size), size)


def test_planes_hold_what_they_say():
    planes = to_planes(levels_of(photo_like(32, 48, seed=9)), "709")
    assert isinstance(planes, Planes)
    assert planes.y.shape == (32, 48)
    assert planes.cb.shape == planes.cr.shape == (16, 24)

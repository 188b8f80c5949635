"""The stage `webp` against Pillow's files and pixels."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.webp import WebpStageOptions
from synthpipe.errors import OptionError
from synthpipe.files.codecs.webp import webp_round_trip
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.webp import Webp
from tests.transforms.chains.registration import levels_of, mean_shift
from tests.transforms.chains.stage_battery import check_stage, drawn, photo_like

SIZES = [(1, 1), (1, 9), (17, 33), (64, 48)]


def stage(**options):
    return Webp(parse_options({"type": "webp", **options}, WebpStageOptions))


def pillow(levels, quality, method):
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "WEBP", quality=quality, method=method)
    return buffer.getvalue()


def test_contract():
    check_stage(stage(quality=[10, 90]))


@pytest.mark.parametrize("red", [False, True])
def test_content_stays_where_it_is_at_good_qualities(red):
    shift, error = mean_shift(lambda levels: webp_round_trip(levels, 95, 4), red=red)
    assert (np.abs(shift) < 0.01).all(), f"{shift} +- {error}"
    assert not stage().aligned, "at low ones it does not"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("quality", "method"), [(0, 4), (35, 0), (60, 4), (100, 6)])
def test_files_and_pixels_are_those_of_pillow(size, quality, method, monkeypatch):
    written = []
    decode = imagecodecs.webp_decode
    monkeypatch.setattr(imagecodecs, "webp_decode", lambda data: written.append(bytes(data)) or decode(data))
    levels = levels_of(photo_like(*size, seed=1))
    made = webp_round_trip(levels, quality, method)
    expected = pillow(levels, quality, method)
    assert written == [expected]
    with Image.open(io.BytesIO(expected)) as file:
        assert np.array_equal(np.array(file), made)


def test_the_stage_is_that_round_trip():
    webp = stage(quality=30, method=2)
    x = photo_like(40, 31, seed=2)
    made = webp.on_image(x, drawn(webp, torch.tensor([1])), Context(Size(8, 8), torch.tensor([1]), "webp"))
    with Image.open(io.BytesIO(pillow(levels_of(x), 30, 2))) as file:
        assert np.array_equal(np.array(file), levels_of(made))


def test_whole_qualities_are_drawn_alike():
    quality = stage(quality=[50, 53]).draw(torch.rand(20000, 1, dtype=torch.float64))["quality"]
    share = torch.bincount(quality)[50:] / 20000
    torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.012, rtol=0)


def test_it_says_what_it_cannot():
    with pytest.raises(NotImplementedError, match="webp works image by image"):
        stage().on_canvas(Canvas(torch.zeros(1, 3, 8, 8)), {}, Context(Size(8, 8), torch.tensor([1]), "webp"))
    size = Size(16384, 8)
    with pytest.raises(OptionError, match="webp takes images of at most 16383 pixels a side and has"):
        stage().extent(Extent(size, size), size)
    with pytest.raises(OptionError, match="less than or equal to 100"):
        stage(quality=[50, 101])

"""The stage `jpeg` against libjpeg-turbo: Pillow's own, and for samplings that Pillow cannot write its decoder."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from synthpipe.config.chain import ChainOptions
from synthpipe.config.reader import parse_options
from synthpipe.config.stages.jpeg import JpegStageOptions
from synthpipe.errors import OptionError
from synthpipe.files.codecs.jpeg import jpeg_round_trip
from synthpipe.images import to_uint8
from synthpipe.transforms.chains.build import build_row
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.chain import DeviceChain
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.jpeg import Jpeg
from synthpipe.transforms.libjpeg import FACTORS, LibjpegRoundTrip
from tests.capturable import check_capturable
from tests.transforms.chains.stage_battery import check_aligned, check_stage

PILLOW_SAMPLING = {"444": 0, "422": 1, "420": 2}
QUALITIES = [5, 15, 30, 49, 50, 51, 68, 75, 83, 90, 95, 98, 100]


def stage(**options):
    return Jpeg(parse_options({"type": "jpeg", **options}, JpegStageOptions))


def context(count=1):
    return Context(Size(8, 8), torch.arange(count), "jpeg")


def pillow(levels, quality, sampling):
    """``(h, w, 3)`` uint8 through Pillow's libjpeg."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality, subsampling=PILLOW_SAMPLING[sampling])
    return np.array(Image.open(buffer))


def peer(levels, quality, sampling):
    if sampling in PILLOW_SAMPLING:
        return pillow(levels, quality, sampling)
    return jpeg_round_trip(levels, quality, sampling)


def synthetic():
    """Sizes that no block divides, and values that strain the arithmetic."""
    random = np.random.default_rng(5)
    on_off = (random.random((23, 40, 3)) > 0.5).astype(np.uint8) * 255
    checks = np.repeat(np.indices((34, 31)).sum(0)[..., None] % 2 * 255, 3, 2).astype(np.uint8)
    y, x = np.mgrid[:35, :50]
    ramp = np.stack([x * 5, y * 7, 255 - x * 5], -1).astype(np.uint8)
    sizes = [(1, 1), (1, 9), (2, 3), (3, 2), (5, 6), (8, 8), (9, 4), (16, 16), (17, 33)]
    noise = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return [on_off, checks, ramp, np.full((19, 18, 3), 255, np.uint8), *noise]


def photographs(shared):
    files = sorted((shared / "data" / "clean_train").glob("*.jpg"))[:6]
    crops = [(100, 93), (64, 64), (97, 120), (40, 71), (111, 112), (128, 99)]
    pixels = [np.array(Image.open(file).convert("RGB")) for file in files]
    return [np.ascontiguousarray(p[17 : 17 + h, 30 : 30 + w]) for p, (h, w) in zip(pixels, crops, strict=True)]


def on_one_canvas(images):
    """All on one canvas, with numbers that mean nothing beyond them."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    pixels = torch.rand(len(images), 3, height, width, generator=torch.Generator().manual_seed(1))
    for place, image in zip(pixels, images, strict=True):
        place[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1) / 255
    heights, widths = (torch.tensor([image.shape[axis] for image in images]) for axis in (0, 1))
    return Canvas(pixels, heights, widths)


def check_is_libjpeg(images, qualities):
    names = list(FACTORS)
    codec, canvas = LibjpegRoundTrip(names), on_one_canvas(images)
    for name in names:
        for quality in qualities:
            full = torch.full((len(images),), quality)
            made = to_uint8(codec(canvas, full, torch.full_like(full, int(name))).pixels)
            for image, own in zip(images, made, strict=True):
                height, width = image.shape[:2]
                expected = torch.from_numpy(peer(image, quality, name)).permute(2, 0, 1)
                assert torch.equal(own[:, :height, :width], expected), f"{name} at {quality}, {height}x{width}"


@pytest.mark.parametrize("times", [1, [1, 3]])
def test_contract(times):
    # The same bits on a canvas: no tolerance.
    jpeg = stage(quality=[10, 95], sampling=dict.fromkeys(FACTORS, 1.0), times=times)
    check_stage(jpeg, tolerance=0, mean_tolerance=0, apart=0)


@pytest.mark.parametrize("sampling", FACTORS)
def test_content_stays_where_it_is(sampling):
    check_aligned(stage(quality=[60, 95], sampling=sampling, times=[1, 3]))


@pytest.mark.parametrize("sampling", PILLOW_SAMPLING)
def test_both_libraries_on_the_host_agree(sampling):
    for image in synthetic():
        for quality in (5, 50, 95):
            assert np.array_equal(jpeg_round_trip(image, quality, sampling), pillow(image, quality, sampling))


@pytest.mark.parametrize(("sampling", "factors"), [("411", (4, 1)), ("440", (1, 2))])
def test_files_have_the_sampling_that_was_asked_for(sampling, factors, monkeypatch):
    written = []
    decode = imagecodecs.jpeg8_decode
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", lambda data: written.append(bytes(data)) or decode(data))
    image = synthetic()[2]
    made = jpeg_round_trip(image, 80, sampling)
    with Image.open(io.BytesIO(written[0])) as file:
        assert [layer[1:3] for layer in file.layer] == [factors, (1, 1), (1, 1)]
        assert np.array_equal(np.array(file), made)


def test_tensors_are_libjpeg_to_the_bit_on_synthetic_images():
    check_is_libjpeg(synthetic(), QUALITIES)


def test_tensors_are_libjpeg_to_the_bit_on_photographs(shared):
    check_is_libjpeg(photographs(shared), QUALITIES)


def test_every_quality():
    image = synthetic()[2]
    qualities = torch.arange(1, 101)
    canvas = Canvas((torch.from_numpy(image).permute(2, 0, 1) / 255).expand(100, -1, -1, -1))
    made = to_uint8(LibjpegRoundTrip(["422"])(canvas, qualities, torch.full_like(qualities, 422)).pixels)
    for quality, own in enumerate(made, 1):
        assert np.array_equal(own.permute(1, 2, 0).numpy(), pillow(image, quality, "422"))


def test_canvas_and_image_agree_with_all_drawn():
    jpeg = stage(quality=[5, 100], sampling=dict.fromkeys(FACTORS, 1.0), times=[1, 3])
    images = synthetic() * 3
    canvas = on_one_canvas(images)
    params = jpeg.draw(torch.rand(len(images), jpeg.numbers, dtype=torch.float64))
    assert set(params["times"].tolist()) == {1, 2, 3}
    together = jpeg.on_canvas(canvas, params, context(len(images)))
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        own = {name: value[row : row + 1] for name, value in params.items()}
        alone = jpeg.on_image(canvas.pixels[row : row + 1, :, :height, :width], own, context())
        assert torch.equal(together.pixels[row : row + 1, :, :height, :width], alone)


def test_second_pass_is_libjpeg_on_a_moved_grid():
    image = synthetic()[2]
    params = {
        "times": torch.tensor([2]),
        "quality": torch.tensor([40]),
        "sampling": torch.tensor([420]),
        "quality_2": torch.tensor([70]),
        "sampling_2": torch.tensor([444]),
        "shift_y_2": torch.tensor([3]),
        "shift_x_2": torch.tensor([5]),
    }
    # The border pixels are repeated three rows up and five columns to the left, and cut off again.
    once = pillow(image, 40, "420")
    larger = np.concatenate([once[:1]] * 3 + [once])
    larger = np.concatenate([larger[:, :1]] * 5 + [larger], 1)
    expected = pillow(larger, 70, "444")[3:, 5:]
    x = (torch.from_numpy(image).permute(2, 0, 1) / 255)[None]
    jpeg = stage(times=[1, 2], sampling={420: 1, 444: 1})
    for made in (jpeg.on_image(x, params, context()), jpeg.on_canvas(Canvas(x), params, context()).pixels):
        assert np.array_equal(to_uint8(made[0]).permute(1, 2, 0).numpy(), expected)


def test_draws_follow_their_laws():
    u = torch.rand(20000, stage().numbers, dtype=torch.float64)
    whole = stage(quality=[30, 33], sampling={"420": 3, "444": 1}, times=[1, 2]).draw(u)
    assert_close(torch.bincount(whole["quality"])[30:] / 20000, torch.full((4,), 0.25), atol=0.012, rtol=0)
    assert_close((whole["sampling"] == 420).double().mean().item(), 0.75, atol=0.012, rtol=0)
    assert_close((whole["times"] == 2).double().mean().item(), 0.5, atol=0.014, rtol=0)
    assert_close(torch.bincount(whole["shift_x_2"]) / 20000, torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    real = stage(quality=[30, 33], law="real").draw(u)
    expected = torch.tensor([1 / 6, 1 / 3, 1 / 3, 1 / 6])
    assert_close(torch.bincount(real["quality"])[30:] / 20000, expected, atol=0.012, rtol=0)
    # A further pass takes nothing of the first one's draws.
    assert torch.equal(stage(quality=[30, 33], sampling={"420": 3, "444": 1}).draw(u)["quality"], whole["quality"])


def test_a_canvas_can_be_a_graph():
    block = {"type": "jpeg", "quality": [10, 95], "sampling": {420: 1, 444: 1, 411: 1}, "times": [1, 2]}
    chain = DeviceChain(build_row(parse_options({"stages": [block]}, ChainOptions).stages, "", 1), 1, canvas=True)
    one, other = ({"gt": torch.rand(3, 3, 21, 30), "seed": torch.arange(3) + first} for first in (5, 60))
    check_capturable(chain, one, other, atol=0)


@pytest.mark.gpu
def test_cuda_gives_the_same_bits():
    jpeg = stage(quality=[5, 100], sampling=dict.fromkeys(FACTORS, 1.0), times=[1, 3])
    canvas = on_one_canvas(synthetic())
    params = jpeg.draw(torch.rand(len(canvas.pixels), jpeg.numbers, dtype=torch.float64))
    expected = jpeg.on_canvas(canvas, params, context(len(canvas.pixels)))
    moved = Canvas(canvas.pixels.cuda(), canvas.heights.cuda(), canvas.widths.cuda())
    there = {name: value.cuda() for name, value in params.items()}
    made = jpeg.cuda().on_canvas(moved, there, context(len(canvas.pixels)))
    assert torch.equal(made.zeroed().cpu(), expected.zeroed())


def test_nan_is_handed_on_in_its_own_sample():
    x = torch.rand(2, 3, 24, 24)
    x[0, 1, 5, 5] = float("nan")
    jpeg = stage(times=2)
    params = jpeg.draw(torch.rand(2, jpeg.numbers, dtype=torch.float64))
    made = jpeg.on_canvas(Canvas(x), params, context(2)).pixels
    assert made[0].isnan().any()
    assert made[1].isfinite().all()
    first = {name: value[:1] for name, value in params.items()}
    assert jpeg.on_image(x[:1], first, context()).isnan().any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": [0, 50]}, "greater than or equal to 1"),
        ({"quality": [90, 30]}, r"expected \[low, high\]"),
        ({"sampling": {"420": 0}}, "weight above 0"),
        ({"sampling": "421"}, "420"),
        ({"times": 4}, "less than or equal to 3"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(OptionError, match=message):
        stage(**options)


def test_a_side_that_no_file_can_have_is_refused():
    size = Size(8, 65501)
    with pytest.raises(OptionError, match=r"jpeg takes images of at most 65500 pixels a side and has \(8, 65501\)"):
        stage().extent(Extent(size, size), size)

"""Resizing: pixels against torch, Pillow and OpenCV, kernels against their formulas, laws against their papers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.interpolate
import scipy.stats
import torch
import torch.nn.functional as F
from PIL import Image

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.resize import ResizeStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.resampling import Axis, resample_last, weights
from synthpipe.transforms.chains.srgb import decode_srgb, encode_srgb
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.resize import FILTERS, Resize
from tests.transforms.chains.stage_battery import check_aligned, check_stage

SIZES = [(96, 131, 41, 55), (64, 48, 97, 131), (50, 60, 51, 59), (40, 40, 40, 40), (5, 3, 1, 2), (300, 200, 13, 17)]


def stage(**options):
    return Resize(parse_options({"type": "resize", **options}, ResizeStageOptions))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def context(lr, count=1):
    return Context(Size(*lr), torch.arange(count), "resize")


def one(name, **more):
    return {"factor": torch.ones(1, dtype=torch.float64), "filter": torch.tensor([FILTERS.index(name)]), **more}


def by_both(name, antialias, height, width, new_height, new_width, x):
    """``on_image`` and ``on_canvas`` to a size."""
    resize = stage(to="lr", filter=name, antialias=antialias)
    lr = context((new_height, new_width))
    return resize.on_image(x, one(name), lr), resize.on_canvas(Canvas(x), one(name), lr).pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "area"])
def test_pixels_of_torch(name, antialias, size):
    x = noise(1, 3, *size[:2])
    more = {} if name == "area" else {"antialias": antialias}
    expected = F.interpolate(x, size=size[2:], mode=name, **more)
    for found in by_both(name, antialias, *size, x):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [*SIZES, (39, 55, 32, 1), (20, 1, 10, 1), (9, 9, 1, 7)])
@pytest.mark.parametrize(
    ("name", "pillow"),
    [
        ("lanczos", Image.Resampling.LANCZOS),
        ("hamming", Image.Resampling.HAMMING),
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
    ],
)
def test_pixels_of_pillow(name, pillow, size):
    x = noise(1, 3, *size[:2])
    planes = [np.asarray(Image.fromarray(plane).resize(size[:1:-1], pillow)) for plane in x[0].numpy()]
    for found in by_both(name, True, *size, x):
        np.testing.assert_allclose(found[0].numpy(), np.stack(planes), atol=1e-5)


@pytest.mark.parametrize("size", [(96, 131, 41, 55), (60, 60, 20, 15), (300, 200, 13, 17)])
def test_box_is_the_mean_over_the_area(size):
    x = noise(1, 3, *size[:2])
    expected = cv2.resize(x[0].permute(1, 2, 0).numpy(), size[:1:-1], interpolation=cv2.INTER_AREA)
    for found in by_both("box", True, *size, x):
        np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(97, 129, 41, 55), (64, 48, 97, 131), (60, 60, 20, 15), (50, 60, 51, 59)])
def test_nearest_takes_the_pixel_under_the_centre(size):
    x = noise(1, 3, *size[:2])
    rows, columns = (
        [int(((o + 0.5) * old) / new + 1e-9) for o in range(new)] for old, new in zip(size[:2], size[2:], strict=True)
    )
    expected = x[0].numpy()[:, rows][:, :, columns]
    for found in by_both("nearest", True, *size, x):
        np.testing.assert_array_equal(found[0].numpy(), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Mitchell & Netravali 1988, B = C = 1/3, by hand; a cubic B-spline; smoothstep; the normal density.
        (
            "mitchell",
            lambda x: np.select(
                [x < 1, x < 2], [(21 * x**3 - 36 * x**2 + 16) / 18, (-7 * x**3 + 36 * x**2 - 60 * x + 32) / 18]
            ),
        ),
        ("b_spline", lambda x: scipy.interpolate.BSpline.basis_element([-2, -1, 0, 1, 2])(x) * (x < 2)),
        ("hermite", lambda x: (1 + 2 * x) * (1 - x) ** 2 * (x < 1)),
        ("gaussian", lambda x: scipy.stats.norm.pdf(x, scale=0.5) * (x < 2)),
    ],
)
def test_kernels(name, expected):
    old, new = 120, 30
    found = weights(name, True, Axis(torch.tensor([old]), torch.tensor([new])), torch.arange(new), torch.arange(old))[0]
    away = np.abs((np.arange(old) + 0.5)[None] / 4 - (np.arange(new) + 0.5)[:, None])
    matrix = expected(np.minimum(away, 2.0))
    np.testing.assert_allclose(found.numpy(), matrix / matrix.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("name", FILTERS)
def test_blocks_are_the_whole_matrix(name, antialias):
    for old, new in [(1000, 211), (150, 401), (70, 70)]:
        x = noise(2, old).double()
        axis = Axis(torch.tensor([old]), torch.tensor([new]))
        matrix = weights(name, antialias, axis, torch.arange(new), torch.arange(old))[0].double()
        torch.testing.assert_close(matrix.sum(1), torch.ones(new).double(), atol=1e-5, rtol=0)
        found = resample_last(x.float(), name, antialias, new)
        torch.testing.assert_close(found, (x @ matrix.T).float(), atol=1e-5, rtol=0)


MANY = dict.fromkeys(FILTERS, 1.0)


@pytest.mark.parametrize("options", [{"to": "lr"}, {}, {"linear_light": True}, {"antialias": False}])
def test_images_of_many_sizes_on_one_canvas(options):
    resize = stage(factor=[0.3, 1.7], filter=MANY, **options)
    count = 24
    generator = torch.Generator().manual_seed(1)
    heights, widths = (torch.randint(20, high + 1, (count,), generator=generator) for high in (50, 64))
    images = [
        noise(1, 3, int(h), int(w), seed=n) * 1.1 - 0.05 for n, (h, w) in enumerate(zip(heights, widths, strict=True))
    ]
    pixels = torch.full((count, 3, 50, 64), 1e4)
    for n, image in enumerate(images):
        pixels[n, :, : heights[n], : widths[n]] = image
    params = resize.draw(torch.rand(count, 3, dtype=torch.float64, generator=generator))
    made = resize.on_canvas(Canvas(pixels, heights, widths), params, context((30, 40), count))
    assert len(set(params["filter"].tolist())) > 6
    for n, image in enumerate(images):
        alone = resize.on_image(image, {k: v[n : n + 1] for k, v in params.items()}, context((30, 40)))
        assert alone.shape[2:] == (made.heights[n], made.widths[n])
        base = (30, 40) if "to" in options else image.shape[2:]
        factor = params["factor"][n].item()
        assert tuple(alone.shape[2:]) == (int(base[0] * factor), int(base[1] * factor))
        there = made.pixels[n : n + 1, :, : made.heights[n], : made.widths[n]]
        torch.testing.assert_close(
            there, alone, atol=5e-5, rtol=0, msg=lambda m, n=n: f"{FILTERS[params['filter'][n]]}: {m}"
        )
    assert made.pixels.isfinite().all()


def test_one_size_stays_one_size():
    x = noise(2, 3, 40, 60)
    two = {"factor": torch.ones(2).double(), "filter": torch.full((2,), FILTERS.index("bicubic"))}
    made = stage(to="lr").on_canvas(
        Canvas(x, torch.tensor([40, 20]), torch.tensor([60, 31])), two, context((10, 15), 2)
    )
    assert (made.height, made.pixels.shape) == (None, (2, 3, 10, 15))
    half = {**two, "factor": torch.full((2,), 0.5).double()}
    assert stage(factor=0.5).on_canvas(Canvas(x), half, context((10, 15), 2)).height is None
    assert stage(factor=[0.5, 0.9]).on_canvas(Canvas(x), half, context((10, 15), 2)).height is not None


def test_the_ends_of_an_image_stay_its_ends():
    """By the factor itself, as ``F.interpolate(scale_factor=)`` has it, content would drift: here by 0.9 pixels."""
    x = torch.arange(100.0)[None, None, None].expand(1, 3, 4, 100)
    params = {"factor": torch.tensor([0.989]).double(), "filter": torch.tensor([FILTERS.index("bilinear")])}
    resize = stage(factor=0.989, filter="bilinear", antialias=False)
    expected = (np.arange(98) + 0.5) * 100 / 98 - 0.5
    for made in (
        resize.on_image(x[:, :, :3, :], params, context((1, 1))),
        resize.on_canvas(Canvas(x[:, :, :3, :]), params, context((1, 1))).pixels,
    ):
        np.testing.assert_allclose(made[0, 0, 0].numpy(), expected, atol=1e-4)
    drifting = F.interpolate(x, scale_factor=(1, 0.989), mode="bilinear", recompute_scale_factor=False)
    assert abs(drifting[0, 0, 0, -1].item() - expected[-1]) > 0.8


def test_linear_light():
    """Black and white alike mix to half the light, 188 of 255 in sRGB; values of IEC 61966-2-1."""
    x = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    resize = stage(to="lr", filter="box", linear_light=True)
    made = resize.on_image(x, one("box"), context((32, 32)))
    assert set((made * 255).round().unique().tolist()) == {188.0}
    values = torch.tensor([-0.2, 0.0, 0.02, 0.04045, 0.5, 1.0, 1.3])
    torch.testing.assert_close(decode_srgb(values)[[2, 4, 5]], torch.tensor([0.001547988, 0.214041140, 1.0]))
    torch.testing.assert_close(encode_srgb(decode_srgb(values)), values, atol=1e-6, rtol=1e-6)


def test_real_esrgan_law():
    """Real-ESRGAN: up, down and keep with 0.2, 0.7, 0.1, uniform from 1 to 1.5 and from 0.15 to 1."""
    resize = stage(factor=[0.15, 1.5], direction={"up": 0.2, "down": 0.7, "keep": 0.1})
    u = torch.rand(40000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    factor = resize.draw(u)["factor"].numpy()
    kept = factor == 1
    for share, chosen in [(0.2, factor > 1), (0.7, factor < 1), (0.1, kept)]:
        assert abs(chosen.mean() - share) < 0.01
    assert scipy.stats.kstest(factor[factor > 1], "uniform", (1, 0.5)).statistic < 0.02
    assert scipy.stats.kstest(factor[factor < 1], "uniform", (0.15, 0.85)).statistic < 0.02


@pytest.mark.parametrize(("law", "of"), [("uniform", lambda f: f), ("log", np.log), ("inverse", lambda f: 1 / f)])
def test_laws(law, of):
    u = torch.rand(20000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    drawn = stage(factor=[0.125, 1.0], law=law, filter={"area": 1, "bilinear": 2, "bicubic": 1}).draw(u)
    ends = sorted((of(0.125), of(1.0)))
    assert scipy.stats.kstest(of(drawn["factor"].numpy()), "uniform", (ends[0], ends[1] - ends[0])).statistic < 0.02
    shares = np.bincount(drawn["filter"].numpy(), minlength=len(FILTERS)) / len(u)
    assert abs(shares[FILTERS.index("bilinear")] - 0.5) < 0.015
    assert abs(shares[FILTERS.index("area")] - 0.25) < 0.015


def test_sizes_behind():
    before = Extent(Size(40, 50), Size(80, 100))
    assert stage(factor=[0.15, 1.5]).extent(before, Size(20, 25)) == Extent(Size(6, 7), Size(120, 150))
    for high in (0.8, 1.0, 1.5):  # down is from the low end to 1, as BasicSR's uniform(resize_range[0], 1)
        only_down = stage(factor=[0.5, high], direction={"down": 1})
        assert only_down.extent(before, Size(20, 25)) == Extent(Size(20, 25), Size(80, 100))
    assert stage(to="lr").extent(before, Size(20, 25)) == Extent(Size(20, 25), Size(20, 25))
    assert stage(to="lr", factor=[0.3, 1.2]).extent(before, Size(20, 25)) == Extent(Size(6, 7), Size(24, 30))
    assert stage(factor=0.29).extent(Extent(Size(100, 100), Size(100, 100)), Size(1, 1)).most == Size(29, 29)


def test_sizes_that_are_none():
    with pytest.raises(OptionError, match=r"resize: a factor of 0.1 makes \(0, 1\) of \(8, 12\) pixels; raise the low"):
        stage(factor=[0.1, 1]).extent(Extent(Size(8, 12), Size(8, 12)), Size(2, 3))
    with pytest.raises(OptionError, match=r"resize: a factor of 30 makes .* 16384 a side"):
        stage(factor=[1, 30]).extent(Extent(Size(800, 800), Size(800, 800)), Size(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "would change nothing"),
        ({"to": "lr", "filter": {"area": 0}}, "all weights are 0"),
        ({"to": "lr", "filter": "lanczos3"}, "did you mean.*lanczos"),
        ({"factor": [0.5, 0.9], "direction": {"up": 1}}, "up needs a factor range"),
        ({"factor": [1.1, 2], "direction": {"up": 1, "down": 1}}, "down one that begins"),
        ({"factor": [0.5, 1], "direction": {}}, "all weights are 0"),
    ],
)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(OptionError, match=message):
        stage(**options)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("name", FILTERS)
def test_battery(name, antialias):
    check_stage(stage(factor=[0.3, 1.7], filter=name, antialias=antialias, linear_light=True))
    check_stage(stage(to="lr", filter=name, antialias=antialias))


def test_battery_of_drawn_filters():
    check_stage(stage(to="lr", factor=[0.5, 2], filter=MANY))


@pytest.mark.parametrize("factor", [0.26, 0.5, 0.709, 0.989, 1.3, 2.0])
@pytest.mark.parametrize("name", [name for name in FILTERS if name != "nearest"])
def test_content_keeps_its_place(name, factor):
    for antialias in (True, False):
        resize = stage(factor=factor, filter=name, antialias=antialias)
        assert resize.aligned
        check_aligned(resize, side=97, draws=2)


def test_nearest_moves_content():
    resize = stage(factor=0.5, filter={"bicubic": 1, "nearest": 1})
    assert not resize.aligned
    with pytest.raises(AssertionError, match="moved by"):
        check_aligned(resize)

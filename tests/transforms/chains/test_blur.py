"""Blur: kernels and pixels against BasicSR, SciPy, OpenCV and areas counted out."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import ndimage
from torch.testing import assert_close

from synthpipe.basicsr_plugin.compat import prepare
from synthpipe.config.chain import StageOption
from synthpipe.config.reader import parse_options
from synthpipe.config.stages.blur import BlurStageOptions
from synthpipe.errors import OptionError
from synthpipe.philox import uniforms
from synthpipe.transforms.chains.build import build_stage
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.filtering import kernels
from synthpipe.transforms.chains.filtering.convolve import fft_side, filter_canvas, filter_image, filter_lines
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.blur import KINDS, read_bank
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

prepare()
from basicsr.data import degradations  # noqa: E402
from basicsr.utils.img_process_util import filter2D  # noqa: E402


def blur(**options):
    return build_stage(parse_options({"type": "blur", **options}, BlurStageOptions))


def draws(stage, count=4000, seed=0):
    return stage.draw(uniforms(torch.arange(count) + seed * count, 7, (stage.numbers,), torch.float64))


def centre_of_mass(kernel):
    place = torch.arange(kernel.shape[-1], dtype=torch.float64) - kernel.shape[-1] // 2
    return float((kernel * place).sum()), float((kernel * place[:, None]).sum())


EVERY = {kind: 1 for kind in KINDS if kind != "bank"}
CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")
SHAPES = {
    "isotropic": lambda k, p: degradations.bivariate_Gaussian(k, p["sigma_x"], 9, 9, isotropic=True),
    "anisotropic": lambda k, p: degradations.bivariate_Gaussian(
        k, p["sigma_x"], p["sigma_y"], p["turn"], isotropic=False
    ),
    "generalized_isotropic": lambda k, p: degradations.bivariate_generalized_Gaussian(
        k, p["sigma_x"], 9, 9, p["beta"], isotropic=True
    ),
    "generalized_anisotropic": lambda k, p: degradations.bivariate_generalized_Gaussian(
        k, p["sigma_x"], p["sigma_y"], p["turn"], p["beta"], isotropic=False
    ),
    "plateau_isotropic": lambda k, p: degradations.bivariate_plateau(k, p["sigma_x"], 9, 9, p["beta"], isotropic=True),
    "plateau_anisotropic": lambda k, p: degradations.bivariate_plateau(
        k, p["sigma_x"], p["sigma_y"], p["turn"], p["beta"], isotropic=False
    ),
    "sinc": lambda k, p: degradations.circular_lowpass_kernel(p["cutoff"], k),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_kernels_and_pixels_are_basicsr_s(kind):
    stage = blur(kinds={kind: 1}, sigma=[0.2, 4], angle=[-180, 180])
    x = photo_like(50, 44, 3)
    for row in range(40):
        params = {name: value[row : row + 1] for name, value in draws(stage, 40).items()}
        size = int(params["size"])
        numbers = {name: float(value) for name, value in params.items()}
        expected = SHAPES[kind](size, {**numbers, "turn": math.radians(numbers["angle"])})
        found = stage.kernels(KINDS.index(kind), params, 25)[0]
        rim = (25 - size) // 2
        assert_close(found, torch.from_numpy(np.pad(expected, rim)), atol=1e-6, rtol=0)
        blurred = filter2D(x, torch.from_numpy(expected)[None].float())
        assert_close(stage.on_image(x, params, CONTEXT), blurred, atol=1e-5, rtol=0)


def test_all_kinds_go_through_the_battery():
    check_stage(blur(kinds=EVERY, window=[3, 5]), apart=3e-6, mean_tolerance=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options",
    [
        {"type": "blur", "kinds": EVERY, "window": [3, 5], "blades": 5},
        {"type": "blur", "kinds": {"sinc": 1, "lens": 1, "motion": 1}, "shake": [0, 90]},
        {"type": "halo", "amount": [0.5, 2], "sigma": [0.5, 8]},
        {"type": "denoise", "radius": [1, 5]},
        {"type": "pixelate", "kinds": {"average": 1, "nearest": 1}},
        {"type": "interlace", "kinds": {"combing": 1, "doubling": 1}},
    ],
)
def test_cuda_gives_the_same(options):
    stage = build_stage(TypeAdapter(StageOption).validate_python(options))
    x, seeds = torch.cat([photo_like(60, 50, seed) for seed in range(6)]), torch.arange(6)
    context = Context(Size(8, 8), seeds, "test")
    params = drawn(stage, seeds)
    expected = stage.on_canvas(Canvas(x), params, context).pixels
    moved = Context(Size(8, 8), seeds.cuda(), "test")
    made = stage.to("cuda").on_canvas(Canvas(x.cuda()), drawn(stage, seeds.cuda()), moved).pixels
    assert_close(made.cpu(), expected, atol=2 / 255, rtol=0)
    assert float((made.cpu() - expected).abs().mean()) < 1e-4
    for row in range(6):
        own = {name: value[row : row + 1] for name, value in params.items()}  # a chain of the host: settings on the CPU
        alone = stage.on_image(x[row : row + 1].cuda(), own, moved)
        assert_close(alone.cpu(), expected[row : row + 1], atol=2 / 255, rtol=0)


def test_a_kind_alone_keeps_its_place():
    for kind in (kind for kind in EVERY if kind != "median"):
        for options in [{"blades": 5}, {"blades": 6}] if kind == "lens" else [{}]:
            stage = blur(kinds={kind: 1}, radius=[0, 4], length=[0, 20], shake=[0, 180], **options)
            assert stage.aligned
            params = draws(stage, 60)
            side = int(params["size"].max())
            for kernel in stage.kernels(KINDS.index(kind), params, side):
                assert abs(float(kernel.sum()) - 1) < 1e-12
                assert max(map(abs, centre_of_mass(kernel))) < 1e-9, kind
    check_aligned(blur(kinds=EVERY))


def test_the_half_beta_law_and_the_cutoffs_are_basicsr_s():
    stage = blur(kinds={"generalized_isotropic": 1, "sinc": 1}, beta_generalized=[0.5, 4])
    params = draws(stage, 20000)
    beta = params["beta"][params["kind"] == KINDS.index("generalized_isotropic")]
    assert abs(float((beta < 1).double().mean()) - 0.5) < 4 * 0.5 / 100
    below, above = beta[beta < 1], beta[beta >= 1]
    assert abs(float(below.mean()) - 0.75) < 4 * 0.5 / math.sqrt(12) / 70
    assert abs(float(above.mean()) - 2.5) < 4 * 3 / math.sqrt(12) / 70
    assert float(above.max()) > 3.99
    sinc = params["kind"] == KINDS.index("sinc")
    small, large = sinc & (params["size"] < 13), sinc & (params["size"] >= 13)
    assert abs(float(params["cutoff"][small].min()) - math.pi / 3) < 0.01
    assert abs(float(params["cutoff"][large].min()) - math.pi / 5) < 0.01
    assert abs(float(params["cutoff"].max()) - math.pi) < 0.01
    assert set(params["size"].tolist()) == set(range(7, 22, 2))


def test_a_plateau_of_which_one_is_the_low_end_has_exactly_one_in_half_of_the_draws():
    beta = draws(blur(kinds={"plateau_isotropic": 1}, beta_plateau=[1, 2]), 10000)["beta"]
    assert abs(float((beta == 1).double().mean()) - 0.5) < 0.02


def test_one_setting_does_not_change_the_draws_of_another():
    before = draws(blur(kinds={"anisotropic": 1}), 50)
    after = draws(blur(kinds={"anisotropic": 1}, size=[3, 5], sigma_y=[1, 2], window=[3, 9]), 50)
    assert torch.equal(before["sigma_x"], after["sigma_x"])
    assert torch.equal(before["angle"], after["angle"])
    assert float(after["sigma_y"].min()) >= 1


def test_bsrgan_s_gaussians_by_their_eigenvalues():
    # Zhang et al. 2021, as in its code: eigenvalues l1, l2 of the covariance, uniform; the first axis at theta.
    stage = blur(kinds={"anisotropic": 1}, size=15, sigma=[0, math.sqrt(6)], sigma_law="variance", angle=[0, 180])
    params = draws(stage, 4000)
    for name in ("sigma_x", "sigma_y"):
        law = params[name].square() / 6
        assert float((law.sort().values - torch.linspace(0, 1, 4000).double()).abs().max()) < 1.63 / math.sqrt(4000)
    for row in range(10):
        one = {name: value[row : row + 1] for name, value in params.items()}
        theta = math.radians(float(one["angle"]))
        axis = np.array([math.cos(theta), math.sin(theta)])
        turn = np.array([[axis[0], axis[1]], [axis[1], -axis[0]]])
        sigma = turn @ np.diag([float(one["sigma_x"]) ** 2, float(one["sigma_y"]) ** 2]) @ np.linalg.inv(turn)
        column, line = np.meshgrid(np.arange(15) - 7, np.arange(15) - 7)
        places = np.stack([column, line], -1)
        expected = np.exp(-0.5 * np.einsum("ijk,kl,ijl->ij", places, np.linalg.inv(sigma), places))
        found = stage.kernels(KINDS.index("anisotropic"), one, 15)[0]
        assert_close(found, torch.from_numpy(expected / expected.sum()), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("window", "border", "mode"), [(3, "reflect", "mirror"), (5, "replicate", "nearest")])
def test_medians_and_means_are_scipy_s(window, border, mode):
    x = photo_like(31, 40, 5)
    for kind, filtered in (("median", ndimage.median_filter), ("box", ndimage.uniform_filter)):
        stage = blur(kinds={kind: 1}, window=window, border=border)
        expected = np.stack([filtered(plane, window, mode=mode) for plane in x[0].double().numpy()])
        for found in (
            stage.on_image(x, draws(stage, 1), CONTEXT),
            stage.on_canvas(Canvas(x), draws(stage, 1), CONTEXT).pixels,
        ):
            assert_close(found[0], torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_wide_medians_are_opencv_s():
    x = (photo_like(30, 41, 6) * 255).round()
    stage = blur(kinds={"median": 1}, window=9, border="replicate")
    expected = cv2.medianBlur(x[0].permute(1, 2, 0).numpy().astype(np.uint8), 9)
    found = stage.on_image(x, draws(stage, 1), CONTEXT)[0].permute(1, 2, 0)
    assert np.array_equal(found.numpy(), expected)


def counted_out(inside, side, fine=41):
    """Of each pixel, the share of ``fine * fine`` places that are inside."""
    place = (np.arange(side * fine) + 0.5) / fine - side / 2
    column, line = np.meshgrid(place, place)
    shares = inside(column, line).reshape(side, fine, side, fine).mean((1, 3))
    return shares / shares.sum()


@pytest.mark.parametrize("blades", [None, 5, 6])
@pytest.mark.parametrize("radius", [1.3, 2.5, 6.2])
def test_lenses_are_the_areas_of_discs_and_polygons(radius, blades):
    stage = blur(kinds={"lens": 1}, radius=radius, blades=blades, angle=20)

    def inside(column, line):
        if blades is None:
            return column**2 + line**2 < radius**2
        turns = np.radians(20) + 2 * np.pi * np.arange(blades) / blades
        reach = radius * np.cos(np.pi / blades)
        return np.all([column * np.cos(t) + line * np.sin(t) < reach for t in turns], axis=0)

    params = draws(stage, 1)
    side = int(params["size"])
    found = stage.kernels(KINDS.index("lens"), params, side)[0]
    difference = np.abs(found.numpy() - counted_out(inside, side)).sum()
    assert difference < 0.02, difference
    x = photo_like(60, 60, 9)
    exact = ndimage.correlate(x[0, 0].numpy(), counted_out(inside, side), mode="mirror")
    assert np.abs(stage.on_image(x, params, CONTEXT)[0, 0].numpy() - exact).max() < 2 / 255


def test_a_straight_motion_is_a_line():
    stage = blur(kinds={"motion": 1}, length=9, angle=30)
    params = draws(stage, 1)
    kernel = stage.kernels(KINDS.index("motion"), params, int(params["size"]))[0].numpy()
    # Second moments of a line of length 9: 9^2 / 12 along it, and of the bilinear shares across.
    place = np.arange(len(kernel)) - len(kernel) // 2
    column, line = np.meshgrid(place, place)
    along = column * math.cos(math.pi / 6) + line * math.sin(math.pi / 6)
    across = line * math.cos(math.pi / 6) - column * math.sin(math.pi / 6)
    assert abs((kernel * along**2).sum() - 9**2 / 12) < 0.2
    assert (kernel * across**2).sum() < 0.25
    flat = blur(kinds={"motion": 1}, length=8, angle=0)
    params = draws(flat, 1)
    row = flat.kernels(KINDS.index("motion"), params, 11)[0]
    # Of an even line over pixels, each whole pixel has an eighth, and the ends have what is left of theirs.
    assert_close(row[5, 2:9], torch.full((7,), 1 / 8, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(row[5].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_shaken_paths_have_the_length_that_was_drawn_and_turn():
    length, shake = torch.tensor([12.0, 12.0]).double(), torch.tensor([0.0, 3.0]).double()
    bends = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1]]).double()
    made = kernels.motion_kernels(15, length, torch.zeros(2).double(), shake, bends, 200)
    lines = (made.sum(2) > 1e-9).sum(1)
    assert lines[0] == 1
    assert lines[1] > 3


def test_ways_of_filtering_agree():
    generator = torch.Generator().manual_seed(0)
    for height, width, side in ((20, 33, 3), (50, 41, 9), (70, 66, 11), (64, 90, 21), (12, 15, 31)):
        x = torch.rand(1, 3, height, width, generator=generator)
        kernel = torch.rand(side, side, generator=generator, dtype=torch.float64)
        kernel /= kernel.sum()
        for border, mode in (("reflect", "mirror"), ("replicate", "nearest")):
            expected = np.stack(
                [ndimage.correlate(plane, kernel.numpy(), mode=mode) for plane in x[0].double().numpy()]
            )
            for found in (filter_image(x, kernel, border), filter_canvas(Canvas(x), kernel[None], border).pixels):
                assert_close(found[0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)
        line = torch.hann_window(side + 2, periodic=False, dtype=torch.float64)[1:-1]
        line /= line.sum()
        expected = ndimage.correlate(x[0, 0].double().numpy(), torch.outer(line, line).numpy(), mode="mirror")
        assert_close(filter_lines(x, line, "reflect")[0, 0].double(), torch.from_numpy(expected), atol=1e-6, rtol=0)


def test_the_rim_that_is_left_out_does_not_show():
    x = photo_like(60, 60, 1)
    for sigma in (0.2, 0.5, 1.0, 2.5):
        kernel = torch.from_numpy(degradations.bivariate_Gaussian(21, sigma, sigma, 0))
        expected = filter2D(x.double(), kernel[None])
        assert_close(filter_image(x, kernel, "reflect").double(), expected, atol=3e-6, rtol=0)


def test_lengths_of_fft():
    assert [fft_side(n) for n in (1, 4, 5, 52, 53, 410, 660)] == [4, 4, 8, 52, 56, 416, 660]


def test_banks(tmp_path):
    path = tmp_path / "kernels.npy"
    bank = np.random.rand(4, 5, 5).astype(np.float32)
    np.save(path, bank)
    stage = blur(kinds={"bank": 1, "isotropic": 1}, bank=str(path))
    assert not stage.aligned
    check_stage(stage, apart=3e-6)
    x, params = photo_like(30, 30, 2), draws(stage, 200)
    index = params["index"][params["kind"] == KINDS.index("bank")]
    assert set(index.tolist()) == {0, 1, 2, 3}
    row = int((params["kind"] == KINDS.index("bank")).nonzero()[0])
    one = {name: value[row : row + 1] for name, value in params.items()}
    kernel = bank[int(one["index"])] / bank[int(one["index"])].sum()
    expected = cv2.filter2D(x[0].permute(1, 2, 0).numpy(), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    assert_close(stage.on_image(x, one, CONTEXT)[0].permute(1, 2, 0), torch.from_numpy(expected), atol=1e-5, rtol=0)
    np.save(path, (bank + bank[:, ::-1, ::-1]))
    assert blur(kinds={"bank": 1}, bank=str(path)).aligned


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.ones((3, 4, 4)), "odd side"),
        (np.ones((3, 3)), "number, side, side"),
        (np.zeros((1, 3, 3)), "sum above 0"),
        (np.full((1, 3, 3), np.nan), "sum above 0"),
        (np.array([["a"]]), "number, side, side"),
        (np.ones((0, 3, 3)), "number, side, side"),
    ],
)
def test_banks_that_are_none_are_refused(tmp_path, array, told):
    path = tmp_path / "kernels.npy"
    np.save(path, array)
    with pytest.raises(OptionError, match=told):
        read_bank(path)


def test_banks_are_never_pickles(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", np.ones((1, 3, 3)))
    for name in ("objects.npy", "several.npz", "absent.npy"):
        with pytest.raises(OptionError, match=r"expected a \.npy file of kernels"):
            read_bank(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": [7, 20]}, "write 21 for 20"),
        ({"kinds": {"isotropic": 0}}, "all weights are 0"),
        ({"kinds": {"bank": 1}}, "bank: kernels.npy"),
        ({"kinds": {"median": 1}, "window": [3, 11]}, "at most 9"),
        ({"sigma": [3, 1]}, "expected \\[low, high\\]"),
        ({"kinds": {"iso": 1}}, "isotropic"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(OptionError, match=told):
        blur(**options)


def test_images_that_are_far_too_small_are_refused_in_words():
    stage = blur(kinds={"isotropic": 1}, size=[7, 21])
    small, enough = Size(5, 90), Size(6, 90)
    assert stage.extent(Extent(enough, enough), enough) == Extent(enough, enough)
    with pytest.raises(OptionError, match="21x21 pixels, and images of down to 5x90"):
        stage.extent(Extent(small, enough), enough)
    x = photo_like(6, 20, 0)
    expected = ndimage.gaussian_filter(x[0, 0].double().numpy(), 1.5, mode="mirror", radius=10)
    params = {**draws(stage, 1), "sigma_x": torch.tensor([1.5]), "sigma_y": torch.tensor([1.5])}
    params["size"] = torch.tensor([21])
    for found in (stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels):
        assert_close(found[0, 0].double(), torch.from_numpy(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize("blades", [None, 3, 4, 5, 12])
def test_the_smallest_lens_is_a_point(blades):
    stage = blur(kinds={"lens": 1}, radius=[0, 0.12], blades=blades)
    params = stage.draw(torch.rand(200, stage.numbers, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    found = stage.kernels(KINDS.index("lens"), params, 5)
    point = torch.zeros(5, 5, dtype=torch.float64)
    point[2, 2] = 1
    assert (found - point).abs().max() < 1e-9

"""Operations of ``real-esrgan`` with fixed settings against BasicSR's pixels, one by one and in its own order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from synthpipe.basicsr_plugin.compat import patched
from synthpipe.config.chain import ChainOptions
from synthpipe.config.presets import preset_chain
from synthpipe.config.reader import parse_options
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.build import build_stage
from synthpipe.transforms.chains.chain import DeviceChain
from synthpipe.transforms.chains.stage import Context, Params, Size, Stage
from synthpipe.transforms.chains.stages.blur import KINDS as BLUR_KINDS
from synthpipe.transforms.chains.stages.noise import CHANNELS
from synthpipe.transforms.chains.stages.noise import KINDS as NOISE_KINDS
from synthpipe.transforms.chains.stages.resize import FILTERS
from tests.basicsr_runs import require_basicsr
from tests.capturable import check_capturable
from tests.transforms.chains.stage_battery import photo_like

require_basicsr()

from basicsr.data import degradations  # noqa: E402
from basicsr.models import realesrgan_model  # noqa: E402
from basicsr.utils import DiffJPEG, USMSharp  # noqa: E402
from basicsr.utils.img_process_util import filter2D  # noqa: E402

from tests.basicsr_draws import MODEL_OPTIONS  # noqa: E402

#: What is the same operation differs by rounding of float32 alone.
ROUNDING = 1e-5


def stage_of(kind: str, number: int = 0) -> Stage:
    """The stage of a kind in the preset."""
    blocks = [stage for stage in preset_chain("real-esrgan") if stage["type"] == kind]
    (options,) = parse_options({"stages": [blocks[number]]}, ChainOptions).stages
    return build_stage(options)  # type: ignore[arg-type]


def applied(stage: Stage, x: Tensor, params: Params, lr: Size | None = None) -> Tensor:
    """One image through a stage."""
    return stage.on_image(x, params, Context(lr or Size(16, 16), torch.tensor([7]), "place"))


def settings(stage: Stage, **values: float) -> dict[str, Tensor]:
    """Drawn ones, with some replaced."""
    drawn = dict(stage.draw(torch.full((1, max(stage.numbers, 1)), 0.4, dtype=torch.float64)))
    return {
        **drawn,
        **{name: torch.tensor([value], dtype=torch.float64).to(drawn[name].dtype) for name, value in values.items()},
    }


SHAPES = [
    ("isotropic", degradations.bivariate_Gaussian, 9, 1.3, 1.3, 0.0, None),
    ("anisotropic", degradations.bivariate_Gaussian, 21, 2.9, 0.4, 40.0, None),
    ("generalized_isotropic", degradations.bivariate_generalized_Gaussian, 15, 2.2, 2.2, 0.0, 0.6),
    ("generalized_anisotropic", degradations.bivariate_generalized_Gaussian, 21, 2.7, 1.1, -120.0, 3.4),
    ("plateau_isotropic", degradations.bivariate_plateau, 7, 0.5, 0.5, 0.0, 1.0),
    ("plateau_anisotropic", degradations.bivariate_plateau, 19, 2.0, 0.7, 75.0, 1.8),
]


@pytest.mark.parametrize(("kind", "made", "size", "x", "y", "degrees", "beta"), SHAPES, ids=[s[0] for s in SHAPES])
def test_blur(kind: str, made: Any, size: int, x: float, y: float, degrees: float, beta: float | None) -> None:
    image, stage = photo_like(61, 83, 1), stage_of("blur")
    more = {} if beta is None else {"beta": beta}
    kernel = made(size, x, y, math.radians(degrees), **more, isotropic=kind.endswith("_isotropic") or x == y)
    params = settings(
        stage,
        kind=BLUR_KINDS.index(kind),
        size=size,
        sigma_x=x,
        sigma_y=y,
        angle=degrees,
        beta=beta or 1.0,
    )
    assert_close(
        applied(stage, image, params), filter2D(image, torch.tensor(kernel)[None].float()), atol=ROUNDING, rtol=0
    )


@pytest.mark.parametrize(("size", "cutoff"), [(7, 1.1), (13, 0.65), (21, 3.1)])
def test_sinc(size: int, cutoff: float) -> None:
    image, stage = photo_like(61, 83, 2), stage_of("blur")
    kernel = torch.tensor(degradations.circular_lowpass_kernel(cutoff, size, pad_to=21))[None].float()
    params = settings(stage, kind=BLUR_KINDS.index("sinc"), size=size, cutoff=cutoff)
    assert_close(applied(stage, image, params), filter2D(image, kernel), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.3, 0.77, 1.0, 1.17])
def test_resize(name: str, factor: float) -> None:
    """To sizes; by a factor of its own BasicSR lets the grid drift by what is cut from the size, and ours does not."""
    image, stage, lr = photo_like(80, 112, 3), stage_of("resize", 1), Size(20, 28)
    params = settings(stage, factor=factor, filter=FILTERS.index(name))
    expected = F.interpolate(image, size=(int(20 * factor), int(28 * factor)), mode=name)
    assert_close(applied(stage, image, params, lr), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_of_the_same_field(grey: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    image, stage = photo_like(32, 40, 4), stage_of("noise")
    level = 21.5 / 255
    kind, channels = NOISE_KINDS.index("gaussian"), CHANNELS.index("grey" if grey else "independent")
    params = settings(stage, kind=kind, channels=channels, sigma=level)
    flat = applied(stage, torch.full_like(image, 0.5), {**params, "sigma": torch.tensor([0.01], dtype=torch.float64)})
    field = (flat - 0.5) / 0.01
    monkeypatch.setattr(degradations.torch, "randn", lambda *size, **_: field[0, 0] if len(size) == 2 else field)
    expected = degradations.add_gaussian_noise_pt(image, torch.tensor([255 * level]), torch.tensor([float(grey)]))
    assert_close(applied(stage, image, params), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_poisson_noise_has_the_same_mean_and_variance_at_every_brightness(grey: bool, scale: float) -> None:
    steps = torch.linspace(0.2, 0.6, 5)
    image = steps.repeat_interleave(80)[None, None, None, :].expand(1, 3, 400, 400).contiguous()
    stage = stage_of("noise")
    kind, channels = NOISE_KINDS.index("poisson"), CHANNELS.index("grey" if grey else "independent")
    made = applied(stage, image, settings(stage, kind=kind, channels=channels, scale=scale))
    torch.manual_seed(0)
    expected = degradations.add_poisson_noise_pt(image, torch.tensor([scale]), gray_noise=torch.tensor([float(grey)]))
    for column in range(5):
        ours, theirs = ((x[..., 80 * column : 80 * (column + 1)]).flatten(2).double() for x in (made, expected))
        assert_close(ours.std(-1), theirs.std(-1), rtol=0.02, atol=0)
        assert (ours.mean(-1) - theirs.mean(-1)).abs().max() < 5 * theirs.std(-1).max() * math.sqrt(2 / 32_000)
        assert ((ours[0, 0] - ours[0, 1]).abs().max() < 1e-6).item() is grey


@pytest.mark.parametrize("side", [60, 96])
def test_sharpening(side: int) -> None:
    """Edges above the threshold, texture below it; the image is smaller than the kernel is wide, or larger."""
    image = photo_like(side, side + 16, 5)
    stage = stage_of("halo")
    assert_close(applied(stage, image, settings(stage)), USMSharp()(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("quality", "mean"), [(30, 3.6), (60, 2.5), (95, 2.6)])
def test_jpeg_is_libjpeg_and_not_diffjpeg(quality: int, mean: float) -> None:
    """DiffJPEG's tables are no whole numbers, it rounds no pixels and repeats chroma: this much of 255 in the mean."""
    image, stage = photo_like(96, 128, 6), stage_of("jpeg")
    with torch.no_grad():
        expected = DiffJPEG(differentiable=False)(image, torch.tensor([float(quality)]))
    difference = 255 * (applied(stage, image, settings(stage, quality=quality)) - expected).abs()
    assert difference.mean() == pytest.approx(mean, rel=0.1)


def scripted(numbers: list[float], ways: list[str], filters: list[str]) -> ExitStack:
    """``feed_data`` with these draws; what is not the same operation, noise and JPEG, leaves the image as it is."""
    rest: dict[str, Iterator[Any]] = {"number": iter(numbers), "way": iter(ways), "filter": iter(filters)}
    stack = ExitStack()
    stack.enter_context(
        patched(
            realesrgan_model,
            np=SimpleNamespace(random=SimpleNamespace(uniform=lambda *_: next(rest["number"]))),
            random=SimpleNamespace(
                choices=lambda *_: [next(rest["way"])],
                choice=lambda *_: next(rest["filter"]),
            ),
            random_add_gaussian_noise_pt=lambda image, **_: image,
            paired_random_crop=lambda hr, lr, *_: (hr, lr),
        )
    )
    return stack


@pytest.mark.parametrize("jpeg_first", [False, True])
@pytest.mark.parametrize("second_blur", [False, True])
def test_the_whole_chain(jpeg_first: bool, second_blur: bool) -> None:
    """All but noise and JPEG, in ``feed_data`` itself and in the preset, at the same draws."""
    gt = 0.25 + 0.5 * photo_like(128, 160, 8)
    kernels = [
        degradations.bivariate_Gaussian(13, 2.1, 0.8, math.radians(30), isotropic=False),
        degradations.bivariate_plateau(9, 1.2, 1.2, 0, 1.4, isotropic=True),
    ]
    padded = [F.pad(torch.tensor(kernel), [(21 - len(kernel)) // 2] * 4)[None].float() for kernel in kernels]
    sinc = torch.tensor(degradations.circular_lowpass_kernel(1.6, 11, pad_to=21))[None].float()
    model = SimpleNamespace(
        is_train=True,
        opt=MODEL_OPTIONS,
        device=torch.device("cpu"),
        usm_sharpener=USMSharp(),
        jpeger=lambda image, quality: image,
        _dequeue_and_enqueue=lambda: None,
    )
    numbers = [0.75, 0.0, 0.0 if second_blur else 1.0, 1.15, 0.0, 1.0 if jpeg_first else 0.0]
    with scripted(numbers, ["down", "up"], ["bicubic", "area", "bilinear"]):
        data = {"gt": gt, "kernel1": padded[0], "kernel2": padded[1], "sinc_kernel": sinc}
        realesrgan_model.RealESRGANModel.feed_data(model, data)

    stages = [stage for stage in preset_chain("real-esrgan") if stage["type"] not in ("noise", "jpeg")]
    for way in stages[-1]["of"]:
        way["chain"] = [stage for stage in way["chain"] if stage["type"] != "jpeg"]
    chain: Any = build_degrade(parse_options({"stages": stages}, ChainOptions), 4)
    batch = {"gt": gt, "seed": torch.tensor([0])}
    draws = {place: dict(params) for place, params in chain.draws(batch).items()}

    def fix(place: str, **values: float) -> None:
        for name, value in values.items():
            draws[place][name] = torch.tensor([value], dtype=torch.float64).to(draws[place][name].dtype)

    fix("blur", kind=BLUR_KINDS.index("anisotropic"), size=13, sigma_x=2.1, sigma_y=0.8, angle=30, beta=1)
    fix("resize", factor=0.75, filter=FILTERS.index("bicubic"))
    fix("blur 2", kind=BLUR_KINDS.index("plateau_isotropic"), size=9, sigma_x=1.2, sigma_y=1.2, angle=0, beta=1.4)
    fix("blur 2", applied=second_blur)
    fix("resize 2", factor=1.15, filter=FILTERS.index("area"))
    fix("choice", chosen=int(jpeg_first))
    way = "choice/jpeg_first" if jpeg_first else "choice/jpeg_last"
    fix(f"{way}/resize", filter=FILTERS.index("bilinear"))
    fix(f"{way}/blur", applied=True, size=11, cutoff=1.6)
    made = chain.degrade_each(batch, draws)
    assert made.shape == model.lq.shape == (1, 3, 32, 40)
    assert (made.clamp(0, 1) - model.lq).abs().max() <= 0.51 / 255  # lq is rounded
    # It is the order and the settings that agree: with other ones the images lie far apart.
    fix(f"{way}/blur", cutoff=2.6)
    assert (chain.degrade_each(batch, draws).clamp(0, 1) - model.lq).abs().max() > 2 / 255


def test_on_a_canvas_in_one_graph_as_image_by_image() -> None:
    """All but for single values that lie on the edge between two of 8 bits where JPEG rounds them."""
    chain: Any = build_degrade(parse_options({"stages": preset_chain("real-esrgan")}, ChainOptions), 4)
    canvas = DeviceChain(chain.node, 4, canvas=True)
    batch = {"gt": torch.cat([photo_like(96, 112, seed) for seed in range(16)]), "seed": torch.arange(16) * 31}
    difference = 255 * (chain(batch)["lq"] - canvas(batch)["lq"]).abs().flatten(1)
    assert (difference.amax(1) < 0.01).float().mean() > 0.8
    assert difference.mean(1).max() < 2
    check_capturable(canvas, batch, {"gt": batch["gt"].flip(0), "seed": batch["seed"] + 5}, atol=1e-3)

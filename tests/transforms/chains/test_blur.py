"""Blur: kernels and pixels against BasicSR, SciPy, OpenCV and areas counted out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from synthpipe.basicsr_plugin.compat import prepare
from synthpipe.config.reader import parse_options
from synthpipe.config.stages.blur import BlurStageOptions
from synthpipe.philox import uniforms
from synthpipe.transforms.chains.build import build_stage
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.blur import KINDS
from tests.transforms.chains.stage_battery import check_stage, photo_like

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

"""The adapter against deepinv's own algorithms; skipped, with the reason, where deepinv cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from synthpipe.denoisers import Denoiser, PlainDenoiser
from synthpipe.denoisers.blur_kernels import gaussian_kernel
from synthpipe.denoisers.blur_operators import CircularBlur, ValidBlur
from synthpipe.denoisers.deepinv_adapter import deepinv_denoiser, deepinv_parameters, deepinv_physics, import_deepinv
from synthpipe.denoisers.degradation_operators import Mask
from synthpipe.denoisers.plug_and_play import Problem, Splitting, psnr, restore
from synthpipe.errors import OptionError, SynthPipeError

SIGMA = 0.02


@pytest.fixture(scope="module")
def deepinv():
    from synthpipe.basicsr_plugin import compat

    try:
        # PyPI's torchvision on a CPU-only torch: its operators are declared, and nobody calls them.
        compat.prepare()
    except SynthPipeError as error:
        pytest.skip(str(error))
    try:
        return import_deepinv()
    except OptionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model():
    """Untrained, scaled to move images by some grey levels."""
    torch.manual_seed(0)
    return PlainDenoiser(channels=1, width=8, depth=3).requires_grad_(False).eval()


class Smoother(Denoiser):
    """A linear denoiser that contracts: halfway to a 3x3 mean."""

    channels = 1
    config = {}  # noqa: RUF012
    reach = 1

    def forward(self, x, sigma):
        return 0.5 * x + 0.5 * torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def a_problem(operator, height=24, width=20):
    truth = torch.nn.functional.interpolate(torch.rand(2, 1, height // 4, width // 4), scale_factor=4, mode="bicubic")
    generator = torch.Generator().manual_seed(1)
    y = operator(truth)
    return truth, Problem(operator, y + SIGMA * torch.randn(y.shape, generator=generator), SIGMA)


def algorithm(kind, model, method, **options):
    from deepinv.optim import L2, PnP

    prior = PnP(deepinv_denoiser(model))
    return kind(data_fidelity=L2(sigma=SIGMA), prior=prior, **deepinv_parameters(method, SIGMA), **options)


@pytest.mark.parametrize("last", [49 / 255, 0.03])
def test_half_quadratic_splitting_is_deepinvs(deepinv, model, last):
    operator = CircularBlur(gaussian_kernel(1.0, 5))
    _, problem = a_problem(operator)
    method = Splitting(iterations=6, last=last, penalty=0.5)
    ours = restore(problem, model, method).image
    theirs = algorithm(deepinv.optim.HQS, model, method)(problem.y, deepinv_physics(operator), init=problem.y)
    assert (ours - problem.y).abs().mean() > 0.01
    assert_close(theirs, ours, atol=1e-5, rtol=0)


def test_admm_is_deepinvs_from_the_same_state(deepinv, model):
    """Ours begins with a data step; from there deepinv's, prior first, takes the same steps."""
    operator = CircularBlur(gaussian_kernel(1.0, 5))
    _, problem = a_problem(operator)
    weight = problem.level.square() * 0.8 / 0.1**2
    method = Splitting(iterations=8, first=0.1, last=0.1, penalty=0.8, dual=True)
    ours = []
    restore(problem, model, method, callback=lambda _, image: ours.append(image))
    solver = algorithm(deepinv.optim.ADMM, model, method, g_first=True)
    x = operator.data_step(problem.y, problem.y, weight)
    theirs = solver(problem.y, deepinv_physics(operator), init=(x, torch.zeros_like(x)))
    # Theirs ends with the data step after the eighth denoising.
    dual = torch.zeros_like(x)
    for z in ours:
        x = operator.data_step(z - dual, problem.y, weight)
        dual = dual + x - z
    assert_close(theirs, x, atol=1e-5, rtol=0)


def test_admm_agrees_with_deepinvs_own_start_and_blur(deepinv):
    """Acceptance check 9: within 0.05 dB, with their operator and start."""
    kernel = gaussian_kernel(1.2, 7)
    operator = CircularBlur(kernel)
    truth, problem = a_problem(operator, 32, 32)
    method = Splitting(iterations=20, first=0.1, last=0.1, penalty=1.0, dual=True)
    ours = restore(problem, Smoother(), method, reference=truth).psnr[-1]
    physics = deepinv.physics.BlurFFT(img_size=(1, 32, 32), filter=kernel.float()[None, None])
    assert_close(physics(truth), operator(truth), atol=1e-5, rtol=0)
    theirs = psnr(algorithm(deepinv.optim.ADMM, Smoother(), method)(problem.y, physics), truth)
    assert_close(theirs, ours, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "operator", [ValidBlur(gaussian_kernel(1.0, 5)), Mask((torch.rand(1, 1, 24, 20) > 0.5).float())]
)
def test_operators_as_their_physics(deepinv, operator):
    _, problem = a_problem(operator)
    physics = deepinv_physics(operator)
    z = torch.rand_like(operator.adjoint(problem.y))
    solved = deepinv.physics.LinearPhysics.prox_l2(physics, z, problem.y, 3.0, max_iter=200, tol=1e-7)
    assert_close(physics.prox_l2(z, problem.y, 3.0), solved, atol=1e-4, rtol=0)
    assert float(physics.adjointness_test(z).abs()) < 1e-2


def test_parameters():
    constant = deepinv_parameters(
        Splitting(iterations=5, first=11 / 255, last=11 / 255, penalty=121 / 81, dual=True), 0.01
    )
    assert constant["stepsize"] == pytest.approx(81 / 255**2)
    assert constant["g_param"] == pytest.approx(11 / 255)
    assert constant["max_iter"] == 5
    with pytest.raises(OptionError, match="first equal to last"):
        deepinv_parameters(Splitting(dual=True), 0.01)


def test_a_package_that_fails_to_import_is_named():
    """Whatever it fails with: torchvision of another torch ends in a RuntimeError."""
    code = (
        "import sys, types, importlib.abc\n"
        "class Broken(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'deepinv': raise RuntimeError('operator torchvision::nms does not exist')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from synthpipe.denoisers import deepinv_adapter\n"
        "try: deepinv_adapter.import_deepinv()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("OptionError deepinv cannot be imported (RuntimeError: operator torchvision::nms")

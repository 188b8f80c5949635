"""Learned blur as a stage, against SciPy's correlation and the law that it draws from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.reader import parse_options
from synthpipe.config.stages.kernels import KernelsStageOptions
from synthpipe.errors import CheckpointError, OptionError, ShapeError
from synthpipe.flows import Glow
from synthpipe.kernels import KernelBank
from synthpipe.philox import uniforms_of
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.kernels import KernelsStage
from synthpipe.transforms.identity import options_identity
from tests.kernels.known_kernels import gaussians
from tests.transforms.chains.chain_of import chain_of
from tests.transforms.chains.stage_battery import check_aligned, check_stage, photo_like

CONTEXT = Context(Size(8, 8), torch.tensor([1]), "test")


def bank() -> KernelBank:
    """Three kernels, one of them lopsided but centred, one that sharpens; the last never drawn."""
    lopsided = torch.zeros(9, 9, dtype=torch.float64)
    lopsided[4, 4], lopsided[4, 3], lopsided[4, 6] = 0.7, 0.2, 0.1
    sharp = -0.5 * gaussians(1.5, side=9)[0]
    sharp[4, 4] += 1.5
    kernels = torch.stack([lopsided, sharp, gaussians(1.2, side=9)[0]])
    return KernelBank.of(kernels, torch.tensor([1.0, 3.0, 0.0]))


def test_keeps_the_contract_of_stages() -> None:
    stage = KernelsStage(bank(), (0.0, 1.5))
    check_stage(stage)
    check_aligned(stage)
    apart = KernelsStage(bank(), (0.0, 1.5), (0.0, 3.0))
    check_stage(apart)
    check_aligned(apart)


def test_sharpening_has_a_strength_of_its_own() -> None:
    x = photo_like(37, 41, 5)
    some = bank()  # its second kernel is an unsharp mask, which blurs nothing
    params = {name: torch.tensor([value], dtype=torch.float64) for name, value in (("strength", 9), ("sharpening", 2))}
    params["index"] = torch.tensor([1])
    kernel, image = some.kernels[1].double().numpy(), x[0].double().numpy()
    filtered = np.stack([ndimage.correlate(plane, kernel, mode="mirror") for plane in image])
    expected = torch.from_numpy(image + 2 * (filtered - image))
    stage = KernelsStage(some, (0.0, 1.5), (0.0, 3.0))
    for made in (stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels):
        assert_close(made[0].double(), expected, atol=2e-3, rtol=0)
    drawn = stage.draw(uniforms_of(torch.arange(20_000), {1: 3})[1])
    assert float(drawn["sharpening"].mean()) == pytest.approx(1.5, abs=5 * 0.866 / 141)
    correlation = torch.corrcoef(torch.stack([drawn["strength"], drawn["sharpening"]]))[0, 1]
    assert abs(float(correlation)) < 5 / 141


def test_colour_has_kernels_and_a_strength_of_its_own() -> None:
    """Against SciPy's correlation of Y, Cb and Cr, there and back by Rec. 601's matrix."""
    x = photo_like(37, 41, 5)
    plain = bank()
    colour = gaussians(0.8, 1.0, 1.3, side=9)
    stage = KernelsStage(KernelBank.of(plain.kernels, plain.weights, colour), (0.0, 1.5), None, (0.0, 1.2))
    check_stage(stage)
    check_aligned(stage)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    planes = np.einsum("ij,jhw->ihw", matrix, x[0].double().numpy())
    for strengths in ((1.5, 0.5), (0.0, 1.0)):
        params = {
            name: torch.tensor([value], dtype=torch.float64)
            for name, value in zip(("strength", "chroma"), strengths, strict=True)
        }
        params["index"] = torch.tensor([0])
        made = [
            plane + t * (ndimage.correlate(plane, kernel.double().numpy(), mode="mirror") - plane)
            for plane, kernel, t in zip(
                planes,
                (plain.kernels[0], colour[0], colour[0]),
                (strengths[0], strengths[1], strengths[1]),
                strict=True,
            )
        ]
        expected = torch.from_numpy(np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), np.stack(made)))
        for found in (stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels):
            assert_close(found[0].double(), expected, atol=2e-4, rtol=0)

    numbers = uniforms_of(torch.arange(20_000), {1: 4})[1]
    drawn = stage.draw(numbers)
    assert float(drawn["chroma"].mean()) == pytest.approx(0.6, abs=5 * 0.346 / 141)
    correlation = torch.corrcoef(torch.stack([drawn["strength"], drawn["chroma"]]))[0, 1]
    assert abs(float(correlation)) < 5 / 141
    # What was drawn before there was colour is drawn as it was.
    assert torch.equal(numbers[:, :3], uniforms_of(torch.arange(20_000), {1: 3})[1])

    together = KernelsStage(KernelBank.of(plain.kernels, plain.weights, plain.kernels), (0.0, 1.5))
    params = {"index": torch.tensor([0]), "strength": torch.tensor([1.2], dtype=torch.float64)}
    expected = KernelsStage(plain).on_image(x, params, CONTEXT)
    assert_close(together.on_image(x, params, CONTEXT), expected, atol=2e-6, rtol=0)
    with pytest.raises(ShapeError, match=r"chroma \[0\.0, 1\.0\]: this bank has no kernels of colour"):
        KernelsStage(plain, chroma=(0.0, 1.0))


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.5])
def test_it_is_the_image_and_its_correlation_mixed(index: int, strength: float) -> None:
    x = photo_like(37, 41, 5)
    some = bank()
    stage = KernelsStage(some, (0.0, 1.5))
    params = {"index": torch.tensor([index]), "strength": torch.tensor([strength], dtype=torch.float64)}
    kernel = some.kernels[index].double().numpy()
    image = x[0].double().numpy()
    blurred = np.stack([ndimage.correlate(plane, kernel, mode="mirror") for plane in image])
    expected = torch.from_numpy(image + strength * (blurred - image))
    for made in (stage.on_image(x, params, CONTEXT), stage.on_canvas(Canvas(x), params, CONTEXT).pixels):
        assert_close(made[0].double(), expected, atol=2e-6, rtol=0)


def test_kernels_are_drawn_by_weight_and_strengths_evenly() -> None:
    stage = KernelsStage(bank(), (0.5, 1.5))
    params = stage.draw(uniforms_of(torch.arange(20_000), {1: 2})[1])
    counts = torch.bincount(params["index"], minlength=3)
    assert counts[2] == 0
    assert float(counts[0]) == pytest.approx(5000, abs=5 * 61)  # 5 standard deviations
    strength = params["strength"]
    assert float(strength.min()) >= 0.5
    assert float(strength.max()) < 1.5
    assert float(strength.mean()) == pytest.approx(1, abs=5 * 0.289 / 141)
    edges = torch.tensor([[0.0, 0.3], [0.25, 0.3], [1 - 2**-53, 0.3]], dtype=torch.float64)
    assert stage.draw(edges)["index"].tolist() == [0, 1, 1]


def test_a_bank_off_its_centre_moves_content() -> None:
    moved = torch.zeros(1, 3, 3)
    moved[0, 1, 2] = 1
    assert not KernelsStage(KernelBank.of(moved)).aligned
    assert KernelsStage(bank()).aligned


def test_in_a_chain_from_its_file_and_known_by_content(tmp_path: Path) -> None:
    path = checkpoints.save(tmp_path / "bank.safetensors", bank())
    chain = chain_of([{"type": "kernels", "weights": str(path)}])
    x = photo_like(24, 32, 2).repeat(4, 1, 1, 1)
    given = {"gt": x, "seed": torch.arange(4)}
    params = chain.draws(given)["kernels"]
    stage = KernelsStage(bank(), (0.0, 1.5))
    expected = stage.on_canvas(Canvas(x), params, CONTEXT).pixels
    assert_close(chain(given)["lq"], expected, atol=1e-5, rtol=0)
    other = checkpoints.save(tmp_path / "other.safetensors", bank(), {"terms": "other"})
    changed = checkpoints.save(tmp_path / "changed.safetensors", KernelBank.of(bank().kernels))
    same, copy, third = (
        options_identity(parse_options({"weights": str(file)}, KernelsStageOptions)) for file in (path, other, changed)
    )
    assert same == copy
    assert same != third


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected 'kernels'"):
        chain_of([{"type": "kernels", "weights": "deflow_small"}])
    with pytest.raises(ShapeError, match="expected a KernelBank, got Glow"):
        KernelsStage(Glow(levels=2, steps=1, hidden=4))
    broken = KernelBank(1, 3)
    broken.kernels.fill_(0.5)
    path = checkpoints.save(tmp_path / "broken.safetensors", broken)
    with pytest.raises(CheckpointError, match=r"expected sums of 1, kernel 0 has 4\.5"):
        chain_of([{"type": "kernels", "weights": str(path)}])


def test_images_that_the_kernels_cover_are_refused() -> None:
    stage = KernelsStage(KernelBank(1, 51))
    with pytest.raises(OptionError, match="kernels has kernels of up to 51x51 pixels, and images of down to 12x40"):
        stage.extent(Extent(Size(12, 40), Size(40, 40)), Size(10, 10))

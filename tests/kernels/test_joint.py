"""Kernels from spectra and edges: against kernels that are known, in brightness and in colour."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.kernels.estimate import estimate_kernels
from synthpipe.kernels.evidence import Pile, evidence_of
from synthpipe.kernels.joint import estimate_groups
from synthpipe.kernels.response import amplitudes, at_frequencies
from synthpipe.kernels.response_prior import NODES, nodes
from synthpipe.kernels.spectra import log_amplitudes
from synthpipe.kernels.spectral_model import spectral_response
from tests.kernels.fields import fields
from tests.kernels.known_kernels import gaussians
from tests.kernels.pictures import blurred, sharp_pictures

WHERE = (0.2, 0.3, 0.4)


def pile_of(images: list[Tensor], edges: bool = False) -> Pile:
    return {f"{number:03}": evidence_of(image, edges) for number, image in enumerate(images)}


def sharpened(sigma: float, amount: float, radius: float) -> Tensor:
    wide = gaussians(math.hypot(sigma, radius))[0]
    return (1 + amount) * gaussians(sigma)[0] - amount * wide


@pytest.fixture(scope="module")
def clean() -> Pile:
    return pile_of(fields(40, seed=1))


@pytest.mark.parametrize(
    "kernel",
    [gaussians(0.4)[0], gaussians(0.8)[0], sharpened(0.6, 0.8, 1.2), sharpened(0.8, 1.2, 1.5)],
    ids=["gaussian 0.4", "gaussian 0.8", "sharpened", "sharpened strongly"],
)
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_spectra_tell_the_kernel(kernel: Tensor, sigma: float, clean: Pile) -> None:
    degraded = pile_of(blurred(fields(30, seed=2), kernel, sigma, seed=3))
    found = estimate_groups(clean, {"all": degraded}, teller="spectra", chroma=False)
    assert found.bank.chroma is None
    assert_close(amplitudes(found.bank.kernels, WHERE), amplitudes(kernel[None], WHERE), atol=0.08, rtol=0)


@pytest.mark.parametrize("contrast", [0.6, 1.4])
def test_contrast_of_a_pile_is_no_blur(contrast: float, clean: Pile) -> None:
    """A kernel keeps the frequency 0, so that a pile of more or less contrast has the same one."""
    images = fields(12, seed=9)
    kernel = sharpened(0.6, 0.8, 1.2)
    found = [
        estimate_groups(clean, {"all": pile_of(blurred(some, kernel, 0.0, seed=3))}, teller="spectra", chroma=False)
        for some in (images, [0.5 + contrast * (image - 0.5) for image in images])
    ]
    plain, changed = (amplitudes(each.bank.kernels, WHERE) for each in found)
    assert_close(changed, plain, atol=0.01, rtol=0)


def test_colour_has_a_kernel_of_its_own_and_each_group_has_one(clean: Pile) -> None:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    soft, softer = gaussians(0.5)[0], gaussians(1.2)[0]

    def degraded(images: list[Tensor], luma: Tensor, colour: Tensor) -> list[Tensor]:
        """Luma behind one kernel, the rest behind another."""
        greys = [(weights * image).sum(0).expand(3, -1, -1) for image in images]
        rest = blurred([0.5 + image - grey for image, grey in zip(images, greys, strict=True)], colour, 0, seed=1)
        return [a + b - 0.5 for a, b in zip(blurred(greys, luma, 0, seed=1), rest, strict=True)]

    groups = {
        "b": pile_of(degraded(fields(24, seed=4), soft, softer)),
        "a": pile_of(degraded(fields(24, seed=5), softer, softer)),
    }
    found = estimate_groups(clean, groups, teller="spectra")
    assert found.names == ("a", "b")
    assert found.bank.chroma is not None
    expected = amplitudes(torch.stack([softer, soft]), WHERE)
    assert_close(amplitudes(found.bank.kernels, WHERE), expected, atol=0.08, rtol=0)
    # Below a share of 0.03 of the power nothing is told from noise.
    assert_close(
        amplitudes(found.bank.chroma, [0.1, 0.2]), amplitudes(softer[None], [0.1, 0.2]).expand(2, 2), atol=0.08, rtol=0
    )
    assert float(amplitudes(found.bank.chroma, [0.3, 0.4]).max()) < 0.3


def test_the_standard_error_is_the_spread_of_piles_of_other_images(clean: Pile) -> None:
    """Many piles of ten images each behind one kernel: how far their estimates are apart, and what each says of it."""
    kernel = gaussians(0.6)[0]
    amplitude, error = [], []
    for seed in range(12):
        pile = pile_of(blurred(fields(10, seed=20 + seed, side=64), kernel, 0, seed=1))
        found = estimate_groups(clean, {"all": pile}, teller="spectra", chroma=False, resamplings=30)
        amplitude.append(amplitudes(found.bank.kernels)[0])
        error.append(found.errors[0])
    spread, told = torch.stack(amplitude).std(0), torch.stack(error).mean(0)
    assert told.shape == (5,)
    assert bool((told[1:4] / spread[1:4] > 0.5).all())
    assert bool((told[1:4] / spread[1:4] < 2).all())
    alone = estimate_groups(clean, {"all": pile}, teller="spectra", chroma=False)
    assert bool(alone.errors.isnan().all())
    assert_close(amplitudes(alone.bank.kernels)[0], amplitude[-1])


def test_a_grey_pile_blurs_colour_as_luma(clean: Pile) -> None:
    grey = pile_of(blurred(fields(8, seed=6, colour=0.0), gaussians(0.8)[0], 0, seed=1))
    bank = estimate_groups(clean, {"all": grey}, teller="spectra").bank
    assert bank.chroma is not None
    assert_close(amplitudes(bank.chroma, WHERE), amplitudes(bank.kernels, WHERE), atol=0.03, rtol=0)


def test_edges_count_where_they_agree() -> None:
    clean = pile_of(sharp_pictures(24, seed=1), edges=True)
    kernel = gaussians(0.7)[0]
    agreeing = pile_of(blurred(sharp_pictures(16, seed=2), kernel, 1, seed=3), edges=True)
    found = estimate_groups(clean, {"all": agreeing}, chroma=False)
    assert found.edge_shares[0] > 0.2
    assert_close(amplitudes(found.bank.kernels, WHERE), amplitudes(kernel[None], WHERE), atol=0.1, rtol=0)


def test_the_response_is_found_in_spectra_of_any_steepness() -> None:
    """Images whose spectra are powers of the frequency, of exponents that differ, behind a known response."""
    generator = torch.Generator().manual_seed(7)
    node = nodes()

    def images(count: int) -> Tensor:
        steepness = -1 + 0.2 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
        rings = 0.1 * torch.randn(count, NODES, generator=generator, dtype=torch.float64)
        return steepness * node.clamp(min=0.01).log() + rings

    response = (-2 * (math.pi * 0.7 * node).square()).exp()
    found = spectral_response(images(40) + response.log(), images(200))
    assert_close(found, response, atol=0.06, rtol=0)
    assert float(found[0]) == 1

    # One image that shows bars has a ring of its own, which changes the pile's little.
    some = images(12) + response.log()
    bars = some.clone()
    bars[3, 14] += 3
    first, second = (spectral_response(pile, images(200)) for pile in (some, bars))
    assert float((second / first - 1).abs().max()) < 0.1


def test_too_little_is_refused(clean: Pile) -> None:
    few = pile_of(fields(2, seed=8))
    with pytest.raises(ShapeError, match="degraded: expected at least 3 images with detail, got 2"):
        estimate_groups(clean, {"all": few}, teller="spectra")
    with pytest.raises(ShapeError, match="degraded: expected at least 3 images with detail, got 0"):
        estimate_groups(clean, {"all": pile_of([torch.full((3, 64, 64), 0.5)] * 9)}, teller="spectra")
    with pytest.raises(ShapeError, match="at least one group"):
        estimate_groups(clean, {})


def test_settings_that_give_no_number_are_refused(clean: Pile) -> None:
    groups = {"all": clean}
    for resamplings in (1, -2):
        with pytest.raises(ValueError, match=f"resamplings: expected 0 .* or at least 2, got {resamplings}"):
            estimate_groups(clean, groups, teller="spectra", resamplings=resamplings)
    with pytest.raises(ValueError, match="teller: expected one of both, spectra, got 'edges'"):
        estimate_groups(clean, groups, teller="edges")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="side: expected an odd number of pixels, got 8"):
        estimate_groups(clean, groups, side=8, teller="spectra")
    flat = torch.zeros(4, NODES, dtype=torch.float64)
    for sharpenings in ((), (-1.0,), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="sharpenings: expected at least one finite number from 0 on"):
            spectral_response(flat, flat, sharpenings)
    with pytest.raises(ValueError, match="at least one crop"):
        log_amplitudes([])
    for frequency in (-0.1, 0.5):
        with pytest.raises(ValueError, match=r"from 0 to below 0\.5"):
            at_frequencies(torch.ones(1, NODES), [frequency])
    with pytest.raises(ValueError, match="most: expected at least 1"):
        estimate_kernels({}, {}, most=0)

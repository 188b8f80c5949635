"""Spectra of images: against the power of noise and of fields that are known."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.kernels.response_prior import NODES, nodes
from synthpipe.kernels.spectra import crop_spectra, log_amplitudes
from tests.kernels.fields import fields

#: Of white noise in R, G and B, what is left in luma, and in Cb and Cr together (Rec. 601).
LUMA = 0.299**2 + 0.587**2 + 0.114**2
COLOUR = (0.299**2 + 0.587**2 + 0.886**2) / 1.772**2 + (0.701**2 + 0.587**2 + 0.114**2) / 1.402**2


def white(sigma: float, side: int, seed: int) -> torch.Tensor:
    return sigma * torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed))


def test_white_noise_has_its_power_in_every_ring() -> None:
    found = crop_spectra(0.5 + white(0.05, 640, 4)).powers
    expected = 0.05**2 * torch.tensor([[LUMA], [COLOUR]]).expand(2, NODES - 2)
    assert_close(found[:, 2:], expected, rtol=0.05, atol=0)


def test_amplitudes_fall_as_they_were_made_and_noise_is_taken_off() -> None:
    """Waves of 1 / f, behind white noise."""
    images, places = fields(8, seed=1, side=256), slice(3, 24)
    expected = -nodes()[places].log()
    expected = expected - expected.mean()
    for sigma, tolerance in ((0.0, 0.1), (0.02, 0.15)):
        noisy = [image + white(sigma, 256, seed) for seed, image in enumerate(images)]
        found = torch.stack([log_amplitudes([crop_spectra(x)]) for x in noisy]).mean(0)[:, places]
        for plane in found:
            assert_close(plane - plane.mean(), expected, atol=tolerance, rtol=0, check_dtype=False)


def test_crops_count_by_their_windows() -> None:
    large, small = fields(1, seed=2, side=128)[0], fields(1, seed=3, side=64)[0]
    a, b = crop_spectra(large), crop_spectra(small)
    assert (a.windows, b.windows) == (9, 1)
    together = log_amplitudes([a, b])
    powers = (9 * a.powers[0] + b.powers[0]).double() / 10
    expected = powers.log() / 2
    assert_close(together[0, 5:], expected[5:] - expected[3:9].mean(), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "where", [(slice(0, 8), slice(None)), (slice(-8, None), slice(None)), (slice(None), slice(-12, None))]
)
def test_windows_reach_all_borders(where: tuple[slice, slice]) -> None:
    image = torch.full((3, 80, 120), 0.5)
    detail = torch.randn(image[:, where[0], where[1]].shape[1:], generator=torch.Generator().manual_seed(0))
    image[:, where[0], where[1]] += 0.1 * detail
    assert float(crop_spectra(image).powers[0, 10]) > (0.25 / 255) ** 2


def test_an_image_without_detail_tells_nothing() -> None:
    grey = fields(1, seed=4, side=64, colour=0.0)[0]
    found = log_amplitudes([crop_spectra(grey)])
    assert bool(found[0].isfinite().all())
    assert bool(found[1].isnan().all())
    assert bool(log_amplitudes([crop_spectra(torch.full((3, 80, 80), 0.5))]).isnan().all())


def test_small_images_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"sides from 64, got \(3, 63, 80\)"):
        crop_spectra(torch.zeros(3, 63, 80))

"""Denoising as it comes: what is measured decides, an image changes by no more than its noise, clean ones stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe import checkpoints
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.denoisers import BlindSpotDenoiser
from synthpipe.denoisers.base import Denoiser
from synthpipe.errors import ShapeError
from synthpipe.flat_noise import NoiseEstimate, estimate_noise
from synthpipe.transforms.build import build_denoise
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.denoise_by_image import DenoiseByImage
from synthpipe.transforms.treatment import Treatment, treatment_of
from tests.transforms.test_denoise import Box, batch_of, noisy_images, tiny_plain


class Zero(Denoiser):
    """Gives black, whatever it is shown; notes the levels that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {}
        self.channels = 3
        self.levels: list[float] = []

    @property
    def reach(self) -> int:
        return 0

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.levels += sigma.tolist()
        return torch.zeros_like(x)


def estimate(level: float, lag: float = 0.0, related: float = 0.5, certainty: float = 0.9) -> NoiseEstimate:
    """Of 255."""
    return NoiseEstimate(
        sigma=torch.full((3,), level / 255),
        level=level / 255,
        lag1=(lag, lag),
        autocorrelation=torch.zeros(3, 9, 9),
        channel_correlation=torch.full((3,), related),
        certainty=certainty,
    )


def coloured_images(count: int, sigma: float, side: int = 96, seed: int = 0) -> Tensor:
    """A slow ramp with noise that neighbours share, rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.tensor([0.17, 0.66, 0.17])  # neighbours correlate by 0.45, as in pictures of telephones
    kernel = (line[:, None] * line).expand(3, 1, 3, 3)
    white = torch.randn(count, 3, side + 2, side + 2, generator=generator)
    noise = F.conv2d(white, kernel, groups=3) / float(kernel[0].square().sum().sqrt())
    ramp = torch.linspace(0.3, 0.7, side).expand(count, 3, side, side)
    return ((ramp + sigma * noise).clamp(0, 1) * 255).round() / 255


def test_a_real_treatment_follows_what_was_measured() -> None:
    white, phone, camera = (treatment_of(e) for e in (estimate(25), estimate(15, 0.45, 0.4), estimate(3, 0.7, 0.9)))
    assert white is not None
    assert phone is not None
    assert camera is not None
    assert (white.white, white.hole, white.stride, white.level) == (True, 0, 1, None)
    assert (phone.white, phone.stride) == (False, 3)
    assert (camera.white, camera.hole, camera.stride) == (False, 1, 1)
    for treatment, level in ((white, 25), (phone, 15), (camera, 3)):
        assert level / 255 <= treatment.most <= 1.5 * level / 255


def test_where_the_measurement_is_weak_an_image_stays_within_45_db_of_itself() -> None:
    safe = 10 ** (-45 / 20)
    for found in (
        estimate(8, 0.6, 0.9, certainty=0.2),
        estimate(8, 0.6, 0.97),  # channels that correlate so far are texture
        estimate(2, 0.05),  # the grain of a photograph
        estimate(8, 0.2, certainty=0.4),  # fine texture of small pictures
        replace(estimate(25), roughness=1.0),  # a regular pattern, whatever else is told of it
        replace(estimate(10, 0.6, certainty=1.0), roughness=1.0),
        replace(estimate(3, 0.6), grain=0.9),
    ):
        treatment = treatment_of(found)
        assert treatment is not None
        assert treatment.most <= safe
    for found in (
        estimate(3, 0.6),  # no grain
        replace(estimate(6, 0.6), grain=0.9),  # too strong to be some
        replace(estimate(10, 0.6), roughness=0.3),  # as coded noise has it
        estimate(25, certainty=0.4),  # stronger than fine texture
    ):
        treatment = treatment_of(found)
        assert treatment is not None
        assert treatment.most == pytest.approx(1.3 * found.level)
    assert treatment_of(None) is None
    assert treatment_of(estimate(0)) is None


def test_grey_images_are_believed_by_certainty_since_their_channels_say_nothing() -> None:
    safe = 10 ** (-45 / 20)
    for level, lag, certainty, believed in (
        (10, 0.7, 0.7, True),
        (5, 0.45, 0.7, True),
        (10, 0.7, 0.45, False),  # texture
        (10, 0.9, 0.9, False),  # shading
        (5, 0.05, 0.8, True),
        (8, 0.2, 0.5, False),  # fine texture of pictures reduced by 2
    ):
        found = replace(estimate(level, lag, 1.0, certainty), grey=True)
        treatment = treatment_of(found)
        assert treatment is not None
        assert (treatment.most > safe) == believed
        if believed:
            assert treatment.most == pytest.approx(1.3 * found.level)
    unsure = treatment_of(replace(estimate(10, 0.7, 1.0, 0.55), grey=True))
    assert unsure is not None
    assert safe < unsure.most < 5 / 255  # half of it may be texture
    for lag in (0.05, 0.7):
        texture = replace(estimate(10, lag, 1.0), grey=True, texture=0.9, roughness=0.2, unevenness=0.2)
        left = treatment_of(texture)
        assert left is not None
        assert left.most <= safe
        for noise in (replace(texture, texture=0.1), replace(texture, unevenness=0.0)):  # as where it is coded; even
            treatment = treatment_of(noise)
            assert treatment is not None
            assert treatment.most == pytest.approx(1.3 * noise.level)
    weak = replace(estimate(3, 0.6, 1.0), grey=True)
    kept, left = treatment_of(weak), treatment_of(replace(weak, grain=0.9))
    assert kept is not None
    assert left is not None
    assert left.most <= safe < kept.most


@pytest.mark.parametrize("sigma", [6, 12])
def test_correlated_noise_of_grey_pictures_is_taken_away(sigma: int) -> None:
    """Neighbours correlate by 0.66; such pictures stayed within 45 dB of themselves."""
    line = torch.tensor([0.5, 1.0, 0.5])
    white = torch.randn(1, 1, 162, 162, generator=torch.Generator().manual_seed(1))
    noise = F.conv2d(white, (line[:, None] * line)[None, None]) / 1.5
    clean = torch.linspace(0.2, 0.8, 160).expand(1, 3, 160, 160)
    noisy = ((clean + sigma / 255 * noise) * 255).round().clamp(0, 255) / 255
    out = DenoiseByImage(checkpoints.load("camera_denoiser"), checkpoints.load("blind_spot_small")).clean(noisy)
    before, after = (float(-10 * (x - clean).square().mean().log10()) for x in (noisy, out))
    assert after > before + 4


@pytest.mark.parametrize("noisy", [noisy_images(1, 0.08, 96), coloured_images(1, 0.08)])
def test_no_image_changes_by_more_than_its_noise(noisy: Tensor) -> None:
    model = Zero()
    out = DenoiseByImage(model).clean(noisy)
    found = estimate_noise(noisy[0])
    assert found is not None
    change = float((out - noisy).square().mean().sqrt())
    assert 0.9 * found.level <= change <= 1.31 * found.level
    assert len(model.levels) in (1, 4)  # both ways up and at half the size, too, where neighbours share it


def test_white_noise_goes_to_the_network_of_white_noise_and_each_image_to_its_own() -> None:
    x = torch.cat([noisy_images(1, 0.08, 96), coloured_images(1, 0.08)])
    model, white = Zero(), Zero()
    transform = DenoiseByImage(model, white)
    together = transform(batch_of(x))["gt"]
    assert white.levels == pytest.approx([0.08], rel=0.15)
    assert model.levels[0] == pytest.approx(0.08 * 1.25, rel=0.2)
    assert model.levels[1] == model.levels[0]
    assert model.levels[2:] == pytest.approx([0.25 * model.levels[0]] * 2)
    alone = torch.cat([transform.clean(image[None]) for image in x])
    assert torch.equal(together, alone)
    assert torch.equal((together * 255).round() / 255, together)


def test_noise_that_all_channels_share_is_no_colour_and_goes_to_the_network_of_cameras() -> None:
    """A network of independent noise leaves what stands in all channels alike; grey images came out as they went in."""
    clean = torch.linspace(0.2, 0.8, 128).expand(1, 3, 128, 128)
    noise = 10 / 255 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    grey = ((clean + noise) * 255).round() / 255
    transform = DenoiseByImage(checkpoints.load("camera_denoiser"), checkpoints.load("blind_spot_small"))
    before, after = (float(-10 * (x - clean).square().mean().log10()) for x in (grey, transform.clean(grey)))
    assert after > before + 8
    model, white = Zero(), Zero()
    DenoiseByImage(model, white).clean(grey)
    assert model.levels == pytest.approx([10 / 255], rel=0.15)  # told as white noise is, and once
    assert not white.levels


def test_clean_pictures_stay_within_45_db_of_themselves_and_flat_ones_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 12, 12, generator=generator)
    smooth = F.interpolate(coarse, size=(96, 96), mode="bicubic", align_corners=False).clamp(0, 1)
    x = (smooth * 255).round() / 255
    out = DenoiseByImage(Zero()).clean(x)
    assert float(-10 * (out - x).square().flatten(1).mean(1).log10().max()) >= 45
    flat = torch.full((1, 3, 64, 64), 0.5)
    assert float((DenoiseByImage(Zero()).clean(flat) - flat).abs().max()) <= 1.01 / 255


@pytest.mark.parametrize("size", [(64, 64), (63, 65)])
def test_slow_noise_is_seen_at_half_the_size(size: tuple[int, int]) -> None:
    """A network that takes a quarter away, whatever it sees: of blocks of 2x2 pixels a quarter of what is left, too."""

    class Less(Zero):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return 0.75 * super().forward(x, sigma) + 0.75 * x

    x = 0.4 + 0.5 * torch.rand(1, 3, *size)
    out = DenoiseByImage(Less()).apply({"gt": x}, {"treatments": [Treatment(0.1, False, 1, 1, 0.5, 1.0)]})["gt"]
    first = 0.75 * x
    half = F.avg_pool2d(first, 2, ceil_mode=True)
    up = F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
    torch.testing.assert_close(out, first - 0.25 * up, atol=0.51 / 255, rtol=0)


def test_hole_and_stride_of_a_blind_spot_network_are_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BlindSpotDenoiser(net={"type": "dilated", "depth": 2, "width": 4, "hole_width": 4, "head": [8]})
    seen: list[tuple[int, tuple[int, ...]]] = []

    def compute(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((model.hole, tuple(x.shape[2:])))
        return x

    monkeypatch.setattr(model, "compute", compute)
    transform = DenoiseByImage(model)
    x = torch.rand(1, 3, 60, 66)
    for hole, stride in ((1, 1), (0, 3)):
        transform.apply({"gt": x}, {"treatments": [Treatment(0.05, False, hole, stride, 0.3, 0.05)]})
    assert seen == [(1, (60, 66))] + [(0, (20, 22))] * 9
    assert model.hole == 0


def test_options_that_say_something_are_what_they_were(tmp_path: Path) -> None:
    weights = str(checkpoints.save(tmp_path / "d.safetensors", tiny_plain()))
    x = noisy_images(2, 0.1, 90)
    for said, arguments in (
        ({"sigma": "auto"}, {}),
        ({"min_sigma": 0.05}, {"min_sigma": 0.05}),
        ({"max_sigma": 0.05}, {"max_sigma": 0.05}),
        ({"strength": 0.5}, {"strength": 0.5}),
        ({"sigma": 0.1}, {"sigma": 0.1}),
    ):
        transform = build_denoise(DenoiseOptions(weights=weights, **said))
        assert isinstance(transform, Denoise)
        assert torch.equal(transform.clean(x), Denoise(tiny_plain(), **arguments).clean(x))
    assert isinstance(build_denoise(DenoiseOptions(weights=weights, tile=64)), DenoiseByImage)
    filled = DenoiseOptions(weights=weights, min_sigma=0.05).model_dump()
    assert filled | {"weights": ""} == {
        "weights": "", "sigma": "auto", "min_sigma": 0.05, "max_sigma": 1.0, "hole": None, "strength": 1.0,
        "tile": 512, "overlap": None,
    }  # fmt: skip
    assert json.dumps(filled)


def test_what_is_no_denoiser_and_what_is_no_image_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected denoisers, got Conv2d"):
        DenoiseByImage(torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(ShapeError, match="1 of 2 images hold NaN"):
        DenoiseByImage(Box(1)).clean(torch.stack([torch.rand(3, 32, 32), torch.full((3, 32, 32), torch.nan)]))


def test_an_image_that_comes_to_nothing_leaves_as_nan() -> None:
    class Spoils(Zero):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return torch.full_like(x, torch.inf)

    out = DenoiseByImage(Spoils()).clean(noisy_images(1, 0.08, 96))
    assert torch.isnan(out).all()


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    x = noisy_images(2, 0.1, 90)
    expected = DenoiseByImage(tiny_plain()).clean(x)
    out: Any = DenoiseByImage(tiny_plain()).to("cuda").clean(x.cuda())
    assert out.is_cuda
    torch.testing.assert_close(out.cpu(), expected, atol=1.01 / 255, rtol=0)

"""Noise of flat areas: noise of known covariance and correlation, on images whose content is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from synthpipe.errors import ShapeError
from synthpipe.flat_noise import measure_flat_noise, noise_level
from synthpipe.flat_noise.spectrum import FREQUENCIES, autocorrelation, without_shading

COVARIANCE = torch.tensor([[9.0, 3.0, 2.0], [3.0, 6.0, 3.0], [2.0, 3.0, 12.0]]) / 255**2
MIDDLE = 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def white(height: int, width: int, covariance: Tensor = COVARIANCE, seed: int = 0) -> Tensor:
    """Noise ``(3, H, W)`` of a covariance of the channels."""
    draws = torch.randn(3, height * width, generator=generator(seed))
    return (torch.linalg.cholesky(covariance) @ draws).unflatten(1, (height, width))


def autoregressive(noise: Tensor, across: float, down: float) -> Tensor:
    """Correlation ``across ** dx * down ** dy``, by recursion over columns and rows; variances stay."""
    result = noise.clone()
    for column in range(1, noise.shape[2]):
        result[:, :, column] = across * result[:, :, column - 1] + math.sqrt(1 - across**2) * noise[:, :, column]
    noise = result.clone()
    for row in range(1, noise.shape[1]):
        result[:, row] = down * result[:, row - 1] + math.sqrt(1 - down**2) * noise[:, row]
    return result


def sigma_ratio(covariance: Tensor, truth: Tensor) -> Tensor:
    return (covariance.diagonal(dim1=-2, dim2=-1) / truth.diagonal(dim1=-2, dim2=-1).double()).sqrt()


def test_white_noise_of_known_covariance() -> None:
    found = measure_flat_noise([0.5 + white(300, 300)])
    at = int(found.counts.argmax())
    assert found.counts[at] > 4_000
    torch.testing.assert_close(found.covariance[at], COVARIANCE.double(), rtol=0.1, atol=0.3 / 255**2)
    away = found.autocorrelation.clone()
    away[:, MIDDLE, MIDDLE] = 0
    assert away.abs().max() < 0.06
    assert (found.autocorrelation[:, MIDDLE, MIDDLE] == 1).all()
    assert found.level == pytest.approx(math.sqrt(27 / 3) / 255, rel=0.05)


@pytest.mark.parametrize(("across", "down"), [(0.4, 0.4), (0.7, 0.5)])
def test_correlated_noise(across: float, down: float) -> None:
    found = measure_flat_noise([0.5 + autoregressive(white(400, 400), across, down)])
    at = int(found.counts.argmax())
    assert (sigma_ratio(found.covariance[at], COVARIANCE) - 1).abs().max() < 0.1
    mean = found.autocorrelation.mean(0)
    for lag in range(1, 5):
        assert float(mean[MIDDLE, MIDDLE + lag]) == pytest.approx(across**lag, abs=0.06)
        assert float(mean[MIDDLE - lag, MIDDLE]) == pytest.approx(down**lag, abs=0.06)
    assert float(mean[MIDDLE + 1, MIDDLE + 1]) == pytest.approx(across * down, abs=0.06)


def test_blotches_of_colour_count_and_grey_shading_does_not() -> None:
    """Colour that varies over tens of pixels is a third of the noise; grey of the same wavelengths is the scene's."""
    gradient = torch.linspace(0.35, 0.65, 512).expand(3, 512, 512)
    fine = white(512, 512, 9 / 255**2 * (0.4 * torch.eye(3) + 0.6))
    wide = white(512, 512, torch.eye(3), seed=1)
    wide = torch.nn.functional.avg_pool2d(wide[None], 17, 1, 8)[0]
    wide = torch.tensor([1.2, 0.5, 2.0])[:, None, None] * wide / wide.std((1, 2), keepdim=True) / 255
    noise = fine + wide
    truth = torch.cov(noise.flatten(1)).double()
    found = measure_flat_noise([gradient + noise])
    covariance = torch.einsum("k,kij->ij", found.counts / found.counts.sum(), found.covariance)
    assert (sigma_ratio(covariance, truth) - 1).abs().max() < 0.08
    assert (correlation(covariance) - correlation(truth)).abs().max() < 0.07
    shaded = measure_flat_noise([gradient + 0.02 * torch.sin(torch.arange(512) / 8).expand(3, 512, 512) + fine])
    covariance = torch.einsum("k,kij->ij", shaded.counts / shaded.counts.sum(), shaded.covariance)
    assert (sigma_ratio(covariance, torch.cov(fine.flatten(1)).double()) - 1).abs().max() < 0.15


def test_colours_of_no_power_are_no_noise() -> None:
    """Powers of colour differences come from medians: some are below 0 where there is no difference."""
    matrices = torch.full((2, 3, 3), 1.02, dtype=torch.float64)
    matrices[1] = 0.98
    matrices.diagonal(dim1=1, dim2=2).fill_(1)
    power = matrices[..., None].expand(2, 3, 3, 256).clone()
    power[..., 1] += 5 * torch.eye(3)  # a wave in which colours differ
    found = without_shading(power)
    assert found.isfinite().all()
    # Grey is flat over frequencies, and stays so at the mean.
    assert found[:, :, :, 0].mean((1, 2)) == pytest.approx(matrices.mean((1, 2)), rel=1e-6)
    assert found[1, 0, 0, 1] > 1.02  # colour that has a power may have more of it there


def correlation(covariance: Tensor) -> Tensor:
    sigma = covariance.diagonal().sqrt()
    return covariance / sigma[:, None] / sigma


def test_shading_texture_and_edges_beside_flat_areas_do_not_count() -> None:
    content = torch.linspace(0.3, 0.7, 320).expand(3, 320, 320).clone()
    texture = 0.1 * torch.randn(3, 160, 320, generator=generator(1))
    content[:, :160] += torch.nn.functional.avg_pool2d(texture, 3, 1, 1)
    content[:, 200:, 100:103] = 0.1
    found = measure_flat_noise([content + white(320, 320)])
    used = found.counts > 0.2 * found.counts.max()
    assert int(used.sum()) >= 3
    assert (sigma_ratio(found.covariance[used], COVARIANCE) - 1).abs().max() < 0.15


def test_noise_that_differs_from_place_to_place() -> None:
    """Strength by place as cameras that smooth leave it, a standard deviation of 20%, on soft content: their mean."""
    content = torch.nn.functional.avg_pool2d(0.03 * torch.randn(1, 1, 400, 400, generator=generator(2)), 15, 1, 7)[0]
    coarse = torch.randn(1, 1, 18, 18, generator=generator(5))
    strength = torch.nn.functional.interpolate(coarse, scale_factor=24, mode="bicubic")[0, 0, :400, :400]
    strength = (0.2 * (strength - strength.mean()) / strength.std()).exp()
    strength = strength / strength.square().mean().sqrt()
    found = measure_flat_noise([0.5 + content + strength * autoregressive(white(400, 400), 0.5, 0.5)])
    assert found.level == pytest.approx(3 / 255, rel=0.15)


@pytest.mark.parametrize("sigma", [6, 12])
def test_fine_texture_beside_a_flat_area_is_no_noise(sigma: int) -> None:
    """Grey texture of two and four times the noise, as fine as it, over 85% of the image."""
    texture = sigma / 255 * torch.randn(1, 400, 400, generator=generator(7)).expand(3, -1, -1).clone()
    texture[:, 340:] = 0
    found = measure_flat_noise([0.5 + texture + white(400, 400)])
    assert found.level == pytest.approx(3 / 255, rel=0.1)


def test_noise_that_falls_steeply_towards_white() -> None:
    """As tone curves press it: parts of four and two times the noise of the bright one are believed."""
    content = torch.cat([torch.full((3, 400, 200), value) for value in (0.2, 0.45, 0.7)], 2)
    sigma = 0.016 * (-3 * (content - 0.3)).exp()
    found = measure_flat_noise([content + white(400, 600, torch.eye(3)) * sigma])
    for node in (1, 3, 5):
        assert float(found.counts[node]) > 0.25 * found.pixels
        true = 0.016 * math.exp(-3 * (float(found.nodes[node]) - 0.3))
        assert float(found.covariance[node].diagonal().mean().sqrt()) == pytest.approx(true, rel=0.05)


def test_noise_that_grows_with_brightness() -> None:
    ramp = torch.linspace(0.1, 0.9, 600).expand(3, 400, 600)
    unit = white(400, 600, torch.eye(3))
    found = measure_flat_noise([ramp + unit * (0.0002 * ramp).sqrt()])
    sigma = found.covariance.diagonal(dim1=1, dim2=2).mean(1).sqrt()
    for node, value in zip(found.nodes.tolist()[1:-1], sigma.tolist()[1:-1], strict=True):
        assert value == pytest.approx(math.sqrt(0.0002 * node), rel=0.08)


def test_clipped_areas_are_left_out() -> None:
    content = torch.full((3, 200, 400), 0.4)
    content[:, :, 200:] = 1.0
    found = measure_flat_noise([(content + white(200, 400)).clamp(0, 1)])
    assert found.level == pytest.approx(3 / 255, rel=0.07)
    with pytest.raises(ShapeError, match="no flat"):
        measure_flat_noise([torch.ones(3, 64, 64)])


def test_a_pile_is_pooled_by_area_and_empty_nodes_follow_their_neighbours() -> None:
    dark, bright = 0.2 + white(200, 200), 0.8 + 2 * white(200, 200, seed=1)
    found = measure_flat_noise([dark, bright])
    assert found.pixels == round(float(found.counts.sum()))
    variance = found.covariance.diagonal(dim1=1, dim2=2).mean(1) * 255**2 / 9
    assert variance[1] == pytest.approx(1, rel=0.12)
    assert variance[6] == pytest.approx(4, rel=0.12)
    empty = variance[2:6]
    assert (empty.diff() > 0).all()
    assert variance[0] == pytest.approx(float(variance[1]), rel=0.05)


def test_bytes_and_floats_agree_and_json_holds_all() -> None:
    image = ((0.5 + white(128, 128)).clamp(0, 1) * 255).round().to(torch.uint8)
    of_bytes, of_floats = measure_flat_noise([image]), measure_flat_noise([image / 255])
    assert of_bytes.level == pytest.approx(of_floats.level, rel=1e-4)
    assert json.loads(json.dumps(of_bytes.as_dict()))["level"] == of_bytes.level
    # Rounding to bytes adds a variance of 1 / 12.
    assert of_bytes.level * 255 == pytest.approx(math.sqrt(9 + 1 / 12), rel=0.1)


def test_level_of_one_image() -> None:
    levels = [noise_level(0.5 + strength * white(96, 128)) for strength in (1, 2, 4)]
    for strength, level in zip((1, 2, 4), levels, strict=True):
        assert level == pytest.approx(3 * strength / 255, rel=0.12)
    assert noise_level(torch.full((3, 96, 96), 0.5)) == pytest.approx(0, abs=1e-6)
    assert noise_level(torch.ones(3, 96, 96)) is None
    assert noise_level(torch.full((3, 10, 96), 0.5)) is None


@pytest.mark.parametrize("content", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("sigma", [3 / 255, 0.05])
def test_noise_around_black_and_white_that_nothing_has_cut(content: float, sigma: float) -> None:
    noisy = content + sigma * torch.randn(3, 128, 160, generator=generator(4))
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.1)
    assert noise_level(noisy.clamp(0, 1)) is None


def test_noise_around_black_and_white_in_one_image() -> None:
    content = torch.zeros(3, 128, 320)
    content[:, :, 160:] = 1
    noise = 0.02 * torch.randn(3, 128, 320, generator=generator(5))
    assert noise_level(content + noise) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 64, 64), (64, 64), (3, 8, 64)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected an image"):
        measure_flat_noise([torch.zeros(shape)])


def test_areas_of_texture_alone_do_not_count() -> None:
    """Dark and bright areas hold noise alone, the middle ones strong texture everywhere."""
    content = torch.full((3, 240, 400), 0.3)
    content[:, :, 300:] = 0.75
    blotches = 0.06 * torch.randn(1, 240, 200, generator=generator(3))
    content[:, :, 100:300] = 0.5 + torch.nn.functional.avg_pool2d(blotches, 5, 1, 2) * 5
    found = measure_flat_noise([content + white(240, 400)])
    assert found.level == pytest.approx(3 / 255, rel=0.1)
    assert (sigma_ratio(found.covariance, COVARIANCE) - 1).abs().max() < 0.2


def test_a_drawn_border_without_noise_does_not_hide_the_photograph() -> None:
    content = torch.full((3, 240, 400), 0.3)
    image = content + white(240, 400)
    image[:, :, 200:] = 0.5
    sigma = measure_flat_noise([(image * 255).round() / 255]).covariance.diagonal(dim1=1, dim2=2).mean(1).sqrt()
    assert float(sigma[1]) == pytest.approx(3 / 255, rel=0.1)


def test_noise_of_a_jpeg_grid_is_measured_at_all_its_phases() -> None:
    """Noise that is stronger in every eighth column: the mean over columns is told."""
    unit = white(400, 400, torch.eye(3))
    strength = torch.full((400,), 2.0)
    strength[::8] = 6.0
    found = measure_flat_noise([0.5 + unit * strength / 255])
    mean = math.sqrt((7 * 4 + 36) / 8)
    assert found.level * 255 == pytest.approx(mean, rel=0.12)


def test_powers_that_no_covariance_has_come_to_numbers() -> None:
    """Powers of pairs of channels are measured one by one: a difference of colours may come out below 0."""
    generator = torch.Generator().manual_seed(0)
    power = torch.rand(8, 3, 3, FREQUENCIES, generator=generator, dtype=torch.float64) - 0.5
    assert without_shading((power + power.transpose(1, 2)) / 2).isfinite().all()


def test_equal_spectra_give_equal_bits_whatever_memory_holds() -> None:
    """A fit that starts from memory that nobody has set gave other bits from call to call, and so to each training."""
    power = torch.rand(3, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    found = set()
    for number in range(40):
        left_behind = [torch.full((count,), number % 7, dtype=torch.int32) for count in (25, 36, 64, 81, 81, 100)]
        del left_behind
        found.add(autocorrelation(power).numpy().tobytes())
    assert len(found) == 1

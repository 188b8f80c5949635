"""ClassicalDegrade against analytic variances, SciPy-free blur moments, and Pillow's JPEG."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthpipe import images
from synthpipe.config.degrade import ClassicalDegradeOptions
from synthpipe.config.reader import parse_options
from synthpipe.errors import OptionError, ShapeError
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.jpeg import jpeg_round_trip
from tests.capturable import check_capturable

PLAIN_NOISE = {"type": "poisson_gaussian", "a": (0.004, 0.002, 0.001), "b": (1e-4, 2e-4, 3e-4)}


def make(scale=1, **options):
    return build_degrade(parse_options({"type": "classical", **options}, ClassicalDegradeOptions), scale)


def batch_of(gt, seeds):
    return {"gt": gt, "key": [f"k{s}" for s in seeds], "seed": torch.tensor(seeds)}


def natural(height, width, seed=0):
    """A smooth colour picture with one edge, so that JPEG has something to do."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    g = torch.Generator().manual_seed(seed)
    phase = torch.rand(3, 2, generator=g) * 6
    waves = [0.5 + 0.3 * torch.sin(phase[c, 0] + 7 * x) * torch.cos(phase[c, 1] + 5 * y) for c in range(3)]
    return (torch.stack(waves) + 0.15 * (x > 0.4)).clamp(0, 1)


def test_nothing_switched_on_is_bicubic_reduction():
    gt = torch.rand(2, 3, 24, 32)
    batch = batch_of(gt, [1, 2])
    out = make(scale=4)(batch)
    assert torch.equal(out["lq"], images.downscale_bicubic(gt, 4))
    assert out["gt"] is gt
    assert "lq" not in batch


def test_a_sample_depends_on_its_own_seed_alone():
    transform = make(
        scale=2,
        blur={"sigma": [0.5, 2.0], "ratio": [0.3, 1.0]},
        noise={"type": "gaussian", "sigma": [0.01, 0.1]},
        jpeg_quality=[30, 95],
    )
    gt = torch.stack([natural(32, 48, s) for s in range(3)])
    together = transform(batch_of(gt, [5, 6, 7]))["lq"]
    alone = transform(batch_of(gt[1:2], [6]))["lq"]
    # Blur runs as one grouped convolution whose rounding may differ with the batch; JPEG makes whole levels of it.
    assert (together[1:2] - alone).abs().max() < 2.5 / 255
    assert (together[1:2] != alone).float().mean() < 1e-3
    assert not torch.equal(transform(batch_of(gt[1:2], [8]))["lq"], alone)
    assert torch.equal(transform(batch_of(gt, [5, 6, 7]))["lq"], together)


def test_switching_jpeg_on_keeps_the_noise():
    gt = natural(32, 32)[None]
    noisy = make(noise={"type": "gaussian", "sigma": [0.02, 0.05]})
    both = make(noise={"type": "gaussian", "sigma": [0.02, 0.05]}, jpeg_quality=[100, 100])
    a, b = noisy.sample_params(batch_of(gt, [3])), both.sample_params(batch_of(gt, [3]))
    assert torch.equal(a["eps"], b["eps"])
    assert torch.equal(a["noise_sigma"], b["noise_sigma"])


def test_gaussian_noise_has_the_asked_covariance():
    covariance = [[4e-4, 1e-4, -5e-5], [1e-4, 3e-4, 5e-5], [-5e-5, 5e-5, 2e-4]]
    transform = make(noise={"type": "gaussian", "covariance": covariance})
    lq = transform(batch_of(torch.full((1, 3, 400, 400), 0.5), [1]))["lq"]
    measured = torch.cov((lq - 0.5).double().reshape(3, -1))
    # Standard error of a covariance entry over n = 160000 draws is below 4e-4 * sqrt(2 / n) = 1.4e-6.
    torch.testing.assert_close(measured, torch.tensor(covariance).double(), atol=7e-6, rtol=0)


def test_sigma_is_drawn_from_its_range():
    transform = make(noise={"type": "gaussian", "sigma": [0.02, 0.06]})
    lq = transform(batch_of(torch.full((60, 3, 40, 40), 0.5), list(range(60))))["lq"]
    sigmas = (lq - 0.5).flatten(1).std(1)
    assert sigmas.min() > 0.019
    assert sigmas.max() < 0.062
    assert sigmas.std() == pytest.approx(0.04 / math.sqrt(12), rel=0.3)


def test_poisson_gaussian_variance_is_linear_in_brightness():
    a, b = (0.004, 0.002, 0.001), (1e-4, 2e-4, 3e-4)
    transform = make(noise={"type": "poisson_gaussian", "a": a, "b": b})
    for level in (0.1, 0.5, 0.9):
        lq = transform(batch_of(torch.full((1, 3, 300, 300), level), [7]))["lq"]
        measured = (lq - level).double().var((0, 2, 3))
        expected = torch.tensor([a[c] * level + b[c] for c in range(3)]).double()
        torch.testing.assert_close(measured, expected, rtol=0.03, atol=0)


def test_falling_poisson_gaussian_stops_at_zero():
    transform = make(noise={"type": "poisson_gaussian", "a": (-0.01,) * 3, "b": (0.005,) * 3})
    lq = transform(batch_of(torch.full((1, 3, 8, 8), 0.9), [7]))["lq"]
    assert torch.equal(lq, torch.full((1, 3, 8, 8), 0.9))


def test_coloured_noise_has_the_asked_variance_and_correlations():
    a, b = (0.004, 0.002, 0.001), (1e-4, 2e-4, 3e-4)
    correlation = [[1, 0.6, 0.1], [0.6, 1, 0.3], [0.1, 0.3, 1]]
    kernel = [[0, 0, 0], [2, 2, 0], [0, 0, 0]]  # the mean of two neighbours: lag-1 correlation 1/2 along rows alone
    transform = make(noise={"type": "poisson_gaussian", "a": a, "b": b, "correlation": correlation, "kernel": kernel})
    noise = transform(batch_of(torch.full((1, 3, 400, 400), 0.5), [7]))["lq"][0].double() - 0.5
    expected = torch.tensor([a[c] * 0.5 + b[c] for c in range(3)]).double()
    torch.testing.assert_close(noise.var((1, 2)), expected, rtol=0.03, atol=0)
    # Also at the border, where a kernel meets what is not there.
    torch.testing.assert_close(noise[:, :, :2].square().mean((1, 2)), expected, rtol=0.15, atol=0)
    torch.testing.assert_close(noise.flatten(1).corrcoef(), torch.tensor(correlation).double(), rtol=0, atol=0.015)
    for moved, there in (((0, 1), 0.5), ((1, 0), 0.0), ((0, 2), 0.0)):
        both = noise * noise.roll(moved, (1, 2)) / expected[:, None, None]
        assert both.mean() == pytest.approx(there, abs=0.015)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 2.5])
def test_isotropic_blur_of_a_point_has_the_asked_variance(sigma):
    gt = torch.zeros(1, 3, 41, 41)
    gt[..., 20, 20] = 1
    lq = make(blur={"sigma": [sigma, sigma]})(batch_of(gt, [1]))["lq"][0, 1].double()
    offset = torch.arange(41).double() - 20
    assert lq.sum().item() == pytest.approx(1, abs=1e-5)
    # Cutting at 3 sigma takes away under 3% of the variance.
    assert (lq.sum(0) * offset**2).sum().item() == pytest.approx(sigma**2, rel=0.04)
    assert (lq.sum(1) * offset**2).sum().item() == pytest.approx(sigma**2, rel=0.04)


def test_anisotropic_blur_has_the_drawn_axes_and_direction():
    gt = torch.zeros(1, 3, 61, 61)
    gt[..., 30, 30] = 1
    transform = make(blur={"sigma": [3.0, 3.0], "ratio": [0.4, 0.4]})
    batch = batch_of(gt, [11])
    params = transform.sample_params(batch)
    lq = transform.apply(batch, params)["lq"][0, 0].double()
    offset = torch.arange(61).double() - 30
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    moments = torch.tensor([[(lq * x * x).sum(), (lq * x * y).sum()], [(lq * x * y).sum(), (lq * y * y).sum()]])
    values, vectors = torch.linalg.eigh(moments)
    assert values.sqrt().tolist() == pytest.approx([1.2, 3.0], rel=0.03)
    angle = math.atan2(vectors[1, 1].item(), vectors[0, 1].item()) % math.pi
    assert angle == pytest.approx(params["blur_angle"].item(), abs=0.02)


def test_blur_keeps_a_constant_up_to_the_border():
    lq = make(blur={"sigma": [3.0, 3.0]})(batch_of(torch.full((1, 3, 6, 5), 0.3), [1]))["lq"]
    torch.testing.assert_close(lq, torch.full((1, 3, 6, 5), 0.3))


def pillow_jpeg(image, quality):
    array = images.to_uint8(image).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
def test_jpeg_is_what_libjpeg_does(quality, size):
    noise = 0.05 * torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    image = (natural(*size) + noise).clamp(0, 1)
    ours = images.to_uint8(jpeg_round_trip(image[None], torch.tensor([quality])))[0].int()
    peer = pillow_jpeg(image, quality).int()
    done = (peer - images.to_uint8(image).int()).double().pow(2).mean().sqrt()
    error = (ours - peer).double()
    assert error.pow(2).mean().sqrt() < 0.15 * done
    # libjpeg's integer transform may round one DC coefficient the other way.
    assert error.mean().abs() < 0.2


def test_jpeg_of_each_image_has_its_own_quality():
    gt = torch.stack([natural(32, 32)] * 2)
    lq = jpeg_round_trip(gt, torch.tensor([5, 95]))
    assert (lq[0] - gt[0]).pow(2).mean() > 10 * (lq[1] - gt[1]).pow(2).mean()
    torch.testing.assert_close(lq * 255, (lq * 255).round(), atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(low=st.integers(1, 100), span=st.integers(0, 99), seed=st.integers(0, 2**62))
def test_quality_stays_within_its_range(low, span, seed):
    high = min(100, low + span)
    transform = make(jpeg_quality=[low, high])
    params = transform.sample_params(batch_of(torch.zeros(1, 3, 8, 8), [seed]))
    assert low <= params["quality"].item() <= high


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blur": {"sigma": [0.5, 2.0], "ratio": [0.3, 1.0]}},
        {"noise": {"type": "gaussian", "sigma": [0.01, 0.1]}, "jpeg_quality": [30, 95]},
        {"noise": {"type": "gaussian", "covariance": [[4e-4, 1e-4, 0], [1e-4, 3e-4, 0], [0, 0, 2e-4]]}},
        {"noise": {"type": "poisson_gaussian", "a": (0.004, 0.002, 0.001), "b": (1e-4, 2e-4, 3e-4)}},
        {"noise": {**PLAIN_NOISE, "correlation": [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], "kernel": [[1.0] * 25] * 25}},
    ],
)
def test_it_can_be_a_graph(options):
    gt = torch.stack([natural(32, 48, s) for s in range(3)])
    one, other = ({"gt": x, "seed": torch.arange(3) + 5} for x in (gt, gt.flip(0)))
    # JPEG makes whole levels of differences in rounding.
    check_capturable(make(scale=2, **options), one, other, atol=2.5 / 255 if "jpeg_quality" in options else 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": {"type": "gaussian"}}, "either sigma"),
        ({"noise": {"type": "gaussian", "sigma": [0.2, 0.1]}}, "low, high"),
        ({"noise": {"type": "gaussian", "covariance": [[1, 0, 0], [0, 1, 0], [0.5, 0, 1]]}}, "symmetric"),
        ({"noise": {"type": "gaussian", "covariance": [[0.1, 0.2, 0], [0.2, 0.1, 0], [0, 0, 1]]}}, "negative eigen"),
        ({"noise": {**PLAIN_NOISE, "correlation": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}}, "ones on its diagonal"),
        ({"noise": {**PLAIN_NOISE, "correlation": [[1, 2, 0], [2, 1, 0], [0, 0, 1]]}}, "correlation: expected"),
        ({"noise": {**PLAIN_NOISE, "kernel": [[1, 1], [1, 1]]}}, "odd side"),
        ({"noise": {**PLAIN_NOISE, "kernel": [[1, 1, 1], [1, 1]]}}, "rows of"),
        ({"noise": {**PLAIN_NOISE, "kernel": [[0.0]]}}, "not all zero"),
        ({"blur": {"sigma": [2, 1]}}, "sigma: expected"),
        ({"jpeg_quality": [90, 30]}, "jpeg_quality: expected"),
        ({"jpeg_quality": [0, 30]}, "greater than or equal to 1"),
        ({"blurr": {"sigma": [1, 2]}}, "did you mean 'blur'"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(OptionError, match=message):
        make(**options)


def test_bad_batches_are_refused():
    transform = make(scale=4)
    assert isinstance(transform, ClassicalDegrade)
    with pytest.raises(ShapeError, match="multiples of 4"):
        transform(batch_of(torch.zeros(1, 3, 10, 8), [1]))
    with pytest.raises(ShapeError, match="NaN"):
        transform(batch_of(torch.full((1, 3, 8, 8), float("nan")), [1]))
    with pytest.raises(ShapeError, match="2 images but 1 seeds"):
        transform(batch_of(torch.zeros(2, 3, 8, 8), [1]))
    with pytest.raises(ShapeError, match=r"1\.\.100"):
        jpeg_round_trip(torch.zeros(1, 3, 8, 8), torch.tensor([0]))

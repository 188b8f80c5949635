"""Noise: laws against scipy, BasicSR and formulas; fields between pixels and channels against NumPy and scipy."""

from __future__ import annotations

import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from synthpipe.basicsr_plugin.compat import prepare
from synthpipe.config.reader import parse_options
from synthpipe.config.stages.noise import NoiseStageOptions
from synthpipe.errors import OptionError
from synthpipe.philox import normals
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.photons import levels_met, photon_counts, photons_of_levels
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.noise import CHANNELS, KINDS, Noise
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

GAUSSIAN = ("gaussian", "poisson_gaussian", "correlated", "film", "speckle")
LUMA = np.array([0.299, 0.587, 0.114])


def stage(kind, channels="independent", **options):
    kinds = {kind: 1} if isinstance(kind, str) else kind
    how = {channels: 1} if isinstance(channels, str) else channels
    block = {"type": "noise", "kinds": kinds, "channels": how, **options}
    return Noise(parse_options(block, NoiseStageOptions))


def added(noise, x, seed=5):
    """``(3, h, w)`` float64: what a stage adds to an image, and what it drew."""
    seeds = torch.tensor([seed])
    params = drawn(noise, seeds)
    made = noise.on_image(x, params, Context(Size(8, 8), seeds, "noise", by_host=True))
    return (made - x)[0].double().numpy(), params


def flat(value, side=256):
    return torch.full((1, 3, side, side), float(value))


def within_errors(sample, variance, count):
    """The sample's variance is that of Gaussian numbers of a variance, to five standard errors."""
    return abs(np.var(sample) / variance - 1) < 5 * (2 / count) ** 0.5


@pytest.fixture(scope="module")
def degradations():
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import basicsr.data.degradations as module
    return module


@pytest.mark.parametrize("channels", ["independent", "grey", "chroma"])
@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind, channels):
    # a photon is less than 2 of 255, and float rounding may make one more or less of a number
    check_stage(stage(kind, channels, photons=[500, 5000], share=[0.05, 0.2], sigma=[0.02, 0.1]))


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_contract_with_a_covariance(kind):
    check_stage(stage(kind, "covariance", sigma=[0.02, 0.1]))


def test_contract_of_all_kinds_at_once():
    kinds = dict.fromkeys(KINDS, 1)
    for clip in (True, False):
        check_stage(stage(kinds, {"independent": 1, "grey": 1, "chroma": 1}, photons=[500, 5000], clip=clip))
    check_stage(stage(dict.fromkeys(GAUSSIAN, 1), dict.fromkeys(CHANNELS, 1), width=[0.3, 4]))


def test_content_keeps_its_place():
    check_aligned(stage("poisson_gaussian", sigma=0.004, gain=0.0001))
    check_aligned(stage("film", sigma=0.01))


def test_photons_of_levels_on_a_canvas_and_alone():
    noise = stage("poisson", {"independent": 1, "grey": 1}, scale=[0.1, 1])
    images = [(photo_like(90, 70, seed) * 32).round() / 32 for seed in range(6)]
    seeds = torch.arange(6)
    params = drawn(noise, seeds)
    assert len(set(params["channels"].tolist())) == 2
    sizes = torch.tensor([90, 70]).expand(6, 2)
    pixels = torch.nn.functional.pad(torch.cat(images), (0, 5, 0, 9), value=17.0)
    whole = noise.on_canvas(
        Canvas(pixels, sizes[:, 0], sizes[:, 1]), params, Context(Size(8, 8), seeds, "noise")
    ).pixels
    for row, x in enumerate(images):
        own = {name: value[row : row + 1] for name, value in params.items()}
        alone = noise.on_image(x, own, Context(Size(8, 8), seeds[row : row + 1], "noise", by_host=True))
        # rounding of normal numbers may make one photon more or less of a number, here 1/64 of white
        assert float(((whole[row : row + 1, :, :90, :70] - alone).abs() > 1e-5).float().mean()) < 1e-3


@pytest.mark.parametrize("rate", [0.1, 0.7, 1.3, 3, 6.5, 11, 15.9, 16.1, 23, 40, 77, 150, 300])
def test_photons_follow_the_poisson_law(rate):
    count = 1_000_000
    white = normals(torch.tensor([int(rate * 10)]), 0, (1, 1000, 1000))
    levels = torch.full_like(white, 51.0)  # a fifth of white
    photons = torch.tensor([rate * 5], dtype=torch.float64)
    sample = photon_counts(levels, photons, white)
    assert torch.equal(photon_counts(levels, photons, white, alone=True), sample)
    sample = sample.numpy().ravel().astype(int)
    assert abs(sample.mean() / rate - 1) < max(0.005, 5 / (rate * count) ** 0.5)
    # the variance of a sample's variance: (r + 2 r^2) / n
    assert abs(sample.var() / rate - 1) < max(0.005, 5 * ((rate + 2 * rate**2) / count) ** 0.5 / rate)
    law = stats.poisson(rate)
    # classes of few are joined at both ends
    low, high = int(law.ppf(20 / count)), int(law.ppf(1 - 20 / count))
    found = np.bincount(sample.clip(low, high) - low)
    expected = np.diff([0, *law.cdf(np.arange(low, high)), 1]) * count
    assert stats.chisquare(found, expected).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.1, 0.7, 1.3, 3, 6.5, 11, 15.9, 16.1, 23, 40, 77, 150, 300])
def test_probabilities_of_photons(rate):
    """Of normal numbers at equal steps of probability: no chance in it."""
    count = 400_000
    white = torch.from_numpy(stats.norm.ppf((np.arange(count) + 0.5) / count)).float().view(1, 1, 400, 1000)
    photons = torch.tensor([rate * 5], dtype=torch.float64)
    sample = photon_counts(torch.full_like(white, 51.0), photons, white).double().numpy().ravel()
    assert abs(sample.mean() / rate - 1) < 2e-4
    assert abs(sample.var() / rate - 1) < 5e-4
    numbers = np.arange(sample.max() + 1)
    found = np.cumsum(np.bincount(sample.astype(int))) / count
    assert np.abs(found - stats.poisson(rate).cdf(numbers)).max() < (5e-6 if rate < 16 else 5e-5)


def test_no_light_no_photons_and_many_photons():
    white = normals(torch.tensor([3]), 0, (3, 300, 300))
    photons = torch.tensor([1e6], dtype=torch.float64)
    assert int(photon_counts(torch.zeros_like(white), photons, white).abs().max()) == 0
    many = photon_counts(torch.full_like(white, 255.0), photons, white).double().numpy().ravel()
    assert stats.kstest((many - 1e6) / 1e3, "norm").pvalue > 0.01


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3, 16, 17, 100, 256])
def test_photons_are_as_many_as_basicsr_counts(degradations, levels, grey):
    x = (torch.rand(1, 3, 60, 50, generator=torch.Generator().manual_seed(levels)) * levels).floor() * (0.9 / levels)
    with mock.patch("torch.poisson", side_effect=lambda rates: rates) as poisson:
        degradations.generate_poisson_noise_pt(x, gray_noise=float(grey))
    rates = poisson.call_args_list[0].args[0]  # of the grey image, where it is wanted, comes first
    noise = stage("poisson", "grey" if grey else "independent")
    with mock.patch("synthpipe.transforms.chains.stages.noise.photon_counts", wraps=photon_counts) as counts:
        added(noise, x)
    given, photons = counts.call_args_list[0].args[:2]
    torch.testing.assert_close(given * float(photons) / 255, rates, atol=1e-3, rtol=0)


def test_levels_are_counted_in_each_image_alone():
    levels = torch.zeros(3, 3, 4, 6)
    levels[0, 0, 3, 5] = 9  # beyond the first image
    levels[1, :, :2, :2] = torch.arange(12.0).view(3, 2, 2)
    inside = torch.zeros(3, 1, 4, 6, dtype=torch.bool)
    inside[..., :3, :5] = True
    met = levels_met(levels, inside)
    assert met.sum(1).tolist() == [1, 12, 1]
    assert photons_of_levels(met).tolist() == [1, 16, 1]
    counts = torch.tensor([1, 2, 3, 4, 5, 128, 129, 255, 256])
    met = torch.arange(256) < counts[:, None]
    assert photons_of_levels(met).tolist() == [2 ** np.ceil(np.log2(count)) for count in counts.tolist()]


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_has_the_law_of_basicsr(degradations, grey):
    x = photo_like(320, 300, seed=3)
    noise = stage("poisson", "grey" if grey else "independent", scale=0.7, clip=False)
    ours, params = added(noise, x)
    assert float(params["scale"]) == pytest.approx(0.7)
    torch.manual_seed(1)
    theirs = degradations.generate_poisson_noise_pt(x, scale=0.7, gray_noise=float(grey))[0].double().numpy()
    if grey:
        np.testing.assert_allclose(ours[1:], np.stack([ours[0]] * 2), atol=1e-6)
        ours, theirs = ours[:1], theirs[:1]
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).statistic < 1.7 / (ours.size / 2) ** 0.5
    assert abs(ours.mean() - theirs.mean()) < 6 * ours.std() / ours.size**0.5
    assert abs(ours.std() / theirs.std() - 1) < 0.01


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_the_law_of_basicsr(degradations, grey):
    x = flat(0.5)
    ours, params = added(stage("gaussian", "grey" if grey else "independent", sigma=[0.01, 0.1], clip=False), x)
    sigma = float(params["sigma"])
    torch.manual_seed(1)
    theirs = degradations.generate_gaussian_noise_pt(x, sigma=sigma * 255, gray_noise=float(grey))[0].double().numpy()
    if grey:
        assert np.array_equal(ours[0], ours[1])
        assert np.array_equal(ours[0], ours[2])
        ours, theirs = ours[0], theirs[0]
    assert stats.ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 0.01
    assert stats.kstest(ours.ravel() / sigma, "norm").pvalue > 0.01
    if not grey:
        assert np.abs(np.corrcoef(ours.reshape(3, -1)) - np.eye(3)).max() < 5 / ours[0].size ** 0.5


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 0.8, 1.0, 1.2, -0.1])
def test_noise_that_depends_on_brightness(value):
    x, sigma, gain = flat(value), 0.03, 0.002
    light = min(max(value, 0), 1)
    laws = {
        "poisson_gaussian": gain * light + sigma**2,
        "speckle": (sigma * light) ** 2,
        "film": 4 * sigma**2 * light * (1 - light),
    }
    for kind, variance in laws.items():
        made, _ = added(stage(kind, sigma=sigma, gain=gain, width=0.2, clip=False), x)
        if variance == 0:
            assert np.array_equal(made, np.zeros_like(made))
        else:
            assert within_errors(made, variance, made.size), kind
            assert stats.kstest(made.ravel()[::7] / variance**0.5, "norm").pvalue > 1e-3


def test_uniform_noise():
    made, params = added(stage("uniform", sigma=[0.05, 0.1], clip=False), flat(0.5))
    half = 3**0.5 * float(params["sigma"])
    assert stats.kstest((made.ravel() + half) / (2 * half), "uniform").pvalue > 0.01


@pytest.mark.parametrize("channels", ["independent", "grey"])
def test_salt_and_pepper(channels):
    made, params = added(stage("salt_and_pepper", channels, share=[0.02, 0.1], salt=[0.2, 0.4]), flat(0.25))
    share, salt = float(params["share"]), float(params["salt"])
    if channels == "grey":
        assert np.array_equal(made[0], made[1])
        made = made[:1]
    assert set(np.unique(made)) == {-0.25, 0.0, 0.75}
    changed, white = int((made != 0).sum()), int((made > 0).sum())
    assert stats.binomtest(changed, made.size, share).pvalue > 1e-3
    assert stats.binomtest(white, changed, salt).pvalue > 1e-3


@pytest.mark.parametrize("width", [0.2, 0.7, 2.0, 5.0])
def test_correlated_noise_is_a_blurred_field_of_variance_1(width):
    noise = stage("correlated", sigma=0.1, width=[0.2, width], clip=False)
    seeds = torch.tensor([5])
    params = {**drawn(noise, seeds), "width": torch.tensor([width], dtype=torch.float64)}
    context = Context(Size(8, 8), seeds, "noise", by_host=True)
    made = noise.on_image(flat(0.5, 200), params, context)[0].double().numpy() - 0.5
    margin = int(np.ceil(3 * width))
    white = context.normals(3, 200 + 2 * margin, 200 + 2 * margin, 1)[0].double().numpy()
    blurred = ndimage.gaussian_filter(white, width, axes=(1, 2), radius=margin)[:, margin:-margin, margin:-margin]
    point = np.zeros(2 * margin + 1)
    point[margin] = 1
    norm = (ndimage.gaussian_filter1d(point, width, radius=margin) ** 2).sum()
    np.testing.assert_allclose(made, 0.1 * blurred / norm, atol=2e-6)


def test_correlated_noise_has_the_variance_and_the_correlation_of_its_formula():
    made, params = added(stage("correlated", sigma=0.1, width=1.3, clip=False), flat(0.5, 700))
    assert abs(made.std() / 0.1 - 1) < 0.01
    for lag in range(1, 5):
        expected = np.exp(-(lag**2) / (4 * float(params["width"]) ** 2))
        for axis in (1, 2):
            assert abs(np.corrcoef(made.ravel(), np.roll(made, lag, axis).ravel())[0, 1] - expected) < 0.015


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "uniform", "correlated"])
def test_chroma_noise_leaves_the_luma(kind):
    x = photo_like(200, 200, 1)
    made, _ = added(stage(kind, "chroma", clip=False, sigma=0.1, photons=500), x)
    assert np.abs(np.tensordot(LUMA, made, 1)).max() < 1e-6
    if kind == "gaussian":
        # of independent numbers less their weighted sum
        expected = (np.eye(3) - LUMA) @ (np.eye(3) - LUMA).T * 0.01
        np.testing.assert_allclose(np.cov(made.reshape(3, -1)), expected, atol=3e-4)


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_covariance_between_channels(kind):
    noise = stage(kind, "covariance", sigma=[0.0, 0.05], gain=0, clip=False, width=0.2)
    for seed in range(4):
        made, params = added(noise, flat(0.5, 400), seed)
        covariance = params["covariance"][0].numpy()
        factor = {"speckle": 0.25}.get(kind, 1.0)
        found = np.cov(made.reshape(3, -1))
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        assert np.abs(found / factor - covariance).max() < 5 * scale.max() * (2 / 160_000) ** 0.5


def test_covariances_are_drawn_as_bsrgan_describes():
    count = 20_000
    noise = stage("gaussian", "covariance", sigma=[0.01, 0.1])
    ours = drawn(noise, torch.arange(count))["covariance"].numpy() / 0.1**2
    turns = stats.ortho_group(3, seed=1).rvs(count)
    diagonals = np.random.default_rng(2).random((count, 3))
    theirs = np.abs(np.einsum("nki,nk,nkj->nij", turns, diagonals, turns))
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        assert stats.ks_2samp(ours[:, i, j], theirs[:, i, j]).pvalue > 1e-3
        assert np.array_equal(ours[:, i, j], ours[:, j, i])
    assert np.linalg.eigvalsh(ours).min() > -1e-9


def test_settings_have_their_laws():
    count = 40_000
    kinds = {"gaussian": 3, "poisson": 1, "film": 2, "poisson_gaussian": 1, "salt_and_pepper": 1}
    channels = {"independent": 5, "grey": 4, "chroma": 1}
    limits = {"sigma": [0.01, 0.2], "scale": [0.05, 3], "gain": [0.001, 0.01], "width": [0.5, 2], "share": [0.1, 0.3]}
    noise = stage(kinds, channels, photons=[100, 10_000], salt=[0.2, 0.7], **limits)
    drawn_all = {name: value.numpy() for name, value in drawn(noise, torch.arange(count)).items()}
    for name, weights, names in (("kind", kinds, KINDS), ("channels", channels, CHANNELS)):
        found = np.bincount(drawn_all[name], minlength=len(names))
        expected = np.array([weights.get(one, 0) for one in names]) * count / sum(weights.values())
        assert np.array_equal(found > 0, expected > 0)
        assert stats.chisquare(found[found > 0], expected[found > 0]).pvalue > 1e-3
    for name, (low, high) in {**limits, "salt": [0.2, 0.7]}.items():
        assert stats.kstest(drawn_all[name], "uniform", (low, high - low)).pvalue > 1e-3, name
    assert stats.kstest(np.log10(drawn_all["photons"]), "uniform", (2, 2)).pvalue > 1e-3
    pairs = np.corrcoef([drawn_all[name] for name in ("kind", "channels", *limits, "salt", "photons")])
    assert np.abs(pairs - np.eye(len(pairs))).max() < 5 / count**0.5


@pytest.mark.parametrize(
    ("low", "high", "step", "steps"), [(1 / 255, 25 / 255, 1 / 255, 25), (0.00392, 0.098, 0.00392, 25)]
)
def test_sigma_in_steps(low, high, step, steps):
    noise = stage("gaussian", sigma=[low, high], sigma_step=step)
    found, counts = np.unique(drawn(noise, torch.arange(20_000))["sigma"].numpy(), return_counts=True)
    np.testing.assert_allclose(found, low + step * np.arange(steps), atol=1e-12)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_one_option_does_not_change_the_draws_of_others():
    seeds = torch.arange(200)
    base = drawn(stage({"gaussian": 1, "poisson": 1}), seeds)
    other = drawn(stage({"gaussian": 1, "poisson": 1, "film": 0}, {"grey": 1, "chroma": 3}, scale=[2, 5]), seeds)
    for name in ("kind", "sigma", "photons"):
        assert torch.equal(base[name], other[name])


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_same_noise(kind):
    noise = stage(kind, {"independent": 1, "grey": 1, "chroma": 1}, photons=[500, 5000], share=[0.05, 0.2])
    x, seeds = torch.cat([photo_like(60, 50, seed) for seed in range(4)]), torch.arange(4)
    params = drawn(noise, seeds)
    expected = noise.on_canvas(Canvas(x), params, Context(Size(8, 8), seeds, "noise")).pixels
    there = drawn(noise, seeds.cuda())
    made = noise.to("cuda").on_canvas(Canvas(x.cuda()), there, Context(Size(8, 8), seeds.cuda(), "noise")).pixels
    torch.testing.assert_close(made.cpu(), expected, atol=2 / 255, rtol=0)
    assert float((made.cpu() - expected).abs().mean()) < 1e-5
    own = {name: value[:1] for name, value in params.items()}  # a chain of the host: settings on the CPU
    alone = noise.on_image(x[:1].cuda(), own, Context(Size(8, 8), seeds[:1].cuda(), "noise"))
    torch.testing.assert_close(alone.cpu(), expected[:1], atol=2 / 255, rtol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": {"gausian": 1}}, "did you mean 'gaussian'"),
        ({"kinds": {}}, "above 0"),
        ({"kinds": {"film": 1}, "channels": {"grey": 0}}, "above 0"),
        ({"kinds": {"film": 1}, "sigma": [0.2, 0.1]}, r"\[low, high\]"),
        ({"kinds": {"film": 1, "poisson": 1}, "channels": {"covariance": 1}}, "poisson; give them a noise stage"),
        ({"kinds": {"film": 1}, "width": 20}, "width"),
        ({"kinds": {"poisson": 1}, "photons": 0}, "photons"),
    ],
)
def test_options_that_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        parse_options({"type": "noise", **options}, NoiseStageOptions)

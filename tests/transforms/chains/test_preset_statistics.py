"""What presets draw: ``real-esrgan`` against BasicSR's own draws, ``bsrgan`` against the paper's laws.

Distances are Kolmogorov's.  Of ours there are so many draws that their sampling noise does not count; of BasicSR's
10,000 or more of each number, whose noise stays below 0.02 in 99.9 of 100 samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from synthpipe.transforms.chains.stages.blur import KINDS as BLUR_KINDS
from synthpipe.transforms.chains.stages.noise import CHANNELS
from synthpipe.transforms.chains.stages.noise import KINDS as NOISE_KINDS
from synthpipe.transforms.chains.stages.resize import FILTERS
from tests.basicsr_runs import require_basicsr
from tests.transforms.chains.chain_of import chain_of

require_basicsr()

from tests.basicsr_draws import (  # noqa: E402
    DATASET_OPTIONS,
    MODEL_OPTIONS,
    basicsr_draws,
    kernel_draws,
    noise_draws,
    sinc_draws,
)

FARTHEST = 0.03
#: BasicSR's names of kernels, and ours.
OUR_NAMES = {
    "iso": "isotropic",
    "aniso": "anisotropic",
    "generalized_iso": "generalized_isotropic",
    "generalized_aniso": "generalized_anisotropic",
    "plateau_iso": "plateau_isotropic",
    "plateau_aniso": "plateau_anisotropic",
}

Draws = Mapping[str, Mapping[str, np.ndarray]]


def drawn(preset: str, count: int, scale: int = 4) -> dict[str, dict[str, np.ndarray]]:
    """What a chain draws for ``count`` samples: by place, by name."""
    chain = chain_of(preset, scale)
    parts = []
    for start in range(0, count, 50_000):
        seeds = torch.arange(start, min(start + 50_000, count), dtype=torch.int64)
        parts.append(chain.draws({"seed": seeds * 7919 + 1}))
    places = parts[0]

    def column(place: str, name: str) -> np.ndarray:
        return torch.cat([part[place][name] for part in parts]).numpy()

    return {place: {name: column(place, name) for name in params} for place, params in places.items()}


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov's, of two samples."""
    assert min(len(ours), len(theirs)) >= 9_500, (len(ours), len(theirs))
    return float(stats.ks_2samp(ours, theirs).statistic)


def off_law(values: np.ndarray, low: float, high: float) -> float:
    """Kolmogorov's, of a sample and the uniform law."""
    assert len(values) >= 9_500
    return float(stats.kstest(values, stats.uniform(low, high - low).cdf).statistic)


def shares(values: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """How often each was drawn."""
    counts = np.bincount(values, minlength=len(names)) / len(values)
    return {name: float(count) for name, count in zip(names, counts, strict=True) if count}


@pytest.fixture(scope="module")
def ours() -> Draws:
    return drawn("real-esrgan", 380_000)


@pytest.fixture(scope="module")
def theirs() -> Draws:
    return basicsr_draws(10_000)


@pytest.fixture(scope="module")
def their_sincs() -> Draws:
    return sinc_draws(10_000)


ORDERS = pytest.mark.parametrize("number", ["", " 2"], ids=["first", "second"])


@ORDERS
def test_kernels(number: str, ours: Draws, theirs: Draws) -> None:
    blur, reference = ours[f"blur{number}"], theirs[f"blur{number}"]
    option = number.strip()
    applied = blur.get("applied", np.ones(len(blur["kind"]), bool))
    assert abs(applied.mean() - (MODEL_OPTIONS["second_blur_prob"] if number else 1)) < 0.01
    if number:
        assert abs(reference["applied"].mean() - MODEL_OPTIONS["second_blur_prob"]) < 0.02
    sinc = DATASET_OPTIONS[f"sinc_prob{option}"]
    weights = zip(DATASET_OPTIONS[f"kernel_list{option}"], DATASET_OPTIONS[f"kernel_prob{option}"], strict=True)
    law = {"sinc": sinc, **{name: (1 - sinc) * weight for name, weight in weights}}
    found = shares(blur["kind"][applied], BLUR_KINDS)
    assert found.keys() == {OUR_NAMES.get(name, name) for name in law}
    for name, probability in law.items():
        assert abs(found[OUR_NAMES.get(name, name)] - probability) < 0.01
        assert abs((reference["kind"] == name).mean() - probability) < 0.02  # the option means that
    assert distance(blur["size"][applied], reference["size"]) <= FARTHEST


@ORDERS
@pytest.mark.parametrize("kind", list(OUR_NAMES))
def test_shapes_of_kernels(kind: str, number: str, ours: Draws) -> None:
    blur = ours[f"blur{number}"]
    chosen = blur["kind"] == BLUR_KINDS.index(OUR_NAMES[kind])
    reference = kernel_draws(kind, 10_000, second=bool(number))
    names = ["sigma_x", "sigma_y", "beta"] + (["angle"] if kind.endswith("aniso") else [])
    for name in names:
        expected = np.degrees(reference[name]) if name == "angle" else reference[name]
        assert distance(blur[name][chosen], expected) <= FARTHEST, name
    if kind.endswith("aniso"):  # the two widths are drawn apart
        assert abs(np.corrcoef(blur["sigma_x"][chosen], blur["sigma_y"][chosen])[0, 1]) < 0.03


@pytest.mark.parametrize("place", ["blur", "blur 2", "choice/jpeg_last/blur", "choice/jpeg_first/blur"])
def test_sinc_kernels(place: str, ours: Draws, their_sincs: Draws) -> None:
    blur, reference = ours[place], their_sincs[place if place in their_sincs else "last"]
    chosen = blur["kind"] == BLUR_KINDS.index("sinc")
    for name in ("size", "cutoff"):
        assert distance(blur[name][chosen], reference[name]) <= FARTHEST, name
    # Larger kernels may have lower cutoffs, in the first two places alone.
    for large in (False, True):
        mine, yours = blur["cutoff"][chosen & ((blur["size"] >= 13) == large)], reference["cutoff"]
        yours = yours[(reference["size"] >= 13) == large]
        assert float(stats.ks_2samp(mine, yours).statistic) <= FARTHEST
        assert abs(mine.min() - yours.min()) < 0.01


@ORDERS
def test_resizes(number: str, ours: Draws, theirs: Draws) -> None:
    resize, reference = ours[f"resize{number}"], theirs[f"resize{number}"]
    assert distance(resize["factor"], reference["factor"]) <= FARTHEST
    option = number.strip()
    low, high = MODEL_OPTIONS[f"resize_range{option}"]
    up, down, keep = MODEL_OPTIONS[f"resize_prob{option}"]
    factor = resize["factor"]
    for way, probability in ((factor > 1, up), (factor < 1, down), (factor == 1, keep)):
        assert abs(way.mean() - probability) < 0.01
    for way, probability in (("up", up), ("down", down), ("keep", keep)):
        assert abs((reference["way"] == way).mean() - probability) < 0.02
    assert off_law(factor[factor > 1], 1, high) < 0.01
    assert off_law(factor[factor < 1], low, 1) < 0.01


@pytest.mark.parametrize("place", ["resize", "resize 2", "choice/jpeg_last/resize", "choice/jpeg_first/resize"])
def test_filters(place: str, ours: Draws, theirs: Draws) -> None:
    found = shares(ours[place]["filter"], FILTERS)
    reference = theirs[place if place in theirs else "last"]["filter"]
    assert found.keys() == {"area", "bilinear", "bicubic"} == set(reference)
    for name, share in found.items():
        assert abs(share - 1 / 3) < 0.01
        assert abs((reference == name).mean() - 1 / 3) < 0.02


@ORDERS
def test_noise(number: str, ours: Draws, theirs: Draws) -> None:
    noise, reference = ours[f"noise{number}"], theirs[f"noise{number}"]
    option = number.strip()
    probability, grey = MODEL_OPTIONS[f"gaussian_noise_prob{option}"], MODEL_OPTIONS[f"gray_noise_prob{option}"]
    gaussian, theirs_gaussian = noise["kind"] == NOISE_KINDS.index("gaussian"), reference["kind"] == "gaussian"
    assert set(shares(noise["kind"], NOISE_KINDS)) == {"gaussian", "poisson"}
    assert set(shares(noise["channels"], CHANNELS)) == {"independent", "grey"}
    assert abs(gaussian.mean() - probability) < 0.01
    assert abs(theirs_gaussian.mean() - probability) < 0.02
    of_kinds = noise_draws(10_000, second=bool(number))
    levels = {"gaussian": 255 * noise["sigma"][gaussian], "poisson": noise["scale"][~gaussian]}
    for kind, chosen in (("gaussian", gaussian), ("poisson", ~gaussian)):
        assert abs((noise["channels"][chosen] == CHANNELS.index("grey")).mean() - grey) < 0.01
        assert abs(of_kinds[kind]["grey"].mean() - grey) < 0.02
        assert distance(levels[kind], of_kinds[kind]["level"]) <= FARTHEST
        # in ``feed_data`` they are drawn as alone
        fed = reference["level"][reference["kind"] == kind]
        assert stats.ks_2samp(fed, of_kinds[kind]["level"]).pvalue > 1e-4
    assert not noise["photons"].any()  # as many as the image has levels


@pytest.mark.parametrize("place", ["jpeg", "choice/jpeg_last/jpeg", "choice/jpeg_first/jpeg"])
def test_qualities(place: str, ours: Draws, theirs: Draws) -> None:
    reference = theirs["jpeg 2" if place.startswith("choice") else "jpeg"]["quality"]
    assert distance(ours[place]["quality"], reference) <= FARTHEST


def test_the_last_two_in_either_order_with_ringing_or_without(ours: Draws, theirs: Draws) -> None:
    assert abs((ours["choice"]["chosen"] == 1).mean() - 0.5) < 0.01
    assert abs(theirs["last"]["jpeg_first"].mean() - 0.5) < 0.02
    for place in ("choice/jpeg_last/blur", "choice/jpeg_first/blur"):
        assert abs(ours[place]["applied"].mean() - DATASET_OPTIONS["final_sinc_prob"]) < 0.01
    assert abs(theirs["last"]["sinc"].mean() - DATASET_OPTIONS["final_sinc_prob"]) < 0.02


def test_draws_of_places_and_samples_hang_together_in_no_way(ours: Draws) -> None:
    columns = [
        ours["blur"]["size"],
        ours["resize"]["factor"],
        ours["noise"]["sigma"],
        ours["jpeg"]["quality"],
        ours["blur 2"]["size"],
        ours["resize 2"]["factor"],
        ours["noise 2"]["sigma"],
        ours["choice"]["chosen"],
        ours["choice/jpeg_last/jpeg"]["quality"],
    ]
    correlation = np.corrcoef(np.stack(columns)) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.008
    for column in columns:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.008


# BSRGAN


@pytest.fixture(scope="module")
def bsrgan() -> Draws:
    return drawn("bsrgan", 100_000)


#: Where the shuffled stages of each scale stand.
AT_4, AT_2 = "choice/at_once/shuffle", "choice/halved/shuffle"
SCALES = pytest.mark.parametrize(("place", "scale"), [(AT_4, 4), (AT_2, 2)])


def test_bsrgan_halves_one_of_four_first(bsrgan: Draws) -> None:
    assert abs((bsrgan["choice"]["chosen"] == 1).mean() - 0.25) < 0.01
    for name in ("opencv", "antialiased"):
        assert (bsrgan[f"choice/halved/choice/{name}/resize"]["factor"] == 0.5).all()


@SCALES
def test_bsrgan_blurs(place: str, scale: int, bsrgan: Draws) -> None:
    """Round kernels of [0.1, 2.4] and [0.1, 2.8], others of eigenvalues [0.5, 6] and [0.5, 8], at scales 2 and 4."""
    widest, eigenvalue = {2: (2.4, 6), 4: (2.8, 8)}[scale]
    isotropic, anisotropic = bsrgan[f"{place}/blur"], bsrgan[f"{place}/blur 2"]
    for blur, kind in ((isotropic, "isotropic"), (anisotropic, "anisotropic")):
        assert shares(blur["kind"], BLUR_KINDS) == {kind: 1}
        assert "applied" not in blur
        sizes = np.bincount(blur["size"]) / len(blur["size"])
        assert {size: round(float(share), 2) for size, share in enumerate(sizes) if share} == dict.fromkeys(
            range(7, 22, 2), pytest.approx(1 / 8, abs=0.01)
        )
    assert off_law(isotropic["sigma_x"], 0.1, widest) < 0.01
    for name in ("sigma_x", "sigma_y"):
        assert off_law(anisotropic[name] ** 2, 0.5, eigenvalue) < 0.01
    assert off_law(anisotropic["angle"] % 180, 0, 180) < 0.01


@SCALES
def test_bsrgan_reductions(place: str, scale: int, bsrgan: Draws) -> None:
    """A quarter each: nearest, bilinear, bicubic, down and up; a of [1/2, s], s / a uniform."""
    way = bsrgan[f"{place}/choice"]["chosen"]
    direct, down_up, nearest = (way == number for number in range(3))
    last = shares(bsrgan[f"{place}/resize"]["filter"][direct], FILTERS)
    assert abs(direct.mean() - 0.5) < 0.01
    for probability in (down_up.mean(), nearest.mean(), *(share * direct.mean() for share in last.values())):
        assert abs(probability - 0.25) < 0.01
    assert set(last) == {"bilinear", "bicubic"}
    a = bsrgan[f"{place}/choice/down_up/resize"]["factor"]
    assert off_law(scale / a, 1, 2 * scale) < 0.01
    assert off_law(bsrgan[f"{place}/choice/nearest/blur"]["sigma_x"], 0.1, 0.6 * scale) < 0.01


@SCALES
def test_bsrgan_noise_and_jpeg(place: str, scale: int, bsrgan: Draws) -> None:
    noise, jpeg = bsrgan[f"{place}/noise"], bsrgan[f"{place}/jpeg"]
    assert shares(noise["kind"], NOISE_KINDS) == {"gaussian": 1}
    assert "applied" not in noise
    channels = shares(noise["channels"], CHANNELS)
    for name, probability in {"independent": 0.4, "grey": 0.4, "covariance": 0.2}.items():
        assert abs(channels.pop(name) - probability) < 0.01
    assert not channels
    levels = 255 * noise["sigma"]
    np.testing.assert_allclose(levels, levels.round(), atol=1e-6)
    assert Counter(levels.round().astype(int)).keys() == set(range(1, 26))
    assert np.abs(np.bincount(levels.round().astype(int))[1:] / len(levels) - 1 / 25).max() < 0.005
    assert abs(jpeg["applied"].mean() - 0.75) < 0.01
    last = bsrgan["jpeg"]
    assert "applied" not in last
    for quality in (jpeg["quality"], last["quality"]):
        assert np.abs(np.bincount(quality, minlength=96)[30:96] / len(quality) - 1 / 66).max() < 0.003
        assert (quality.min(), quality.max()) == (30, 95)


@SCALES
def test_bsrgan_orders(place: str, scale: int, bsrgan: Draws) -> None:
    """All orders of six alike in which the two parts of the reduction keep theirs."""
    orders = Counter(map(tuple, bsrgan[place]["order"].tolist()))
    assert orders.keys() == {p for p in permutations(range(6)) if p.index(2) < p.index(3)}
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4


def test_bsrgan_x2_is_that_of_the_halved(bsrgan: Draws) -> None:
    alone = drawn("bsrgan-x2", 100, scale=2)
    below = {place.removeprefix("choice/halved/") for place in bsrgan if place.startswith(AT_2)}
    assert alone.keys() == below | {"jpeg"}


def test_bsrgan_nearest_is_the_moved_kernel_of_the_paper() -> None:
    """Kernel moved by (s - 1) / 2 with linear interpolation, convolution, each s-th pixel: section 3.2."""
    from scipy import ndimage

    scale, sigma = 4, 1.7
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stages = [
        {"type": "blur", "kinds": {"isotropic": 1}, "size": 21, "sigma": sigma},
        {"type": "resize", "to": "lr", "filter": "bilinear", "antialias": False},
    ]
    chain = chain_of(stages, scale)
    made: Tensor = chain({"gt": image, "seed": torch.zeros(1, dtype=torch.int64)})["lq"]
    line = np.exp(-((np.arange(-10, 11) / sigma) ** 2) / 2)
    kernel = np.pad(np.outer(line, line) / np.outer(line, line).sum(), 2)
    # A correlation reads at x + k: that which is moved up and left by 1.5 pixels of the kernel reads 1.5 further on.
    moved = ndimage.shift(kernel, (scale - 1) / 2, order=1)
    assert math.isclose(moved.sum(), 1, abs_tol=1e-9)
    filtered = np.stack([ndimage.correlate(channel, moved, mode="mirror") for channel in image[0].double().numpy()])
    inside = (slice(None), slice(3, -3), slice(3, -3))  # the mirror of a moved kernel lies elsewhere
    np.testing.assert_allclose(made[0].numpy()[inside], filtered[:, ::scale, ::scale][inside], atol=1e-5)

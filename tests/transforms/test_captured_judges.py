"""Denoisers and scorers in a CUDA graph: what a graph would refuse, what padding and NaN do, numbers on a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe import checkpoints, registry
from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.noise_level import estimate_sigma
from synthpipe.density.kinds import KindScorer
from synthpipe.density.scorer import DensityScorer
from synthpipe.density.scorer_parts import PartSettings, known_parts
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.captured import CapturedFunction
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.density import DEGRADED_LOGIT, DensityFilter, DensityScore, KindFilter
from tests.capturable import check_capturable
from tests.contracts import perturbed
from tests.tiny_kind_scorer import tiny_kind_scorer
from tests.tiny_scorer import tiny_scorer

DENOISERS = ("blind_spot_small", "flow_prior_small", "map_small", "mmse_small")
SIDE = 72

#: Arguments that make a kind small; a kind that is not here serves with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "plain_denoiser": {"width": 4, "depth": 3},
    "flow_prior": {"width": 4, "depth": 3},
    "map_denoiser": {"width": 4, "depth": 3},
    "blind_spot": {"net": {"type": "dilated", "depth": 2, "width": 4, "hole_width": 4, "head": [8]}, "hole": 1},
}
NETS: tuple[dict[str, Any], ...] = (
    {"type": "dilated", "depth": 2, "width": 4, "hole_width": 4, "head": [8], "residual": True},
    {"type": "rotated", "width": 4, "levels": 2, "head_widths": [8]},
    {"type": "sweeps", "deep": [4, 4], "up": [4], "full": 4, "thin": 4, "head_widths": [8]},
)


def batch_of(count: int, seed: int, side: int = SIDE) -> dict[str, Tensor]:
    """Ramps of different slopes with noise of different levels, white and correlated, rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.2, 0.8, side) * torch.rand(count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, side, side + 1, generator=generator)
    noise[::2] = noise[::2] + noise[::2].roll(1, 3)
    level = torch.linspace(0.002, 0.1, count)[:, None, None, None]
    gt = ramp + level * noise[..., 1:]
    return {"gt": (gt.clamp(0, 1) * 255).round() / 255, "seed": torch.arange(count) + 10 * seed}


def small(model: torch.nn.Module) -> Denoiser:
    """Perturbed, since many a network is the identity at first."""
    model = perturbed(model).float()
    assert isinstance(model, Denoiser)
    return model


def loaded(name: str) -> Denoiser:
    model = checkpoints.load(name)
    assert isinstance(model, Denoiser)
    return model


def shipped_scorer() -> DensityScorer:
    scorer = checkpoints.load("scorer_small")
    assert isinstance(scorer, DensityScorer)
    return scorer


def assert_same_images(result: Tensor, expected: Tensor) -> None:
    """But for rounding to 8 bits, which falls either way where sums are taken in another order."""
    assert_close(result, expected, atol=1.01 / 255, rtol=0, equal_nan=True)
    assert (result.nan_to_num(-1) != expected.nan_to_num(-1)).float().mean() < 0.001


# What a graph would refuse


@pytest.mark.parametrize("name", DENOISERS)
def test_shipped_denoisers(name: str) -> None:
    transform = Denoise(loaded(name), min_sigma=0.01)
    check_capturable(transform, batch_of(3, 1), batch_of(3, 2), atol=1.01 / 255)


@pytest.mark.parametrize("kind", [kind for kind, model in registry._KINDS.items() if issubclass(model, Denoiser)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_denoiser(kind: str, channels: int) -> None:
    model = small(registry.build_model(kind, {**SMALL.get(kind, {}), "channels": channels}))
    check_capturable(Denoise(model, 0.1, strength=0.5), batch_of(2, 1), batch_of(2, 2), atol=1.01 / 255)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net["type"])
def test_every_blind_spot_network(net: dict[str, Any]) -> None:
    model = small(BlindSpotDenoiser(3, net))
    check_capturable(Denoise(model, 0.1), batch_of(2, 1, 40), batch_of(2, 2, 40), atol=1.01 / 255)


@pytest.mark.parametrize("level", ["known", "total", "learned"])
@pytest.mark.parametrize("noise", ["gaussian", "poisson", "signal_dependent", "impulse"])
def test_every_blind_spot(noise: Any, level: Any) -> None:
    if (noise, level) == ("impulse", "total"):
        noise = "gaussian"  # impulse noise has no total
    model = small(BlindSpotDenoiser(3, SMALL["blind_spot"]["net"], noise, level))
    check_capturable(Denoise(model, 0.1), batch_of(2, 1, 40), batch_of(2, 2, 40), atol=1.01 / 255)


@pytest.mark.parametrize(
    "options", [{"tile": 48}, {"tile": 48, "overlap": 2}, {"max_sigma": 0.05}, {"min_sigma": 0.02}]
)
def test_every_way_to_denoise(options: dict[str, Any]) -> None:
    """Tiles side by side and blended, levels that are cut, images that stay."""
    model = small(registry.build_model("plain_denoiser", SMALL["plain_denoiser"]))
    check_capturable(Denoise(model, **options), batch_of(3, 1), batch_of(3, 2), atol=1.01 / 255)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("norm_levels", [(), (0.05,)], ids=["plain", "with norms"])
@pytest.mark.parametrize("channels", [1, 3])
def test_scorers(channels: int, norm_levels: tuple[float, ...], parts: bool) -> None:
    score = DensityScore(tiny_scorer(channels=channels, norm_levels=norm_levels), 5, parts=parts)
    check_capturable(score, batch_of(3, 1), batch_of(3, 2), atol=2e-5)


def test_every_part_that_this_version_knows() -> None:
    dde, levels, norms = {"width": 4, "depth": 3, "outputs": 2, "domains": ["clean", "bad"]}, (0.03, 0.1), (0.05,)
    parts = known_parts(PartSettings(("clean", "bad"), levels, norms))
    scorer = perturbed(DensityScorer(dde, levels, 16, norms, parts)).float()
    assert isinstance(scorer, DensityScorer)
    check_capturable(DensityScore(scorer, 3, parts=True), batch_of(2, 1), batch_of(2, 2), atol=2e-4)


def test_scorers_by_kinds() -> None:
    score = DensityScore(tiny_kind_scorer(), 3, parts=True)
    check_capturable(score, batch_of(2, 1), batch_of(2, 2), atol=2e-3)
    rule = KindFilter({"noise": 0.5, "blur": 0.4})
    score = DensityScore(tiny_kind_scorer(), 2, kinds=("noise", "blur"))
    check_capturable(InTurn(score, rule), batch_of(4, 1), batch_of(4, 2), atol=2e-3)


def test_the_shipped_scorer_by_kinds_which_has_context() -> None:
    scorer = checkpoints.load("scorer_kinds")
    assert isinstance(scorer, KindScorer)
    assert scorer.context
    check_capturable(DensityScore(scorer, 3, parts=True), batch_of(2, 1), batch_of(2, 2), atol=2e-3)


def test_nan_stays_in_its_sample_of_a_scorer_by_kinds() -> None:
    batch = batch_of(3, 1)
    spoilt = {**batch, "gt": batch["gt"].clone()}
    spoilt["gt"][1, 2, 30, 40] = torch.nan
    score = DensityScore(tiny_kind_scorer(), 16, parts=True)
    found, whole = score.compute(spoilt), score.compute(batch)
    for name in (DEGRADED_LOGIT, "p_noise", "p_graphics"):
        assert torch.isnan(found[name]).tolist() == [False, True, False]
        assert_close(found[name][::2], whole[name][::2])
    keep = KindFilter({"noise": 1.0}).compute(found)["keep"]
    assert keep.tolist() == [True, False, True]


def test_the_shipped_scorer() -> None:
    check_capturable(DensityScore(shipped_scorer(), 4, parts=True), batch_of(2, 1), batch_of(2, 2), atol=2e-5)


class InTurn(DeviceTransform):
    """Several transforms as the stage has them in one graph."""

    def __init__(self, *transforms: DeviceTransform) -> None:
        self.transforms = transforms

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        for transform in self.transforms:
            batch = transform.compute(batch)
        return batch

    def to(self, device: torch.device | str) -> InTurn:
        for transform in self.transforms:
            transform.to(device)
        return self


def judges() -> InTurn:
    model = small(registry.build_model("map_denoiser", SMALL["map_denoiser"]))
    return InTurn(Denoise(model), DensityScore(tiny_scorer(), 4), DensityFilter(0.5), DensityFilter(0.4))


def test_denoiser_score_and_filters_in_turn() -> None:
    check_capturable(judges(), batch_of(4, 1), batch_of(4, 2), atol=1.01 / 255)


# The same as apply


@pytest.mark.parametrize("options", [{"min_sigma": 0.03}, {"sigma": 0.05}, {"sigma": 0.05, "min_sigma": 0.03}, {}])
@pytest.mark.parametrize("name", DENOISERS)
def test_compute_denoises_as_apply_does(name: str, options: dict[str, Any]) -> None:
    transform = Denoise(loaded(name), **options)
    batch = batch_of(5, 3)
    expected, found = transform(batch)["gt"], transform.compute(batch)["gt"]
    assert_same_images(found, expected)
    clean = estimate_sigma(batch["gt"]) < options.get("min_sigma", 0)
    assert int(clean.sum()) == (2 if "min_sigma" in options else 0)
    assert torch.equal(found[clean], batch["gt"][clean])  # bit for bit
    assert (found != batch["gt"])[~clean].flatten(1).any(1).sum() >= 3


def test_compute_scores_and_filters_as_apply_does() -> None:
    score = DensityScore(tiny_scorer(), 4, parts=True)
    batch = batch_of(6, 4)
    expected, found = score(batch), score.compute(batch)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    middle = float(found[DEGRADED_LOGIT].median())
    keep = DensityFilter(middle).compute(found)["keep"]
    assert int(keep.sum()) == 3
    kept = DensityFilter(middle)(expected)
    assert torch.equal(kept["seed"], batch["seed"][keep])
    never = {**found, "keep": torch.zeros(6, dtype=torch.bool)}
    assert not DensityFilter(middle).compute(never)["keep"].any()  # dropped once is dropped


@pytest.mark.parametrize("options", [{}, {"sigma": 0.1}, {"min_sigma": 0.01}])
def test_nan_goes_through_and_touches_nobody_else(options: dict[str, Any]) -> None:
    batch = batch_of(3, 5)
    spoilt = {**batch, "gt": batch["gt"].clone()}
    spoilt["gt"][1, 2, 30, 40] = torch.nan
    denoise = Denoise(small(registry.build_model("plain_denoiser", SMALL["plain_denoiser"])), **options)
    found, whole = denoise.compute(spoilt)["gt"], denoise.compute(batch)["gt"]
    assert torch.isnan(found[1]).any()
    assert torch.equal(found[::2], whole[::2])
    score = DensityScore(tiny_scorer(), 16)
    logits = score.compute(spoilt)[DEGRADED_LOGIT]
    assert torch.isnan(logits).tolist() == [False, True, False]
    assert torch.equal(logits[::2], score.compute(batch)[DEGRADED_LOGIT][::2])
    keep = DensityFilter(100.0).compute({**spoilt, DEGRADED_LOGIT: logits})["keep"]
    assert keep.tolist() == [True, False, True]


# On a GPU


def captured(transform: DeviceTransform, key: str) -> CapturedFunction:
    return CapturedFunction(lambda gt, seed: (transform.compute({"gt": gt, "seed": seed})[key],))


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"min_sigma": 0.03}, {"sigma": 0.05}])
@pytest.mark.parametrize("name", DENOISERS)
def test_on_the_gpu_a_graph_denoises_as_apply_does_on_the_cpu(name: str, options: dict[str, Any]) -> None:
    expected = Denoise(loaded(name), **options)
    there = captured(Denoise(loaded(name), **options).to("cuda"), "gt")
    for seed in (1, 2):
        batch = batch_of(4, seed, 160)
        (found,) = there(*(batch[key].cuda() for key in ("gt", "seed")))
        assert_close(found.cpu(), expected(batch)["gt"], atol=1.01 / 255, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("norm_levels", [(), (0.05,)], ids=["plain", "with norms"])
def test_on_the_gpu_a_graph_scores_as_apply_does_on_the_cpu(norm_levels: tuple[float, ...]) -> None:
    expected = DensityScore(tiny_scorer(norm_levels=norm_levels), 6)
    there = captured(DensityScore(tiny_scorer(norm_levels=norm_levels), 6).to("cuda"), DEGRADED_LOGIT)
    for seed in (1, 2):
        batch = batch_of(4, seed)
        (found,) = there(*(batch[key].cuda() for key in ("gt", "seed")))
        # convolutions there may round their factors to 10 bits
        assert_close(found.cpu(), expected(batch)[DEGRADED_LOGIT], atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
def test_on_the_gpu_one_graph_holds_all_judges() -> None:
    there = captured(judges().to("cuda"), "keep")
    for seed in (1, 2):
        batch = batch_of(8, seed)
        (found,) = there(*(batch[key].cuda() for key in ("gt", "seed")))
        logits = judges().compute(batch)[DEGRADED_LOGIT]
        sure = (logits - 0.4).abs() > 0.05
        assert torch.equal(found.cpu()[sure], (logits <= 0.4)[sure])

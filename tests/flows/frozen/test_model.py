"""The frozen DeFlow against the plain one: the same images from the same seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import CLEAN, DeFlow
from synthpipe.flows.draws import GeneratorNoise, SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow, first_convs
from tests.flows.test_deflow import RRDB, SMALL, STATISTICS, generators, images, tiny

VARIANTS = {
    "full": {},
    "rrdb, scale 8": {"scale": 8, "encoder": RRDB},
    "rrdb, scale 4": {"encoder": RRDB, "steps": 2},
    "rrdb, scale 2, no transition": {"scale": 2, "encoder": RRDB, "transition_steps": 0},
    "rrdb, no taps": {"encoder": {**RRDB, "taps": []}},
    "diagonal": {"covariance": "diagonal"},
    "colour, rrdb": {"covariance": "colour", "encoder": RRDB},
    "additive": {"coupling": "additive", "covariance": "colour"},
    "additive, full, two levels": {"coupling": "additive", "levels": 2},
    "normalised": {"normalization": STATISTICS},
    "normalised, clamped": {"normalization": {**STATISTICS, "clamp": True}},
    "noise stays": {"dequantize_output": True, "quant": 32},
    "unconditional": {"unconditional": True, "coupling": "additive"},
    "level": {"coupling": "additive", "covariance": "colour", "level": True},
    "level, corrected": {
        "covariance": "colour",
        "level": True,
        "correction": {"brightness": 3, "levels": 2, "side": 3},
    },
    "corrected": {"correction": {"brightness": 2, "levels": 1, "side": 1}},
}


@pytest.fixture(params=VARIANTS, ids=str)
def model(request: pytest.FixtureRequest) -> DeFlow:
    return tiny(**VARIANTS[request.param])


def test_degrades_as_the_plain_model(model: DeFlow) -> None:
    x = images(3, 20, 28)  # no multiple of 8: padded and cut back
    expected = model.degrade(x, generators(1, 2, 3), 0.7)
    assert_close(FrozenDeFlow(model).degrade(x, generators(1, 2, 3), 0.7), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("variant", ["rrdb, scale 8", "rrdb, scale 4", "rrdb, no taps", "colour, rrdb"])
def test_by_tiles_as_wide_networks_are(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_convs, "_LEAST_FOR_TILES", 1)
    model, x = tiny(**VARIANTS[variant]), images(2, 20, 28)
    frozen = FrozenDeFlow(model)
    assert_close(frozen.degrade(x, generators(1, 2)), model.degrade(x, generators(1, 2)), atol=1e-9, rtol=0)
    x, model = x.float(), model.float()
    assert_close(
        FrozenDeFlow(model).degrade(x, generators(1, 2)), model.degrade(x, generators(1, 2)), atol=1e-4, rtol=0
    )
    assert_close(FrozenDeFlow(model).degrade(x, generators(1, 2), 0.0), x, atol=1e-5, rtol=0)


def test_cleans_as_the_plain_model(model: DeFlow) -> None:
    y = images(2, 16, 24)
    expected = model.clean(y, generators(4, 5), 0.5)
    assert_close(FrozenDeFlow(model).clean(y, generators(4, 5), 0.5), expected, atol=1e-9, rtol=0)


def test_each_purpose_draws_what_the_plain_model_draws_for_it() -> None:
    plain, x = tiny(), images(1)
    asked: dict[int, list[torch.Size]] = {}

    class Asked:
        """Noise that is no :class:`SeededNoise`, whose numbers would be drawn ahead."""

        def __init__(self) -> None:
            self.noise = SeededNoise(torch.tensor([1]))

        def normal(self, like: Tensor, purpose: int) -> Tensor:
            asked.setdefault(purpose, []).append(like.shape)
            return self.noise.normal(like, purpose)

        def uniform(self, like: Tensor, purpose: int) -> Tensor:
            asked.setdefault(purpose, []).append(like.shape)
            return self.noise.uniform(like, purpose)

    noisy = tiny(dequantize_output=True)
    plain.nll(x, torch.tensor([0]), Asked())
    FrozenDeFlow(noisy).degrade_with(x, Asked())
    # The condition's noise and that of dequantisation, each twice under the same number.
    assert asked[0] == [(1, 3, 2, 2)] * 2
    assert asked[3] == [(1, 3, 8, 8)] * 2
    # What is drawn ahead has the shapes that are asked for, or all would be drawn twice.
    ahead = {purpose: (1, *shape) for purpose, shape in FrozenDeFlow(noisy)._drawn_shapes(x).items()}
    assert ahead == {purpose: asked[purpose][0] for purpose in (0, 1, 2)}


def test_in_float32_within_the_promised_tolerance(model: DeFlow) -> None:
    model = model.float()
    x = images(2, 16, 24).float()
    frozen = FrozenDeFlow(model)
    expected = model.degrade(x, generators(1, 2))
    assert_close(frozen.degrade(x, generators(1, 2)), expected, atol=1e-4, rtol=0)


def test_round_trip_in_float32() -> None:
    for variant in ({}, {"encoder": RRDB}, {"coupling": "additive", "covariance": "colour"}):
        x = images(2, 16, 24).float()
        frozen = FrozenDeFlow(tiny(**variant).float())
        assert_close(frozen.degrade(x, generators(1, 2), 0.0), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", [{}, {"coupling": "additive", "covariance": "colour"}])
def test_under_autocast_both_directions_agree(variant: dict) -> None:
    frozen = FrozenDeFlow(tiny(**variant).float())
    x = images(2, 16, 24).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        back = frozen.degrade(x, generators(1, 2), 0.0)
    assert back.dtype == torch.float32
    assert_close(back, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", [{}, {"encoder": RRDB, "scale": 8}, {"coupling": "additive"}])
def test_a_condition_in_bfloat16_leaves_the_round_trip_as_it_is(variant: dict) -> None:
    x = images(2, 16, 24).float()
    model = tiny(**variant).float()
    half = FrozenDeFlow(model, torch.bfloat16)
    assert_close(half.degrade(x, generators(1, 2), 0.0), x, atol=1e-5, rtol=0)
    moved = half.degrade(x, generators(1, 2))
    plain = model.degrade(x, generators(1, 2))
    assert not torch.equal(moved, plain)
    # bfloat16 has 8 bits: far from the sigmas of u, 1 here
    assert float((moved - plain).square().mean().sqrt()) < 0.02 * float((plain - x).square().mean().sqrt())


def test_the_shipped_weights_give_the_same_8_bit_images() -> None:
    model = checkpoints.load("deflow_small")
    assert isinstance(model, DeFlow)
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    plain = model.degrade(x, generators(1, 2))
    frozen = FrozenDeFlow(model).degrade(x, generators(1, 2))
    assert_close(frozen, plain, atol=1e-4, rtol=0)
    levels = [(image.clamp(0, 1) * 255).round() for image in (frozen, plain)]
    assert float((levels[0] != levels[1]).double().mean()) < 0.01


def test_further_draws_share_what_does_not_depend_on_the_shift() -> None:
    model = tiny(encoder=RRDB)
    frozen = FrozenDeFlow(model)
    x = images(2, 16, 16)
    encoded = frozen.encode(x, CLEAN, GeneratorNoise(generators(1, 2)))
    expected = frozen.degrade(x, generators(1, 2))
    shared = GeneratorNoise(generators(1, 2))
    frozen.encode(x, CLEAN, shared)  # takes the condition's draws
    assert_close(frozen.degrade_encoded(encoded, shared), expected)
    again = frozen.degrade_encoded(encoded, shared)
    assert not torch.allclose(again, expected, atol=1e-2)
    assert torch.equal(
        encoded.latents[0], frozen.encode(x, CLEAN, GeneratorNoise(generators(1, 2))).latents[0]
    )  # untouched by draws


def test_seeds_decide_whatever_stands_beside_them() -> None:
    frozen = FrozenDeFlow(tiny(coupling="additive", covariance="colour", dequantize_output=True))
    x = images(3, 16, 16)
    seeds = torch.tensor([5, 2**61 + 1, 7])
    together = frozen.degrade_with(x, SeededNoise(seeds))
    for row in (2, 0, 1):
        alone = frozen.degrade_with(x[row : row + 1], SeededNoise(seeds[row : row + 1]))
        assert_close(alone[0], together[row], atol=1e-12, rtol=0)
    other = frozen.degrade_with(x, SeededNoise(seeds + 1))
    assert float((other - together).abs().mean()) > 1e-3


def test_seeded_noise_has_the_law_of_the_plain_models() -> None:
    model = tiny()
    x = images(1, 16, 16).expand(200, -1, -1, -1)
    seeded = FrozenDeFlow(model).degrade_with(x, SeededNoise(torch.arange(200)))
    plain = model.degrade(x, generators(*range(200)))
    spread, expected = (float((y - y.mean(0)).square().mean().sqrt()) for y in (seeded, plain))
    assert spread == pytest.approx(expected, rel=0.05)
    assert_close(seeded.mean(), plain.mean(), atol=5 * expected / 200**0.5, rtol=0)


def test_strength_for_each_image() -> None:
    frozen = FrozenDeFlow(tiny())
    x = images(2, 16, 16)
    mixed = frozen.degrade(x, generators(1, 2), torch.tensor([0.25, 1.5]))
    for row, strength in enumerate((0.25, 1.5)):
        alone = frozen.degrade(x, generators(1, 2), strength)
        assert_close(mixed[row], alone[row])


def test_later_changes_of_the_model_do_not_reach_it() -> None:
    model = tiny(coupling="additive", covariance="colour", normalization=STATISTICS)
    frozen = FrozenDeFlow(model)
    x = images(1, 16, 16)
    before = frozen.degrade(x, generators(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(frozen.degrade(x, generators(1)), before)


def test_what_cannot_be_frozen_or_degraded_is_refused() -> None:
    with pytest.raises(ShapeError, match="never trained"):
        FrozenDeFlow(DeFlow(scale=4, steps=1, hidden=4, encoder=SMALL))
    frozen = FrozenDeFlow(tiny())
    with pytest.raises(ShapeError, match="expected RGB images"):
        frozen.degrade(torch.zeros(1, 1, 8, 8), generators(1))
    with pytest.raises(ShapeError, match="hold NaN or infinity"):
        frozen.degrade(torch.full((1, 3, 8, 8), float("nan")), generators(1))
    with pytest.raises(ShapeError, match="one generator per image"):
        frozen.degrade(images(2), generators(1))


def _damaged(model: DeFlow) -> DeFlow:
    with torch.no_grad():
        model.shifts[0].mean.fill_(float("inf"))  # type: ignore[union-attr, operator]
    return model


def test_nan_out_is_refused_unless_the_caller_takes_it() -> None:
    frozen = FrozenDeFlow(_damaged(tiny()))
    with pytest.raises(ShapeError, match="the flow gave NaN or infinity"):
        frozen.degrade(images(1), generators(1))
    out: Tensor = frozen.degrade(images(1), generators(1), refuse_nonfinite=False)
    assert not bool(torch.isfinite(out).all())


@pytest.mark.parametrize("covariance", ["full", "colour"])
def test_samples_of_one_image_share_the_first_ones_condition(covariance: str) -> None:
    frozen = FrozenDeFlow(tiny(covariance=covariance, encoder=RRDB, dequantize_output=True))
    x, seeds, strength = images(2, 20, 16), torch.tensor([3, 4]), torch.tensor([0.5, 1.0])
    noises = [SeededNoise(seeds, sample=number) for number in range(3)]
    y = frozen.degrade_samples(x, noises, strength)
    assert y.shape == (6, 3, 20, 16)
    rows = y.unflatten(0, (2, 3))
    assert torch.equal(rows[:, 0], frozen.degrade_with(x, noises[0], strength))
    encoded = frozen.encode(x, CLEAN, noises[0])
    assert torch.equal(rows[:, 2], frozen.degrade_encoded(encoded, noises[2], strength))
    assert not torch.allclose(rows[:, 1], rows[:, 2], atol=1e-2)
    unmoved = frozen.degrade_samples(x, noises, 0.0)
    assert_close(unmoved, x.repeat_interleave(3, 0), atol=0.5 / 255 + 1e-9, rtol=0)  # dequantisation noise stays


@pytest.mark.parametrize("variant", [{}, {"encoder": RRDB}, {"coupling": "additive", "covariance": "colour"}])
def test_moves_to_another_type_as_any_module(variant: dict) -> None:
    x, noise = images(2, 20, 28), SeededNoise(torch.tensor([1, 2]))
    model = tiny(**variant)
    expected = model.degrade(x, noise)
    narrowed = FrozenDeFlow(model).float()
    assert_close(narrowed.degrade(x.float(), noise).double(), expected, atol=1e-4, rtol=0)
    widened = narrowed.double().degrade(x, noise)
    assert widened.dtype == torch.float64
    # the matrices and their inverses were rounded to float32 on the way
    assert_close(widened, expected, atol=1e-4, rtol=0)
    half = FrozenDeFlow(model, torch.bfloat16).float()
    assert_close(half.degrade(x.float(), noise, 0.0), x.float(), atol=1e-5, rtol=0)


def test_takes_no_weights() -> None:
    """What it computes with is not in its ``state_dict``: a mixture of two models would come of it."""
    frozen, other = FrozenDeFlow(tiny()), FrozenDeFlow(tiny())
    for holder, state in ((other, frozen.state_dict()), (nn.Sequential(other), nn.Sequential(frozen).state_dict())):
        with pytest.raises(RuntimeError, match="FrozenDeFlow takes no weights: load them into a DeFlow"):
            holder.load_state_dict(state)

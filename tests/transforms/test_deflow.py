"""The learned degradation as a transform: each sample's noise is its own, and bad input is refused."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from scipy import stats

from synthpipe.errors import ShapeError
from synthpipe.flows import DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.images import downscale_bicubic, quantize_8bit
from synthpipe.seeds import sample_seed
from synthpipe.transforms.deflow import DeFlowDegrade
from tests.capturable import check_capturable


def tiny_deflow(**changes: Any) -> DeFlow:
    options = {"scale": 2, "levels": 2, "steps": 1, "transition_steps": 1, "hidden": 4, **changes}
    model = DeFlow(encoder={"type": "small", "features": 4, "depth": 1}, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model.mark_initialized()
    if model.pile is not None:
        model.pile.see([0.01, 0.02])
    return model


def levelled_deflow() -> DeFlow:
    """Follows a level, and is corrected."""
    correction = {"brightness": 3, "levels": 2, "side": 3}
    model = tiny_deflow(covariance="colour", level=True, correction=correction)
    assert model.correction is not None
    model.correction.maps.add_(0.1 * torch.randn(model.correction.maps.shape))
    return model


@pytest.fixture
def degrade() -> DeFlowDegrade:
    return DeFlowDegrade(tiny_deflow(), scale=2)


def batch_of(count: int, size: int = 16) -> dict:
    gt = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))
    return {"gt": gt, "key": list("abcdef"[:count]), "seed": torch.arange(count) + 10}


def test_a_sample_does_not_depend_on_its_neighbours(degrade: DeFlowDegrade) -> None:
    whole = degrade(batch_of(3))["lq"]
    batch = batch_of(3)
    order = [2, 0]
    part = degrade({"gt": batch["gt"][order], "key": ["c", "a"], "seed": batch["seed"][order]})["lq"]
    torch.testing.assert_close(part, whole[order], atol=1e-5, rtol=0)


def test_the_same_seed_replays_and_another_does_not(degrade: DeFlowDegrade) -> None:
    batch = batch_of(2)
    first, again = degrade(batch)["lq"], degrade(batch)["lq"]
    assert torch.equal(first, again)
    other = degrade({**batch, "seed": batch["seed"] + 1})["lq"]
    assert (other - first).abs().mean() > 0.1


def test_drawing_and_applying_are_apart(degrade: DeFlowDegrade) -> None:
    batch = batch_of(2)
    expected = degrade(batch)["lq"]
    params = degrade.sample_params(batch)
    torch.manual_seed(99)  # global randomness plays no part
    assert torch.equal(degrade.apply(batch, params)["lq"], expected)


def test_strength_zero_is_the_bicubic_image() -> None:
    batch = batch_of(2)
    lq = DeFlowDegrade(tiny_deflow(), scale=2, strength=0.0)(batch)["lq"]
    torch.testing.assert_close(lq, quantize_8bit(downscale_bicubic(batch["gt"], 2)), atol=1e-4, rtol=0)


def test_the_batch_is_left_as_it_was(degrade: DeFlowDegrade) -> None:
    batch = batch_of(2)
    gt, keys = batch["gt"].clone(), set(batch)
    out = degrade(batch)
    assert torch.equal(batch["gt"], gt)
    assert set(batch) == keys
    assert set(out) == keys | {"lq"}
    assert out["lq"].shape == (2, 3, 8, 8)


def test_tiles_that_are_no_multiple_of_the_flow_are_padded(degrade: DeFlowDegrade) -> None:
    assert degrade(batch_of(1, size=18))["lq"].shape == (1, 3, 9, 9)


def test_a_tile_that_becomes_nan_takes_no_other_with_it(degrade: DeFlowDegrade) -> None:
    batch = batch_of(2)
    params = degrade.sample_params(batch)
    expected = degrade(batch)["lq"]
    encode = degrade.frozen.split.encode

    def broken(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The second image's latents lost."""
        kept, split = encode(x)
        return kept, split.index_fill(0, torch.tensor([1]), float("nan"))

    with mock.patch.object(degrade.frozen.split, "encode", broken):
        lq = degrade.apply(batch, params)["lq"]
    torch.testing.assert_close(lq[0], expected[0])
    assert lq[1].isnan().any()


def test_it_can_be_a_graph() -> None:
    one, other = batch_of(3), batch_of(3)
    other = {"gt": other["gt"].flip(0), "seed": other["seed"] + 7}
    tensors = {key: one[key] for key in ("gt", "seed")}
    for degrade in (
        DeFlowDegrade(tiny_deflow(), scale=2),
        DeFlowDegrade(tiny_deflow(), scale=2, strength=(0.2, 1.0), samples=2),
        DeFlowDegrade(levelled_deflow(), scale=2),
        DeFlowDegrade(levelled_deflow(), scale=2, level=(2.0, 5.0), samples=2),
    ):
        check_capturable(degrade, tensors, other, atol=1e-5)


def test_strength_of_a_range_is_drawn_for_each_tile() -> None:
    model = tiny_deflow()
    count = 64
    gt = torch.rand(1, 3, 16, 16).expand(count, -1, -1, -1).contiguous()
    batch = {"gt": gt, "key": [str(n) for n in range(count)], "seed": torch.arange(count)}
    ranged = DeFlowDegrade(model, scale=2, strength=(0.25, 0.75))
    # Between two numbers the latents move linearly, so that each tile is that of some number in the range.
    low, high = (DeFlowDegrade(model, scale=2, strength=number)(batch)["lq"] for number in (0.25, 0.75))
    lq = ranged(batch)["lq"]
    along = ((lq - low) * (high - low)).flatten(1).sum(1) / (high - low).square().flatten(1).sum(1)
    assert along.min() > -0.05
    assert along.max() < 1.05
    assert stats.kstest(along.numpy(), "uniform").pvalue > 0.01
    assert torch.equal(DeFlowDegrade(model, scale=2, strength=[0.25, 0.75])(batch)["lq"], ranged(batch)["lq"])
    same = DeFlowDegrade(model, scale=2, strength=(0.75, 0.75))(batch)["lq"]
    torch.testing.assert_close(same, high, atol=1e-6, rtol=0)


def test_a_level_asked_for_is_that_of_the_flow() -> None:
    model, batch = levelled_deflow(), batch_of(3)
    degrade = DeFlowDegrade(model, scale=2, level=5.1)
    clean = quantize_8bit(downscale_bicubic(batch["gt"], 2))
    expected = degrade.frozen.degrade_with(clean, SeededNoise(batch["seed"], "deflow"), level=0.02)
    torch.testing.assert_close(degrade(batch)["lq"], expected)
    told = degrade.levels(batch["seed"])
    assert told is not None
    assert [row[0] for row in told] == pytest.approx([5.1] * 3)


@pytest.mark.parametrize(("level", "allowed"), [((2.0, 5.0), None), ("pile", {2.55, 5.1}), (None, {2.55, 5.1})])
def test_levels_drawn_are_those_used_and_told(level: Any, allowed: set[float] | None) -> None:
    model, batch = levelled_deflow(), batch_of(6)
    degrade = DeFlowDegrade(model, scale=2, level=level, samples=2)
    told = degrade.levels(batch["seed"])
    assert told is not None
    values = {round(value, 4) for row in told for value in row}
    assert len(values) > 1
    assert values <= allowed if allowed else all(2 <= value < 5 for value in values)
    one = {"gt": batch["gt"][1:2], "seed": batch["seed"][1:2], "key": ["b"]}
    fixed = DeFlowDegrade(model, scale=2, level=told[1][0])(one)["lq"]
    torch.testing.assert_close(degrade(batch)["lq"][2:3], fixed, atol=1e-5, rtol=0)


def test_weights_without_levels_refuse_one() -> None:
    with pytest.raises(ShapeError, match="know no noise level"):
        DeFlowDegrade(tiny_deflow(), scale=2, level=3.0)
    assert DeFlowDegrade(tiny_deflow(), scale=2).levels(torch.arange(2)) is None


def test_samples_of_a_tile_share_its_latents_and_nothing_else() -> None:
    model, batch = tiny_deflow(), batch_of(2)
    one, three = DeFlowDegrade(model, scale=2)(batch), DeFlowDegrade(model, scale=2, samples=3)(batch)
    assert three["lq"].shape == (6, 3, 8, 8)
    assert three["key"] == ["a"] * 3 + ["b"] * 3
    assert three["seed"].tolist() == [10, 10, 10, 11, 11, 11]
    assert torch.equal(three["gt"], batch["gt"].repeat_interleave(3, 0))
    torch.testing.assert_close(three["lq"][::3], one["lq"], atol=1e-6, rtol=0)
    assert (three["lq"][1] - three["lq"][0]).abs().mean() > 0.1
    assert (three["lq"][2] - three["lq"][1]).abs().mean() > 0.1
    # What they share is the noise of the condition: without a shift they are the same.
    still = DeFlowDegrade(model, scale=2, samples=2, strength=0.0)(batch)["lq"]
    assert torch.equal(still[::2], still[1::2])


def test_refusals(degrade: DeFlowDegrade) -> None:
    batch = batch_of(1, size=17)
    with pytest.raises(ShapeError, match="multiples of 2, got 17x17"):
        degrade(batch)
    batch = batch_of(2)
    batch["gt"][1, 0, 0, 0] = float("nan")
    with pytest.raises(ShapeError, match="1 of 2 images hold NaN"):
        degrade(batch)
    untrained = DeFlow(levels=2, scale=2, steps=1, hidden=4, encoder={"type": "small", "features": 4})
    with pytest.raises(ShapeError, match="never trained"):
        DeFlowDegrade(untrained, scale=2)
    with pytest.raises(ShapeError, match="expected a DeFlow, got Identity"):
        DeFlowDegrade(torch.nn.Identity(), scale=2)
    with pytest.raises(ShapeError, match="at least 1, got 0"):
        DeFlowDegrade(tiny_deflow(), scale=0)
    with pytest.raises(ShapeError, match="at least 1, got 2 and 0"):
        DeFlowDegrade(tiny_deflow(), scale=2, samples=0)
    for strength in (-0.1, (0.5, 0.2), (-0.5, 0.2), [0.5], (0.2, 0.5, 1.0), "1", float("nan"), (0.0, float("inf"))):
        with pytest.raises(ShapeError, match="strength must be at least 0"):
            DeFlowDegrade(tiny_deflow(), scale=2, strength=strength)
    with pytest.raises(ShapeError, match="2 images but 1 seeds"):
        DeFlowDegrade(tiny_deflow(), scale=2)({**batch_of(2), "seed": torch.tensor([1])})


def test_sample_seeds_tell_epochs_and_keys_apart() -> None:
    seeds = {sample_seed(s, e, k) for s in range(3) for e in range(3) for k in ("a", "b", "1/a")}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Fixed for ever: a state saved today resumes on another machine and Python (printf 1/2/photo | b2sum -l 64).
    assert sample_seed(1, 2, "photo") == 5971356047176096711

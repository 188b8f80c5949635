"""Noise levels of a pile: what is drawn, what may be asked for, and what the shift makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.errors import ShapeError
from synthpipe.flows.deflow import NOISY, DeFlow
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.flows.pile_levels import AskedLevel, PileLevels
from synthpipe.flows.prior import ColourShift
from tests.flows.test_deflow import generators, images, tiny

#: Of the state before levels, by its own code.
SHIPPED = "a5c9a23fce73d636a59decce561dd205"
LEVELLED: dict[str, Any] = {"coupling": "additive", "covariance": "colour", "level": True}


def of(*levels: float) -> PileLevels:
    pile = PileLevels()
    pile.see(levels)
    return pile


class TestPileLevels:
    def test_draws_the_levels_of_the_images_in_their_proportions(self) -> None:
        drawn = of(0.01, 0.01, 0.01, 0.03).draw(torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
        values, counts = np.unique(drawn.numpy(), return_counts=True)
        assert values == pytest.approx([0.01, 0.03])
        # 33 quantiles of four images: an image's share is known to 1/33.
        assert counts / counts.sum() == pytest.approx([0.75, 0.25], abs=0.1)

    def test_draws_a_wide_pile_by_its_law(self) -> None:
        levels = np.random.default_rng(0).lognormal(-4, 0.5, 500)
        drawn = of(*levels).draw(torch.rand(2000, generator=torch.Generator().manual_seed(1)))
        assert stats.ks_2samp(drawn.numpy(), levels).statistic < 0.06

    def test_counts_from_the_median(self) -> None:
        ratio = of(0.01, 0.02, 0.08).log_ratio(torch.tensor([0.02, 0.04]))
        assert_close(ratio.exp(), torch.tensor([1.0, 2.0]))

    @pytest.mark.parametrize("levels", [[], [0.01, 0.0], [float("nan")]])
    def test_refuses_what_is_no_level(self, levels: list[float]) -> None:
        with pytest.raises(ShapeError, match="above 0"):
            PileLevels().see(levels)


class TestAskedLevel:
    def test_one_number_is_in_units_of_255(self) -> None:
        found = AskedLevel(tiny(**LEVELLED), 5.1).draw(torch.rand(3, dtype=torch.float64))
        assert found is not None
        assert_close(found, torch.full((3,), 0.02, dtype=torch.float64))

    def test_a_range_is_drawn_from_log_uniformly(self) -> None:
        drawn = AskedLevel(tiny(**LEVELLED), (1.0, 4.0)).draw(torch.rand(2000, dtype=torch.float64))
        assert drawn is not None
        logs = np.log2(255 * drawn.numpy())
        assert stats.kstest(logs, "uniform", (0, 2)).pvalue > 1e-3

    @pytest.mark.parametrize("level", [None, "pile"])
    def test_the_pile_is_what_weights_with_levels_draw_from(self, level: Any) -> None:
        drawn = AskedLevel(tiny(**LEVELLED), level).draw(torch.rand(50, dtype=torch.float64))
        assert drawn is not None
        assert set(np.round(drawn.numpy(), 4)) == {0.01, 0.02, 0.04}

    @pytest.mark.parametrize(
        ("level", "ends"), [("pile", (0.01, 0.04)), ((2.55, 5.1), (0.01, 0.02)), (5.1, (0.02, 0.02))]
    )
    def test_the_nearest_of_those_that_can_be_drawn(self, level: Any, ends: tuple[float, float]) -> None:
        asked = AskedLevel(tiny(**LEVELLED), level)
        for near in (0.005, 0.015, 0.3):
            asked.near = near
            drawn = asked.draw(torch.rand(3, dtype=torch.float64))
            assert drawn is not None
            assert drawn.tolist() == pytest.approx([min(max(near, ends[0]), ends[1])] * 3)

    def test_weights_without_levels_refuse_one_and_draw_none(self) -> None:
        with pytest.raises(ShapeError, match="know no noise level"):
            AskedLevel(tiny(), 5.0)
        assert AskedLevel(tiny(), None).draw(torch.rand(2)) is None

    @pytest.mark.parametrize("level", [0, -1.0, (3.0, 2.0), (1.0, 2.0, 3.0), "loud", float("inf")])
    def test_refusals_name_the_value(self, level: Any) -> None:
        with pytest.raises(ShapeError, match="level: expected"):
            AskedLevel(tiny(**LEVELLED), level)


class TestShift:
    def test_without_training_the_noise_is_proportional_to_the_level(self) -> None:
        shift = ColourShift(3, 5, with_level=True).double()
        cond = torch.rand(2, 5, 4, 4, dtype=torch.float64)
        low, high = (shift.variance(cond, torch.float64, torch.tensor([0.0, 0.0]).double() + d) for d in (0.0, 0.5))
        assert_close(high / low, torch.full_like(low, np.exp(1.0)))

    def test_the_density_is_that_of_the_variance_at_the_level(self) -> None:
        shift = ColourShift(2, 4, hidden=4, components=1, with_level=True).double()
        with torch.no_grad():
            for parameter in shift.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
        z, cond = (torch.randn(2, channels, 1, 1, dtype=torch.float64) for channels in (2, 4))
        level = torch.tensor([-0.4, 0.7], dtype=torch.float64)
        clean = shift._mixture(cond, z.dtype)[1][:, 0]
        total = (clean + shift.variance(cond, z.dtype, level)).detach().flatten(1).sqrt().numpy()
        residual = (z - shift.mean).detach().flatten(1).numpy()
        expected = stats.norm.logpdf(residual, scale=total).sum(1)
        assert_close(shift.log_prob_noisy(z, cond, level).detach().numpy(), expected)
        assert not np.allclose(shift.log_prob_noisy(z, cond, level.flip(0)).detach().numpy(), expected)

    def test_clean_density_does_not_know_the_level(self) -> None:
        model, x = tiny(**LEVELLED), images(2)
        clean, noisy = torch.tensor([0, 0]), torch.tensor([1, 1])
        levels = [torch.tensor(level).double() for level in ([0.01, 0.02], [0.03, 0.04])]
        for domain, same in ((clean, True), (noisy, False)):
            a, b = (model.nll(x, domain, generators(1, 2), level=level) for level in levels)
            assert torch.equal(a, b) == same

    def test_a_level_is_needed_and_belongs_to_the_colour_covariance(self) -> None:
        with pytest.raises(ShapeError, match="give the level of each image"):
            tiny(**LEVELLED).nll(images(1), torch.tensor([NOISY]))
        with pytest.raises(ShapeError, match="level needs covariance 'colour'"):
            DeFlow(level=True)


class TestDegrade:
    def test_noise_grows_with_the_level_asked_for(self) -> None:
        model, x = tiny(**LEVELLED), images(2, 16, 16)
        sizes = []
        for level in (0.005, 0.01, 0.02):
            one, other = (model.degrade(x, generators(*seeds), level=level) for seeds in ((1, 2), (3, 4)))
            sizes.append(float((one - other).std()))
        assert sizes[0] < sizes[1] < sizes[2]

    def test_by_default_each_image_has_a_level_of_the_pile(self) -> None:
        model, x = tiny(**LEVELLED), images(1, 16, 16).expand(8, -1, -1, -1)
        seeds = torch.arange(8)
        drawn = model.degrade(x, SeededNoise(seeds, "test"))
        asked = [model.degrade(x, SeededNoise(seeds, "test"), level=level) for level in (0.01, 0.02, 0.04)]
        nearest = torch.stack([(drawn - each).abs().flatten(1).amax(1) for each in asked])
        assert float(nearest.min(0).values.max()) < 1e-9
        assert len(set(nearest.argmin(0).tolist())) > 1

    def test_frozen_samples_take_levels_of_their_own(self) -> None:
        frozen, x, seeds = FrozenDeFlow(tiny(**LEVELLED)), images(2, 16, 16), torch.tensor([3, 4])
        noises = [SeededNoise(seeds, "test", number) for number in range(2)]
        both = frozen.degrade_samples(x, noises, levels=[0.01, torch.tensor([0.03, 0.02])])
        first = frozen.degrade_with(x, noises[0], level=torch.tensor([0.01, 0.01]))
        assert_close(both[::2], first)
        second = frozen.degrade_samples(x, noises, levels=[0.03, torch.tensor([0.03, 0.02])])[1]
        assert_close(both[1], second)

    def test_saved_weights_keep_the_pile_and_others_refuse_a_level(self, tmp_path: Any) -> None:
        model = tiny(**LEVELLED, correction={"brightness": 3, "levels": 2, "side": 3}).float()
        loaded = checkpoints.load(checkpoints.save(tmp_path / "w.safetensors", model), kind="deflow")
        assert isinstance(loaded, DeFlow)
        x = images(1, 16, 16).float()
        assert_close(loaded.degrade(x, generators(5)), model.degrade(x, generators(5)), atol=0, rtol=0)
        assert checkpoints.fingerprint_of(loaded) == checkpoints.fingerprint_of(model)
        with pytest.raises(ShapeError, match="knows none"):
            tiny().degrade(images(1), generators(1), level=0.02)
        with pytest.raises(ShapeError, match="one noise level per image"):
            model.degrade(x, generators(1), level=torch.tensor([0.1, 0.2]))

    def test_shipped_weights_have_the_fingerprint_of_earlier_versions(self) -> None:
        # Streams and tables know weights by it.
        assert checkpoints.fingerprint("deflow_small") == SHIPPED

"""Glow against autograd, closed forms and scipy; numbers of checks are those of reference/flow_prior.md, section 10."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import kstest, norm
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.glow import GlowModelOptions
from synthpipe.errors import ShapeError, TrainingError
from synthpipe.flows import Glow
from synthpipe.flows.actnorm import ActNorm, actnorms_of
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.invertible_conv import InvertibleConv
from tests.contracts import perturbed

TINY: dict[str, Any] = {"levels": 2, "steps": 2, "hidden": 4, "window": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "learned": {},
    "grey": {"channels": 1},
    "reference": {"logit": True, "priors": "standard", "whiten": False},
    "tails": {"priors": "tails"},
    "logit_tails": {"priors": "tails", "logit": True},
    "one_level": {"levels": 1},
}


def moved(std: float = 0.1, **config: Any) -> Glow:
    """A tiny model with every parameter moved, in float64."""
    model = perturbed(Glow(**{**TINY, **config}), std=std)
    assert isinstance(model, Glow)
    return model


def crops(model: Glow, count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, model.channels, model.window, model.window)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def normal_model(mean: float = 0.0, std: float = 1.0, **config: Any) -> Glow:
    """Nothing but rotations and one scale: the density is that of independent ``N(mean, std^2)`` values."""
    model = Glow(**{**TINY, "priors": "standard", **config})
    model.mark_initialized()
    first = next(layer for layer in actnorms_of(model) if layer.bias.shape[0] == 4 * model.channels)
    nn.init.constant_(first.bias, -mean)
    nn.init.constant_(first.logs, -math.log(std))
    return model.double()


class TestLikelihood:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_log_determinant_is_that_of_the_jacobian(self, name: str) -> None:
        """Check 1: within 1e-6 in double precision, both directions."""
        model = moved(**VARIANTS[name])
        x = crops(model, 1)
        latents, logdet = model.encode(x)
        shapes = [latent.shape for latent in latents]

        def flat(v: Tensor) -> Tensor:
            return torch.cat([latent.flatten(1) for latent in model.encode(v)[0]], 1)[0]

        matrix = jacobian(flat, x, vectorize=True).reshape(x.numel(), x.numel())
        assert_close(logdet[0], torch.linalg.slogdet(matrix).logabsdet, atol=1e-6, rtol=0)
        back, logdet_back = model.decode(latents)
        assert_close(back, x, atol=1e-9, rtol=0)
        assert_close(logdet_back, -logdet, atol=1e-9, rtol=0)
        assert [tuple(shape[1:]) for shape in shapes] == model._latent_shapes()

    def test_values_of_a_known_law_cost_what_scipy_says(self) -> None:
        """Bits against the exact probability of each 8-bit level under N(0.5, 0.2^2): an interval of width 1/255."""
        model = normal_model(0.5, 0.2, window=16)
        levels = torch.arange(256).repeat(3).reshape(1, 3, 16, 16)
        bits = model.bits_per_dim(levels.double() / 255, torch.Generator().manual_seed(0))
        edges = (np.arange(257) - 0.5) / 255
        exact = -np.log2(np.diff(norm.cdf(edges, 0.5, 0.2)))
        assert float(bits.detach()) == pytest.approx(exact.mean(), abs=1e-3)
        middle = model.log_prob(levels.double() / 255)  # no noise: the density in the middle of each interval
        expected = 3 * (norm.logpdf(np.arange(256) / 255, 0.5, 0.2) - math.log(255)).sum()
        assert float(middle.detach()) == pytest.approx(expected, rel=1e-7)

    def test_smoothing_is_noise_of_that_spread(self) -> None:
        """Under N(0, 1) the mean log-density falls by half the variance of all the noise: 0.3^2 + 1 / (12 255^2)."""
        plain, smooth = normal_model(window=64), normal_model(window=64, smoothing=0.3)
        x = torch.zeros(8, 3, 64, 64, dtype=torch.float64)
        drop = (plain.log_prob(x) - smooth.log_prob(x, torch.Generator().manual_seed(0))).mean() / (3 * 64 * 64)
        # 98304 squares of normal numbers: relative error sqrt(2 / 98304) = 0.0045 of the half variance
        assert float(drop.detach()) == pytest.approx(0.5 * (0.3**2 + 1 / (12 * 255**2)), rel=0.02)
        assert_close(smooth.log_prob(x), plain.log_prob(x), rtol=1e-6, atol=0)  # the rotations differ

    @settings(max_examples=10)
    @given(seed=st.integers(0, 2**16), name=st.sampled_from(sorted(VARIANTS)))
    def test_an_image_does_not_depend_on_its_neighbours(self, seed: int, name: str) -> None:
        """Check 4, in training mode: less than 1e-4 nats."""
        model = moved(**VARIANTS[name]).train()
        x = crops(model, 3, seed)
        others = torch.cat([x[:1], crops(model, 4, seed + 1) * 5])
        generators = [torch.Generator().manual_seed(i) for i in range(5)]
        first = model.log_prob(x, generators[:3])[0]
        generators = [torch.Generator().manual_seed(i) for i in range(5)]
        assert_close(model.log_prob(others, generators)[0], first, atol=1e-9, rtol=0)

    @pytest.mark.parametrize("logit", [False, True])
    def test_gradient_in_the_image_also_outside_the_range(self, logit: bool) -> None:
        model = moved(logit=logit)
        x = (3 * crops(model) - 1).requires_grad_()
        (gradient,) = torch.autograd.grad(model.log_prob(x).sum(), x)
        step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        change = model.log_prob((x + step).detach()) - model.log_prob((x - step).detach())
        assert_close((gradient * step).sum((1, 2, 3)) * 2, change, rtol=1e-5, atol=1e-9)

    def test_half_precision_is_for_the_networks_alone(self) -> None:
        model = moved().float()
        x = crops(model, 8).float()
        exact = model.bits_per_dim(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.bits_per_dim(x)
        assert mixed.dtype == torch.float32
        assert not torch.equal(mixed, exact)
        assert_close(mixed, exact, atol=0.05, rtol=0)


class TestInverse:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_round_trip_in_float32(self, name: str) -> None:
        """Check 2: less than 1e-4."""
        model = moved(**{"window": 16, "steps": 6, "hidden": 8, **VARIANTS[name]}, std=0.03).float()
        x = crops(model, 8).float()
        back, _ = model.decode(model.encode(x)[0])
        assert float((back - x).detach().abs().max()) < 1e-4

    def test_samples_follow_the_law_of_the_model(self) -> None:
        model = normal_model(0.5, 0.2, window=32)
        samples = model.sample(4, torch.Generator().manual_seed(0))
        assert samples.shape == (4, 3, 32, 32)
        assert kstest(samples.flatten().numpy(), norm(0.5, 0.2).cdf).pvalue > 0.001
        cool = model.sample(4, torch.Generator().manual_seed(0), temperature=0.5)
        assert_close(cool - 0.5, 0.5 * (samples - 0.5))

    def test_a_sample_is_its_generators_alone(self) -> None:
        model = moved()
        three = model.sample(3, [torch.Generator().manual_seed(i) for i in range(3)], 0.7)
        one = model.sample(1, [torch.Generator().manual_seed(2)], 0.7)
        assert_close(one[0], three[2])
        assert not torch.allclose(three[0], three[1])

    def test_a_samples_latents_are_what_it_was_made_of(self) -> None:
        """Encoding gives standard normal numbers back, so the log-likelihood is theirs plus the log-determinant."""
        model = moved(priors="tails")
        x = model.sample(2, torch.Generator().manual_seed(3))
        generator = torch.Generator().manual_seed(3)
        for latent, shape in zip(model.encode(x)[0], model._latent_shapes(), strict=True):
            drawn = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            assert_close(latent, drawn, atol=1e-8, rtol=0)


class TestTraining:
    def test_every_parameter_trains(self) -> None:
        """Check 3: all change in one step, ActNorm included, by an optimizer built before the first batch."""
        for name, changes in VARIANTS.items():
            model = Glow(**{**TINY, **changes})
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
            x = crops(model, 16).float()
            model.initialize(x, torch.Generator().manual_seed(0))
            with torch.no_grad():
                for parameter in model.parameters():  # behind a zero start, the first gradient of a network is zero
                    parameter.add_(0.05 * torch.randn(parameter.shape))
            before = {key: value.detach().clone() for key, value in model.named_parameters()}
            model.bits_per_dim(x, torch.Generator().manual_seed(1)).mean().backward()
            optimizer.step()
            still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
            assert still == [], name

    def test_from_the_zero_start_everything_moves_within_three_steps(self) -> None:
        model = Glow(**TINY)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        x = crops(model, 16).float()
        model.initialize(x)
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        for _ in range(3):
            optimizer.zero_grad()
            model.bits_per_dim(x).mean().backward()
            optimizer.step()
        assert [key for key, value in model.named_parameters() if torch.equal(value, before[key])] == []

    @pytest.mark.parametrize("whiten", [False, True])
    def test_initialisation_gives_every_step_values_of_mean_0_and_spread_1(self, whiten: bool) -> None:
        model = Glow(**{**TINY, "whiten": whiten})
        seen: list[Tensor] = []
        for layer in model.modules():
            if isinstance(layer, ActNorm):
                layer.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        x = crops(model, 64).float()
        x[:, :, 1::2] = 0.9 * x[:, :, ::2] + 0.1 * x[:, :, 1::2]  # neighbours alike
        model.initialize(x)
        assert model.initialized
        for z in seen:
            columns = z.movedim(1, 0).flatten(1)
            assert_close(columns.mean(1), torch.zeros(len(columns)), atol=1e-4, rtol=0)
            assert_close(columns.std(1, unbiased=False), torch.ones(len(columns)), atol=1e-3, rtol=0)

    def test_whitening_leaves_no_correlation(self) -> None:
        """The log-likelihood of correlated normal values is at once that of their own law: no training needed."""
        generator = torch.Generator().manual_seed(0)
        factor = torch.randn(12, 12, generator=generator, dtype=torch.float64) * 0.2
        values = torch.randn(4000, 12, generator=generator, dtype=torch.float64) @ factor.T
        x = torch.nn.functional.pixel_shuffle(values[:, :, None, None], 2)  # (4000, 3, 2, 2)
        model = Glow(channels=3, levels=1, steps=1, hidden=4, window=2, priors="standard").double()
        model.initialize(x)
        covariance = factor @ factor.T
        entropy = 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * covariance).logabsdet + 12 * math.log(255)
        # 78 estimated numbers cost 78 / (2 * 4000) nats; whitening holds back the smallest directions (1e-4)
        assert float(-model.log_prob(x).mean().detach()) == pytest.approx(float(entropy), abs=0.15)

    def test_initialisation_happens_once(self) -> None:
        model = Glow(**TINY)
        with pytest.raises(TrainingError, match="used before it was initialised"):
            model.eval().log_prob(crops(model).float())
        model.initialize(crops(model, 16).float())
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.initialize(5 * crops(model, 16, 1).float())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class TestWindows:
    def test_one_window_is_the_crop(self) -> None:
        model = moved()
        x = crops(model, 3)
        generators = [torch.Generator().manual_seed(i) for i in range(3)]
        assert_close(model.window_log_prob(x), model.log_prob(x) / x[0].numel())
        assert model.window_log_prob(x, generators).shape == (3,)

    def test_windows_side_by_side_count_alike(self) -> None:
        model = moved()
        parts = crops(model, 6)
        whole = torch.cat([torch.cat(list(parts[:3]), 2), torch.cat(list(parts[3:]), 2)], 1)[None]  # (1, 3, 8, 12)
        assert_close(model.window_log_prob(whole)[0], model.log_prob(parts).mean() / parts[0].numel())

    def test_places_are_drawn_evenly_and_for_each_image(self) -> None:
        """A ramp shows where its windows lay: the mean under N(0, 1) is a known function of the corner."""
        model = normal_model()
        ramp = torch.arange(7.0, dtype=torch.float64).expand(3, 7, 7).contiguous()
        generators = [torch.Generator().manual_seed(i) for i in range(400)]
        values = model.window_log_prob(ramp.expand(400, -1, -1, -1), generators).detach()
        by_corner = [float(norm.logpdf(np.arange(corner, corner + 4)).mean()) - math.log(255) for corner in range(4)]
        nearest = (values[:, None] - torch.tensor(by_corner)).abs().argmin(1)
        counts = torch.bincount(nearest, minlength=4)
        assert counts.sum() == 400
        assert int(counts.min()) > 100 - 4 * math.sqrt(400 * 0.25 * 0.75)  # four standard deviations

    def test_a_weight_means_the_same_for_any_crop(self) -> None:
        """Check 14: the ratio of the norms of data and prior gradient, for crops of one and of four windows."""
        model = moved(window=16, levels=2, hidden=8)
        generator = torch.Generator().manual_seed(0)
        smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 5, 5, generator=generator), 32, mode="bicubic")
        clean = smooth.double()
        noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        ratios = []
        for side in (16, 32):
            x = noisy[..., :side, :side].clone().requires_grad_()
            data = (x - clean[..., :side, :side]).square().mean()
            (by_data,) = torch.autograd.grad(data, x)
            bits = -model.window_log_prob(x, torch.Generator().manual_seed(1)).mean() / math.log(2)
            (by_prior,) = torch.autograd.grad(bits, x)
            ratios.append(float(by_prior.norm() / by_data.norm()))
        assert ratios[1] == pytest.approx(ratios[0], rel=0.1)

    def test_small_images_are_refused(self) -> None:
        model = moved()
        with pytest.raises(ShapeError, match=r"\(B, 3, 4, 4\) or larger, got torch.float64 \(1, 3, 3, 9\)"):
            model.window_log_prob(torch.zeros(1, 3, 3, 9, dtype=torch.float64))


class TestTheModel:
    def test_reference_has_the_published_number_of_parameters(self) -> None:
        """Check 13: 6,373,056 numbers that do something.

        Our 1x1 convolutions hold their triangular factors in square matrices, with a diagonal of their own; our last
        convolutions have a gain for each channel (Glow, section 3.3) that the published code lacks.
        """
        model = Glow(**GlowModelOptions(preset="reference").arguments())
        assert model._latent_shapes() == [(6, 16, 16), (12, 8, 8), (48, 4, 4)]
        assert model.config["steps"] == 32
        total = sum(parameter.numel() for parameter in model.parameters())
        convs = [layer for layer in model.modules() if isinstance(layer, InvertibleConv)]
        unused = sum(len(conv.log_s) ** 2 + len(conv.log_s) for conv in convs)
        gains = sum(value.numel() for name, value in model.named_parameters() if name.endswith("out.logs"))
        assert (len(convs), gains) == (96, 2688)
        assert total - unused - gains == 6_373_056

    @pytest.mark.parametrize("name", VARIANTS)
    def test_weights_come_back(self, tmp_path: Path, name: str) -> None:
        model = moved(**VARIANTS[name], smoothing=0.01).float()
        loaded = checkpoints.load(checkpoints.save(tmp_path / "w.safetensors", model), kind="glow")
        assert isinstance(loaded, Glow)
        assert loaded.config == model.config
        assert Glow(**loaded.config).config == model.config
        x = crops(model).float()
        assert torch.equal(loaded.log_prob(x), model.eval().log_prob(x))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channels": 2}, "channels=2"),
            ({"steps": 0}, "steps=0"),
            ({"window": 6}, r"multiple of 4 \(2 \*\* levels\), got 6"),
            ({"priors": "none"}, "got 'none'"),
            ({"smoothing": -1.0}, "got -1.0"),
        ],
    )
    def test_arguments_that_do_not_fit(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            Glow(**{**TINY, **changes})

    def test_noise_from_seeds_is_each_images_own(self) -> None:
        model, seeds = moved(smoothing=0.1), torch.tensor([5, 6])
        x = torch.rand(2, 3, 10, 10).double()
        for likelihood, images in ((model.log_prob, x[:, :, :4, :4]), (model.window_log_prob, x)):
            together = likelihood(images, SeededNoise(seeds))  # type: ignore[operator]
            alone = likelihood(images[1:], SeededNoise(seeds[1:]))  # type: ignore[operator]
            assert_close(alone[0], together[1], atol=1e-8, rtol=0)
            assert not torch.equal(likelihood(images, SeededNoise(seeds + 1)), together)  # type: ignore[operator]

    def test_images_that_do_not_fit(self) -> None:
        model = moved()
        with pytest.raises(ShapeError, match=r"expected floating-point crops \(B, 3, 4, 4\), got .* window_log_prob"):
            model.log_prob(torch.zeros(1, 3, 8, 8))
        with pytest.raises(ShapeError, match=r"torch.uint8"):
            model.log_prob(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
        with pytest.raises(ShapeError, match=r"\(3, 4, 4\)"):
            model.log_prob(torch.zeros(3, 4, 4))
        with pytest.raises(ShapeError, match="1 of 2 images hold NaN"):
            model.log_prob(torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), math.nan)]))
        with pytest.raises(ShapeError, match="one generator per image, 2, got 1"):
            model.log_prob(torch.zeros(2, 3, 4, 4), [torch.Generator()])


@pytest.fixture(scope="module")
def shipped() -> Glow:
    """The weights that come with the package."""
    model = checkpoints.load("glow_small", kind="glow")
    assert isinstance(model, Glow)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def pictures(shared: Path) -> Tensor:
    """``(3, 3, 256, 256)`` from the Kodak set."""
    paths = sorted((shared / "data" / "clean_test").glob("kodim*"))[:3]
    arrays = [np.asarray(Image.open(path).convert("RGB"))[128:384, 128:384] for path in paths]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255


class TestShippedWeights:
    """Checks 2, 5 and 6 on photographs: ``glow_small`` on windows of three Kodak pictures that it never saw."""

    @staticmethod
    def bits(model: Glow, pictures: Tensor) -> float:
        """Mean over 12 windows of each picture."""
        windows = pictures.unfold(2, 32, 64).unfold(3, 32, 85)[:, :, :, :3]  # (3, 3, 4, 3, 32, 32)
        windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return float(model.bits_per_dim(windows, torch.Generator().manual_seed(0)).mean())

    def test_noise_costs_more_than_pictures_and_chance_more_than_noise(self, shipped: Glow, pictures: Tensor) -> None:
        generator = torch.Generator().manual_seed(1)
        clean = self.bits(shipped, pictures)
        noisy = self.bits(shipped, pictures + 25 / 255 * torch.randn(pictures.shape, generator=generator))
        uniform = self.bits(shipped, torch.rand(pictures.shape, generator=generator).mul(255).round() / 255)
        assert 2 < clean < 4.4
        assert noisy > clean + 2
        assert uniform > noisy + 2

    def test_its_bias_towards_smooth_pictures(self, shipped: Glow, pictures: Tensor) -> None:
        """A blurred picture is likelier than the sharp one: why a prior used by its mode smooths too much."""
        blurred = torch.from_numpy(gaussian_filter(pictures.numpy(), (0, 0, 2, 2)))
        clean, constant = self.bits(shipped, pictures), self.bits(shipped, torch.full_like(pictures, 128 / 255))
        assert self.bits(shipped, (blurred * 255).round() / 255) < clean - 1
        assert constant < clean - 1

    def test_round_trip(self, shipped: Glow, pictures: Tensor) -> None:
        windows = pictures[:, :, :32, :32]
        back, logdet_back = shipped.decode(shipped.encode(windows)[0])
        assert float((back - windows).abs().max()) < 1e-4
        assert_close(logdet_back, -shipped.encode(windows)[1], atol=0.1, rtol=0)  # of thousands of nats, in float32

    def test_samples_look_like_pictures(self, shipped: Glow) -> None:
        """Within the range, and neighbours alike, as far as a small flow gets."""
        samples = shipped.sample(32, torch.Generator().manual_seed(0), temperature=0.7)
        assert float(((samples > -0.1) & (samples < 1.1)).float().mean()) > 0.95
        centred = samples - samples.mean((2, 3), keepdim=True)
        correlation = (centred[..., 1:] * centred[..., :-1]).mean() / centred.square().mean()
        assert float(correlation) > 0.8

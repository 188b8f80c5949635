"""The whole DeFlow, tiny: the flow battery, its likelihood by brute force, and the laws of what it samples."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.config.deflow import DeFlowModelOptions
from synthpipe.errors import ShapeError, TrainingError
from synthpipe.flows.base import FlowLayer
from synthpipe.flows.deflow import CLEAN, NOISY, DeFlow, bits_per_dim
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.prior import ColourShift
from synthpipe.images import downscale_bicubic, pad_to_multiple
from tests.contracts import check_flow_layer, perturbed

SMALL = {"type": "small", "features": 4, "depth": 1}
RRDB = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 2, "taps": [0, 1]}
STATISTICS = {
    "clean_mean": [114.0, 111.0, 103.0],
    "clean_std": [60.0, 57.0, 60.0],
    "noisy_mean": [121.0, 116.0, 105.0],
    "noisy_std": [54.0, 52.0, 55.0],
    "lr_clean_mean": [114.0, 111.0, 103.0],
    "lr_clean_std": [53.0, 51.0, 54.0],
    "lr_noisy_mean": [121.0, 116.0, 105.0],
    "lr_noisy_std": [51.0, 49.0, 52.0],
}
QUIET = {"condition_noise": 0.0, "quant": 2**40}


def tiny(**changes) -> DeFlow:
    """A small network in float64, every parameter away from its start."""
    options = {"scale": 4, "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": SMALL, **changes}
    torch.manual_seed(0)  # of the initial weights
    model = perturbed(DeFlow(**options), std=0.02).eval()
    with torch.no_grad():  # means of u that no statistical test takes for 0
        for shift in model.shifts:
            shift.mean += torch.linspace(-1, 1, len(shift.mean), dtype=torch.float64)[:, None, None]
        if model.pile is not None:
            model.pile.see([0.01, 0.02, 0.04])
        if model.correction is not None:
            for values in (model.correction.maps, model.correction.filters):
                values += 0.1 * torch.randn(values.shape)
            model.correction.levels.copy_(torch.linspace(-0.5, 0.5, len(model.correction.levels)))
    return model


def images(size: int, height: int = 8, width: int = 8, seed: int = 0) -> Tensor:
    """8-bit images in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size, 3, height, width), generator=generator).double() / 255


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def flat(latents: Sequence[Tensor]) -> Tensor:
    return torch.cat([z.flatten(1) for z in latents], 1)


class WholeFlow(FlowLayer):
    """Encode and decode of a DeFlow under a fixed reduced image, so that it can join the battery."""

    def __init__(self, model: DeFlow, lr: Tensor) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList([model.encoder, model.levels, model.split])  # all but the shifts
        self.model = [model]
        self.lr = lr

    def _features(self, x: Tensor) -> list[Tensor]:
        return self.model[0].features(self.lr[: len(x)].to(x.dtype))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latents, logdet = self.model[0].encode(x, self._features(x))
        self.shapes = [z.shape[1:] for z in latents]
        return flat(latents), logdet

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts = z.split([shape.numel() for shape in self.shapes], 1)
        latents = [part.reshape(len(z), *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return self.model[0].decode(latents, self._features(z))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale": 8, "encoder": RRDB, "hidden": 16},
        {"encoder": RRDB, "hidden": 16, "steps": 2, "transition_steps": 0},
        {"levels": 2, "scale": 2, "scale_eps": 0.1},
    ],
    ids=["small", "rrdb_x8", "rrdb_x4", "two_levels"],
)
def test_battery(changes: dict) -> None:
    model = tiny(**changes)
    lr = torch.rand(1, 3, 8 // model.scale, 8 // model.scale, dtype=torch.float64).expand(2, -1, -1, -1)
    check_flow_layer(WholeFlow(model, lr), images(2))


def test_battery_of_the_small_preset() -> None:
    model = perturbed(DeFlow(**DeFlowModelOptions(preset="small").arguments()), std=0.01)
    lr = torch.rand(1, 3, 2, 2, dtype=torch.float64).expand(2, -1, -1, -1)
    check_flow_layer(WholeFlow(model, lr), images(2))


@pytest.mark.parametrize(
    ("levels", "height", "width", "shapes"),
    [(2, 8, 12, [(6, 4, 6), (24, 2, 3)]), (3, 8, 16, [(6, 4, 8), (96, 1, 2)]), (4, 16, 16, [(6, 8, 8), (384, 1, 1)])],
)
def test_latents_hold_every_dimension(levels: int, height: int, width: int, shapes: list) -> None:
    model = tiny(levels=levels)
    latents, _ = model.encode(
        images(1, height, width), model.features(downscale_bicubic(images(1, height, width), model.scale))
    )
    assert [tuple(z.shape[1:]) for z in latents] == shapes
    assert sum(z[0].numel() for z in latents) == 3 * height * width


def brute_force_log_prob(model: DeFlow, x: Tensor, domain: int, features: list[Tensor]) -> float:
    """Change of variables with the dense Jacobian of the whole map and scipy's normal density."""

    def encode(v: Tensor) -> Tensor:
        return flat(model.encode(v, features)[0])[0]

    matrix = jacobian(encode, x).reshape(x.numel(), x.numel())
    total = torch.linalg.slogdet(matrix).logabsdet.item()
    latents, _ = model.encode(x, features)
    for z, shift, cond in zip(latents, model.shifts, (features[0], features[-1]), strict=True):
        positions = z.shape[2] * z.shape[3]
        zero = torch.zeros_like(z)
        draws = z.new_zeros(len(z), z.shape[1] + shift.extra_draws, *z.shape[2:])
        spread = jacobian(lambda eps: shift.draw_clean(eps, cond), draws).reshape(z.numel(), -1).numpy()  # noqa: B023
        mean, covariance = np.zeros(z.numel()), spread @ spread.T
        if domain == NOISY:  # u = mu + G eps, with G read off the map itself
            mean = shift.shift(zero, cond).detach().numpy().ravel()
            gain = jacobian(lambda eps: shift.shift(eps, cond), zero).reshape(z.numel(), z.numel()).numpy()  # noqa: B023
            covariance = covariance + gain @ gain.T
        assert positions * z.shape[1] == len(mean)
        total += multivariate_normal(mean, covariance).logpdf(z.detach().numpy().ravel())
    return total


@pytest.mark.parametrize("covariance", ["full", "diagonal", "colour"])
@pytest.mark.parametrize("coupling", ["affine", "additive"])
@pytest.mark.parametrize("domain", [CLEAN, NOISY])
def test_log_prob_by_brute_force(covariance: str, coupling: str, domain: int) -> None:
    model, x = tiny(covariance=covariance, coupling=coupling), images(1)
    if covariance == "colour":  # one component, for which the law is normal; mixtures are tested in test_prior.py
        model.shifts = nn.ModuleList(
            perturbed(ColourShift(len(shift.mean), 7, components=1), std=0.1) for shift in model.shifts
        )
    features = model.features(downscale_bicubic(x, 4))
    ours = model.log_prob(x, torch.tensor([domain]), features)
    assert ours.item() == pytest.approx(brute_force_log_prob(model, x, domain, features), abs=1e-8)


class TestNll:
    def test_is_log_prob_given_the_own_reduced_image(self) -> None:
        model, x, domain = tiny(**QUIET), images(2), torch.tensor([0, 1])
        reduced = (downscale_bicubic(x, 4).clamp(0, 1) * 255).round() / 255
        expected = -model.log_prob(x, domain, model.features(reduced))
        assert_close(model.nll(x, domain), expected, atol=1e-8, rtol=0)

    def test_normalisation_is_part_of_the_density(self) -> None:
        """The noisy image is mapped by y' = gain y + offset: density times gain, once per pixel and channel."""
        model, x = tiny(**QUIET, normalization=STATISTICS), images(1)
        clean, noisy = (torch.tensor(STATISTICS[f"{d}_std"], dtype=torch.float64) for d in ("clean", "noisy"))
        means = [torch.tensor(STATISTICS[f"{d}_mean"], dtype=torch.float64) / 255 for d in ("clean", "noisy")]
        gain = (clean / noisy)[:, None, None]
        mapped = (x - means[1][:, None, None]) * gain + means[0][:, None, None]
        lr = (downscale_bicubic(x, 4).clamp(0, 1) * 255).round() / 255
        lr_gain = torch.tensor([53 / 51, 51 / 49, 54 / 52], dtype=torch.float64)[:, None, None]
        lr = (lr - means[1][:, None, None]) * lr_gain + means[0][:, None, None]
        log_prob = brute_force_log_prob(model, mapped, NOISY, model.features(lr)) + 64 * gain.log().sum().item()
        assert model.nll(x, torch.tensor([NOISY])).item() == pytest.approx(-log_prob, abs=1e-6)

    def test_clean_images_are_left_alone_by_normalisation(self) -> None:
        plain, mapped = tiny(**QUIET), tiny(**QUIET, normalization=STATISTICS)
        x, domain = images(2), torch.tensor([CLEAN, CLEAN])
        assert_close(mapped.nll(x, domain), plain.nll(x, domain), atol=1e-8, rtol=0)

    def test_same_seed_same_noise(self) -> None:
        model, x, domain = tiny(), images(2), torch.tensor([0, 1])
        first, again, other = (model.nll(x, domain, *generators(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_noise_of_an_image_is_its_generators_own(self) -> None:
        model, x, domain = tiny(), images(2), torch.tensor([0, 1])
        together = model.nll(x, domain, generators(5, 6))
        assert_close(model.nll(x[1:], domain[1:], generators(6))[0], together[1], atol=1e-8, rtol=0)
        with pytest.raises(ShapeError, match="one generator per image, 2, got 1"):
            model.nll(x, domain, generators(5))

    def test_seeded_noise_of_an_image_is_its_seeds_own(self) -> None:
        model, x, domain, seeds = tiny(), images(2), torch.tensor([0, 1]), torch.tensor([5, 6])
        together = model.nll(x, domain, SeededNoise(seeds))
        assert_close(model.nll(x[1:], domain[1:], SeededNoise(seeds[1:]))[0], together[1], atol=1e-8, rtol=0)
        assert not torch.equal(model.nll(x, domain, SeededNoise(seeds + 1)), together)

    def test_values_are_looked_at_where_asked(self) -> None:
        model, x = tiny(), images(2)
        broken, strange = x / 0, torch.tensor([0, 2])
        with pytest.raises(ShapeError, match="NaN"):
            model.nll(broken, torch.tensor([0, 1]))
        with pytest.raises(ShapeError, match=r"domains must be 0 .*got \[0, 2\]"):
            model.nll(x, strange)
        assert model.nll(broken, torch.tensor([0, 1]), check_values=False).isnan().all()
        assert model.nll(x, strange, check_values=False).isfinite().all()
        with pytest.raises(ShapeError, match="RGB images"):
            model.nll(x[0], strange, check_values=False)

    def test_dequantisation_noise_has_the_asked_width(self) -> None:
        """A flow that is linear in x sees noise of variance 1 / (12 quant^2): read it off the encoded image."""
        model, seen = tiny(quant=32, condition_noise=0.0), []
        model.levels[0].layers[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
        x = images(1, 64, 64)
        model.nll(x, torch.tensor([0]), *generators(3))
        noise = seen[0] - x
        assert noise.abs().max() <= 0.5 / 32
        assert noise.var().item() == pytest.approx(1 / (12 * 32**2), rel=0.05)
        assert noise.mean().item() == pytest.approx(0, abs=5 / (32 * math.sqrt(12 * noise.numel())))

    @pytest.mark.parametrize("encoder", [SMALL, RRDB])
    @pytest.mark.parametrize("covariance", ["full", "diagonal", "colour"])
    @pytest.mark.parametrize("coupling", ["affine", "additive"])
    def test_every_parameter_trains(self, encoder: dict, covariance: str, coupling: str) -> None:
        model = tiny(encoder=encoder, covariance=covariance, coupling=coupling, hidden=8).train()
        model.nll(images(4), torch.tensor([0, 1, 0, 1])).sum().backward()
        idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
        assert idle == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())

    def test_no_parameter_is_left_out_of_a_clean_batch(self) -> None:
        """Data-parallel training waits for every gradient, also when a rank drew only clean images."""
        model = tiny().train()
        model.nll(images(2), torch.tensor([0, 0])).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    @pytest.mark.parametrize(("init", "trains"), [(0.0, False), (1.0, True)])
    def test_covariance_trains_unless_it_starts_at_the_published_zero(self, init: float, trains: bool) -> None:
        model = DeFlow(scale=4, steps=1, transition_steps=1, hidden=4, encoder=SMALL, covariance_init=init).double()
        x, domain = images(4, 16, 16), torch.tensor([0, 1, 0, 1])
        model.initialize(x, domain)
        start = [shift.factor.detach().clone() for shift in model.shifts]
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(4):
            optimiser.zero_grad()
            model.nll(x, domain).sum().backward()
            for shift in model.shifts:
                assert bool(shift.factor.grad.abs().max() > 0) is trains
            optimiser.step()
        for shift, before in zip(model.shifts, start, strict=True):
            assert bool((shift.factor - before).abs().max() > 1e-3) is trains

    def test_a_few_steps_lower_it(self) -> None:
        model = DeFlow(scale=4, steps=1, transition_steps=1, hidden=4, encoder=SMALL)
        x, domain = images(8, 16, 16).float() * 0.1 + 0.4, torch.tensor([0, 1] * 4)
        model.initialize(x, domain)
        optimiser, values = torch.optim.Adam(model.parameters(), lr=1e-2), []
        for _ in range(30):
            optimiser.zero_grad()
            loss = model.nll(x, domain, *generators(0)).mean()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        assert values[-1] < values[0] - 50

    @pytest.mark.parametrize(
        ("x", "domain", "message"),
        [
            (torch.full((1, 3, 8, 8), torch.nan), torch.tensor([0]), "1 of 1 images hold NaN"),
            (torch.zeros(1, 3, 12, 8), torch.tensor([0]), "multiples of 8 .*, got 12x8"),
            (torch.zeros(2, 3, 8, 8), torch.tensor([0]), "one domain per image"),
            (torch.zeros(1, 1, 8, 8), torch.tensor([0]), "expected RGB images"),
            (torch.zeros(1, 3, 8, 8), torch.tensor([2]), r"0 \(clean\) or 1 \(noisy\), got \[2\]"),
        ],
    )
    def test_refuses(self, x: Tensor, domain: Tensor, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            tiny().nll(x.double(), domain)


class TestBitsPerDim:
    @pytest.mark.parametrize("quant", [32, 256])
    def test_uniform_density_costs_the_bits_of_a_level(self, quant: int) -> None:
        # density 1 on [0, 1]: 0 nats
        assert bits_per_dim(torch.zeros(1), (3, 4, 4), quant).item() == pytest.approx(math.log2(quant))

    def test_point_mass_within_one_level_costs_nothing(self) -> None:
        # all mass in one dequantisation cell: density quant in each of the 48 dimensions
        nll = torch.tensor([-48 * math.log(256)], dtype=torch.float64)
        assert bits_per_dim(nll, (7, 3, 4, 4), 256).item() == pytest.approx(0, abs=1e-12)

    def test_against_the_unit_that_the_reference_prints(self) -> None:
        """It divides by ln 2 H W and adds 5 bits per pixel, not per value: 3 bits/dim - 10."""
        nll, height, width = -1234.5, 16, 8
        printed = (nll + math.log(32) * height * width) / (math.log(2) * height * width)
        ours = bits_per_dim(torch.tensor([nll], dtype=torch.float64), (1, 3, height, width), 32).item()
        assert ours == pytest.approx((printed + 10) / 3)

    def test_model_uses_its_own_quantisation(self) -> None:
        assert tiny(quant=32).bits_per_dim(torch.zeros(2), (3, 8, 8)).tolist() == pytest.approx([5.0, 5.0])


class TestInitialisation:
    @staticmethod
    def fresh() -> DeFlow:
        return DeFlow(scale=4, steps=1, transition_steps=1, hidden=4, encoder=SMALL)

    def test_untrained_model_refuses_to_run_in_eval_mode(self) -> None:
        with pytest.raises(TrainingError, match="before it was initialised"):
            self.fresh().eval().degrade(images(1).float(), generators(0))

    def test_first_batch_standardises_what_enters_the_first_step(self) -> None:
        model, x = self.fresh(), images(16, 16, 16).float()
        assert not model.initialized
        model.eval().initialize(x, torch.tensor([0, 1] * 8), *generators(0))
        assert model.initialized
        assert not model.training
        squeezed = torch.nn.functional.pixel_unshuffle(x, 2)
        bias = model.levels[0].layers[1].bias.flatten()
        assert_close(bias, -squeezed.mean((0, 2, 3)), atol=1e-3, rtol=0)  # up to dequantisation noise

    def test_state_carries_over_and_never_initialises_again(self) -> None:
        model = self.fresh()
        model.initialize(images(4).float(), torch.tensor([0, 1, 0, 1]))
        loaded = self.fresh()
        loaded.load_state_dict(model.state_dict())
        assert loaded.initialized
        loaded.train().initialize(0.2 * images(4, seed=1).float(), torch.tensor([0, 1, 0, 1]))
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
        assert copy.deepcopy(model).initialized

    def test_saved_and_loaded_model_gives_the_same_images(self, tmp_path: Path) -> None:
        model = self.fresh()
        model.initialize(images(4).float(), torch.tensor([0, 1, 0, 1]))
        loaded = checkpoints.load(checkpoints.save(tmp_path / "m.safetensors", model), kind="deflow")
        x = images(1).float()
        assert torch.equal(loaded.degrade(x, generators(1)), model.eval().degrade(x, generators(1)))

    def test_config_rebuilds_the_same_network(self) -> None:
        model = tiny(encoder=RRDB, covariance="colour", coupling="additive", normalization=STATISTICS)
        config = json.loads(json.dumps(model.config))
        again = DeFlow(**config)
        assert again.config == config
        assert {n: v.shape for n, v in again.state_dict().items()} == {
            n: v.shape for n, v in model.state_dict().items()
        }


def test_whitening_happens_once_and_only_where_asked() -> None:
    torch.manual_seed(0)
    options = {"scale": 4, "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": SMALL}
    x, domain = images(8, 16, 16), torch.tensor([0, 1] * 4)
    plain, white = (DeFlow(**options, whiten=whiten).double() for whiten in (False, True))
    seen: list[Tensor] = []
    for model in (plain, white):
        conv = model.levels[0].layers[2]
        before = conv.log_s.detach().clone()
        model.initialize(x, domain, *generators(0))
        assert bool((conv.log_s != before).any()) is model.config["whiten"]
        hook = conv.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
        model.nll(x, domain, *generators(0))
        hook.remove()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.initialize(x * 0.5, domain, *generators(1))
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    rough, smooth = (torch.linalg.cond(z.movedim(1, 0).flatten(1).cov()).item() for z in seen)
    assert smooth < 1.1
    assert rough > 1.5


class TestDegrade:
    def test_depends_on_neither_batch_mates_nor_order(self) -> None:
        model, x = tiny(), images(3)
        together = model.degrade(x, generators(10, 11, 12))
        turned = model.degrade(x.flip(0), generators(12, 11, 10)).flip(0)
        assert_close(turned, together, atol=1e-10, rtol=0)
        for i in range(3):
            alone = model.degrade(x[i : i + 1], generators(10 + i))
            assert_close(alone[0], together[i], atol=1e-10, rtol=0)

    def test_seed_decides(self) -> None:
        model, x = tiny(), images(1)
        first, again, other = (model.degrade(x, generators(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert (first - other).abs().max() > 1e-3

    def test_input_is_not_edited(self) -> None:
        x = images(1)
        kept = x.clone()
        tiny(dequantize_output=True).degrade(x, generators(0))
        assert torch.equal(x, kept)

    @settings(deadline=None, max_examples=15, derandomize=True)
    @given(
        height=st.integers(1, 19), width=st.integers(1, 19), seed=st.integers(0, 99), scale=st.sampled_from([2, 4, 8])
    )
    def test_zero_strength_is_the_identity_at_any_size(self, height: int, width: int, seed: int, scale: int) -> None:
        x = images(2, height, width, seed)
        y = tiny(scale=scale).degrade(x, generators(seed, seed + 1), strength=0)
        assert_close(y, x, atol=1e-8, rtol=0)

    @pytest.mark.parametrize(("height", "width"), [(13, 10), (4, 20), (1, 1)])
    def test_other_sizes_are_padded_by_mirroring_and_cut_back(self, height: int, width: int) -> None:
        model, x = tiny(), images(1, height, width)
        y = model.degrade(x, generators(5))
        assert y.shape == x.shape
        padded = model.degrade(pad_to_multiple(x, 8), generators(5))
        assert_close(y, padded[..., :height, :width], atol=1e-12, rtol=0)

    def test_latents_move_by_u_with_the_trained_law(self) -> None:
        """Encode the degraded image under the clean image's features: the difference is u ~ N(mu, A A^T)."""
        model, count = tiny(condition_noise=0.0), 600
        x = images(count)
        features = model.features((downscale_bicubic(x, 4).clamp(0, 1) * 255).round() / 255)
        y = model.degrade(x, generators(*range(count)))
        before, _ = model.encode(x, features)
        after, _ = model.encode(y, features)
        for z_clean, z_noisy, shift in zip(before, after, model.shifts, strict=True):
            u = (z_noisy - z_clean).detach().movedim(1, 0).flatten(1)  # (C, samples)
            covariance = (shift.factor @ shift.factor.T).detach()
            spread = covariance.diagonal().max()
            samples = u.shape[1]
            assert_close(u.mean(1), shift.mean.detach().flatten(), atol=(5 * (spread / samples).sqrt()).item(), rtol=0)
            assert_close(u.cov(), covariance, atol=(6 * spread * (2 / samples) ** 0.5).item(), rtol=0)

    def test_strength_scales_u(self) -> None:
        model, x = tiny(condition_noise=0.0), images(1)
        features = model.features((downscale_bicubic(x, 4).clamp(0, 1) * 255).round() / 255)
        start = flat(model.encode(x, features)[0])
        full, half = (
            flat(model.encode(model.degrade(x, generators(4), strength=s), features)[0]) - start for s in (1.0, 0.5)
        )
        assert_close(half, 0.5 * full, atol=1e-8, rtol=0)

    def test_dequantisation_noise_stays_only_when_asked(self) -> None:
        x = images(1, 64, 64)
        y = tiny(quant=32, dequantize_output=True).degrade(x, generators(2), strength=0)
        assert (y - x).std().item() == pytest.approx(1 / (32 * math.sqrt(12)), rel=0.05)
        assert (y - x).abs().max() <= 0.5 / 32 + 1e-9

    def test_output_has_the_noisy_domains_statistics(self) -> None:
        """At strength 0 a normalised model only maps colours: from the clean mean and spread to the noisy ones."""
        model = tiny(normalization=STATISTICS)
        mean, std = (
            torch.tensor(STATISTICS[f"clean_{part}"])[:, None, None].double() / 255 for part in ("mean", "std")
        )
        y = model.degrade((mean + std).expand(3, 8, 8)[None], generators(0), strength=0)
        expected = torch.tensor([121.0 + 54, 116 + 52, 105 + 55], dtype=torch.float64) / 255
        assert_close(y[0, :, 4, 4], expected, atol=1e-9, rtol=0)

    def test_nan_in_is_refused(self) -> None:
        x = images(2)
        x[1, 0, 0, 0] = torch.nan
        with pytest.raises(ShapeError, match=r"DeFlow.degrade: 1 of 2 images hold NaN"):
            tiny().degrade(x, generators(0, 1))

    def test_nan_out_is_refused(self) -> None:
        model = tiny()
        with torch.no_grad():
            model.levels[2].layers[1].logs.fill_(-1e4)  # inverse overflows
        with pytest.raises(ShapeError, match="the flow gave NaN or infinity"):
            model.degrade(images(1), generators(0))

    def test_an_image_that_fails_leaves_the_others_alone(self) -> None:
        model, x = tiny(), images(2)
        expected = model.degrade(x[:1], generators(0))
        model.levels[2].register_forward_hook(
            lambda _m, _i, out: (
                torch.where(torch.tensor([False, True])[:, None, None, None], torch.inf, out[0]),
                out[1],
            )
        )
        y = model.degrade(x, generators(0, 1), refuse_nonfinite=False)
        assert_close(y[:1], expected, atol=1e-10, rtol=0)
        assert not torch.isfinite(y[1]).any()

    def test_one_generator_per_image(self) -> None:
        with pytest.raises(ShapeError, match="one generator per image, 2, got 1"):
            tiny().degrade(images(2), generators(0))

    def test_under_autocast_both_directions_agree(self) -> None:
        model, x = tiny().float(), images(2).float()
        exact = model.degrade(x, generators(0, 1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same = model.degrade(x, generators(0, 1), strength=0)
            noisy = model.degrade(x, generators(0, 1))
            nll = model.nll(x, torch.tensor([0, 1]), *generators(0))
        assert same.dtype == noisy.dtype == nll.dtype == torch.float32
        assert_close(same, x, atol=1e-4, rtol=0)
        assert_close(noisy, exact, atol=0.1, rtol=0.1)
        assert_close(nll, model.nll(x, torch.tensor([0, 1]), *generators(0)), atol=10, rtol=0.05)


class TestCleanAndSample:
    def test_clean_at_zero_temperature_is_the_posterior_mean(self) -> None:
        """(I + S)^-1 (z - mu), solved densely, in the latents of the noisy image."""
        model, y = tiny(condition_noise=0.0), images(2)
        features = model.features((downscale_bicubic(y, 4).clamp(0, 1) * 255).round() / 255)
        cleaned, _ = model.encode(model.clean(y, generators(0, 1), temperature=0), features)
        noisy, _ = model.encode(y, features)
        for z_clean, z_noisy, shift in zip(cleaned, noisy, model.shifts, strict=True):
            total = torch.eye(z_noisy.shape[1], dtype=torch.float64) + shift.factor @ shift.factor.T
            expected = torch.linalg.solve(total, (z_noisy - shift.mean).flatten(2))
            assert_close(z_clean.flatten(2), expected, atol=1e-8, rtol=0)

    def test_clean_depends_on_no_batch_mates(self) -> None:
        model, y = tiny(), images(2)
        together = model.clean(y, generators(3, 4))
        assert_close(model.clean(y[1:], generators(4))[0], together[1], atol=1e-10, rtol=0)

    @pytest.mark.parametrize("domain", [CLEAN, NOISY])
    def test_samples_have_the_domains_law(self, domain: int) -> None:
        model, count = tiny(condition_noise=0.0), 600
        lr = torch.rand(1, 3, 2, 2, dtype=torch.float64).expand(count, -1, -1, -1)
        x = model.sample(lr, domain, generators(*range(count)))
        assert x.shape == (count, 3, 8, 8)
        latents, _ = model.encode(x, model.features(lr))
        for z, shift in zip(latents, model.shifts, strict=True):
            values = z.detach().movedim(1, 0).flatten(1)
            identity = torch.eye(len(values), dtype=torch.float64)
            covariance = identity + domain * (shift.factor @ shift.factor.T).detach()
            mean = domain * shift.mean.detach().flatten()
            spread = covariance.diagonal().max()
            assert_close(values.mean(1), mean, atol=(5 * (spread / values.shape[1]).sqrt()).item(), rtol=0)
            assert_close(values.cov(), covariance, atol=(6 * spread * (2 / values.shape[1]) ** 0.5).item(), rtol=0)

    def test_sample_refuses_sizes_that_no_latent_has(self) -> None:
        with pytest.raises(ShapeError, match="multiples of 8"):
            tiny().sample(torch.rand(1, 3, 3, 2, dtype=torch.float64), CLEAN, generators(0))

    def test_one_generator_for_several_samples_is_refused(self) -> None:
        """It would give all of them the same noise."""
        with pytest.raises(ShapeError, match="one generator per image, 2, got 1"):
            tiny().sample(torch.rand(2, 3, 2, 2, dtype=torch.float64), CLEAN, generators(0))


class TestCondition:
    def test_unconditional_model_ignores_the_reduced_image(self) -> None:
        model = tiny(unconditional=True)
        first, second = (model.features(images(1, 2, 2, seed)) for seed in (0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_condition_noise_has_the_asked_strength(self) -> None:
        model, seen = tiny(condition_noise=0.03), []
        model.encoder.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
        x = images(1, 256, 256)
        model.degrade(x, generators(0))
        noise = seen[0] - (downscale_bicubic(x, 4).clamp(0, 1) * 255).round() / 255
        assert noise.std().item() == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"type": "vgg"}}, r"one of \['rrdb', 'small'\], got 'vgg'"),
        ({"covariance": "none"}, "'full', 'diagonal' or 'colour', got 'none'"),
        ({"coupling": "none"}, "'affine' or 'additive', got 'none'"),
        ({"scale": 3}, "scale must be 2, 4, 8 or 16, got 3"),
        ({"levels": 1}, "levels must be at least 2, got 1"),
        ({"normalization": {**STATISTICS, "noisy_std": [0.0, 1.0, 1.0]}}, "standard deviations above 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tiny(**changes)


def test_modules_can_still_be_visited() -> None:
    """``nn.Module.apply`` must reach every part; a part of ours must not take its name for something else."""
    visited: list[type] = []
    tiny(normalization=STATISTICS).apply(lambda module: visited.append(type(module)))
    assert DeFlow in visited

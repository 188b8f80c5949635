"""Every flow layer against the shared battery, and what is special to each."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError, TrainingError
from synthpipe.flows.actnorm import ActNorm, actnorms_of
from synthpipe.flows.base import FlowLayer, Sequential
from synthpipe.flows.coupling import AffineCoupling, ConditionalCoupling
from synthpipe.flows.invertible_conv import InvertibleConv
from synthpipe.flows.reshape import SplitPrior, Squeeze
from tests.contracts import check_flow_layer, perturbed

FEATURES = 5  # the first three are the colour


class SplitAsLayer(FlowLayer):
    """The split with its two outputs side by side, so that it can join the battery."""

    def __init__(self, channels: int, additive: bool = False) -> None:
        super().__init__()
        self.split = SplitPrior(channels, additive)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, eps, logdet = self.split(x)
        return torch.cat([kept, eps], 1), logdet

    def inverse(self, z: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.split.inverse(z[:, : self.split.kept], z[:, self.split.kept :])


def coupling(channels: int, scale_eps: float = 0.001, additive: bool = False) -> ConditionalCoupling:
    return ConditionalCoupling(channels, cond_channels=FEATURES, hidden=4, scale_eps=scale_eps, additive=additive)


def step(channels: int) -> Sequential:
    return Sequential(ActNorm(channels), InvertibleConv(channels), coupling(channels))


LAYERS = {
    "actnorm": ActNorm,
    "invertible_conv": InvertibleConv,
    "coupling": coupling,
    "additive_coupling": lambda channels: coupling(channels, additive=True),
    "affine_coupling": lambda channels: AffineCoupling(channels, hidden=4),
    "split": SplitAsLayer,
    "additive_split": lambda channels: SplitAsLayer(channels, additive=True),
    "step": step,
    "two_steps": lambda channels: Sequential(step(channels), step(channels)),
}


def batch(channels: int, height: int, width: int, seed: int = 0, size: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, channels, height, width, generator=generator, dtype=torch.float64)
    return x, torch.randn(size, FEATURES, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", [2, 3, 6])
@pytest.mark.parametrize("name", LAYERS)
def test_battery(name: str, channels: int) -> None:
    check_flow_layer(perturbed(LAYERS[name](channels)), *batch(channels, 2, 3))


def test_battery_squeeze() -> None:
    layer = perturbed(Sequential(Squeeze(), ActNorm(12)))
    check_flow_layer(layer, torch.randn(2, 3, 2, 4, dtype=torch.float64))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    name=st.sampled_from(sorted(LAYERS)),
    channels=st.integers(2, 9),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    std=st.floats(0.01, 0.3),
)
def test_inverse_undoes_forward(name: str, channels: int, height: int, width: int, seed: int, std: float) -> None:
    layer = perturbed(LAYERS[name](channels), seed=seed, std=std)
    x, cond = batch(channels, height, width, seed)
    z, logdet = layer(x, cond)
    back, logdet_back = layer.inverse(z, cond)
    assert_close(back, x, atol=1e-7, rtol=1e-7)
    assert_close(logdet_back, -logdet, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_images_do_not_see_each_other(name: str) -> None:
    layer = perturbed(LAYERS[name](4))
    x, cond = batch(4, 3, 3, size=3)
    z, logdet = layer(x, cond)
    for i in range(3):
        alone, logdet_alone = layer(x[i : i + 1], cond[i : i + 1])
        assert_close(alone[0], z[i], atol=1e-12, rtol=0)
        assert_close(logdet_alone[0], logdet[i], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_maps_stay_in_float32_under_autocast(name: str) -> None:
    layer = perturbed(LAYERS[name](4)).float()
    x, cond = (t.float() for t in batch(4, 3, 3))
    exact, logdet_exact = layer(x, cond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, logdet = layer(x, cond)
        back, _ = layer.inverse(z, cond)
    assert z.dtype == back.dtype == logdet.dtype == torch.float32
    assert_close(back, x, atol=1e-4, rtol=1e-4)  # both directions use the same rounded scales and shifts
    assert_close(z, exact, atol=0.1, rtol=0.1)
    assert_close(logdet, logdet_exact, atol=0.5, rtol=0.05)


def test_sequential_inverts_in_reverse_order() -> None:
    first, second = perturbed(ActNorm(2), seed=1), perturbed(InvertibleConv(2), seed=2)
    x, _ = batch(2, 1, 1)
    z, logdet = Sequential(first, second)(x)
    middle, logdet_first = first(x)
    expected, logdet_second = second(middle)
    assert torch.equal(z, expected)
    assert_close(logdet, logdet_first + logdet_second)


class TestActNorm:
    def test_equation(self) -> None:
        layer = perturbed(ActNorm(1), std=0)
        with torch.no_grad():
            layer.bias.fill_(2.0)
            layer.logs.fill_(0.5)
        z, logdet = layer(torch.full((1, 1, 2, 3), 1.0, dtype=torch.float64))
        assert_close(z, torch.full_like(z, 3.0 * 1.6487212707001282))  # (1 + 2) * e^0.5
        assert logdet.item() == pytest.approx(2 * 3 * 0.5)

    def test_first_training_batch_comes_out_standardised(self) -> None:
        x = 5 + 3 * torch.randn(8, 4, 6, 6)
        z, _ = ActNorm(4)(x)
        assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
        assert_close(z.std((0, 2, 3), correction=0), torch.ones(4), atol=1e-5, rtol=0)

    def test_second_batch_changes_nothing(self) -> None:
        layer = ActNorm(2)
        layer(torch.randn(4, 2, 3, 3))
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        layer(7 + torch.randn(4, 2, 3, 3))
        assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())

    def test_loaded_layer_never_initialises_again(self) -> None:
        trained = ActNorm(2)
        trained(torch.randn(4, 2, 3, 3))
        fresh = ActNorm(2)
        fresh.load_state_dict(trained.state_dict())
        x = 9 + torch.randn(4, 2, 3, 3)
        assert fresh.training
        assert torch.equal(fresh(x)[0], trained(x)[0])
        assert torch.equal(fresh.bias, trained.bias)

    def test_loading_an_untrained_state_asks_for_initialisation_again(self) -> None:
        layer, untrained = ActNorm(2), ActNorm(2)
        layer(torch.randn(4, 2, 3, 3))
        layer.load_state_dict(untrained.state_dict())
        with pytest.raises(TrainingError, match="before it was initialised"):
            layer.eval()(torch.randn(1, 2, 3, 3))

    def test_all_zero_bias_is_no_reason_to_initialise_again(self) -> None:
        # The reference takes an all-zero bias for "not initialised yet".
        layer = ActNorm(2)
        layer.mark_initialized()
        layer(3 + torch.randn(4, 2, 3, 3))
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))

    def test_uninitialised_layer_refuses_eval_mode_and_inverse(self) -> None:
        with pytest.raises(TrainingError, match="before it was initialised"):
            ActNorm(2).eval()(torch.randn(1, 2, 3, 3))
        with pytest.raises(TrainingError, match="before it was initialised"):
            ActNorm(2).inverse(torch.randn(1, 2, 3, 3))

    def test_constant_channel_stays_finite(self) -> None:
        layer = ActNorm(2)
        z, logdet = layer(torch.ones(2, 2, 3, 3))
        assert torch.isfinite(z).all()
        assert torch.isfinite(logdet).all()
        assert layer.logs.max().item() == pytest.approx(13.8155, abs=1e-3)  # ln 1e6

    def test_hidden_layers_are_found(self) -> None:
        assert len(list(actnorms_of(coupling(4)))) == 4


class TestInvertibleConv:
    def test_starts_as_a_rotation(self) -> None:
        layer = InvertibleConv(5)
        basis = torch.eye(5).reshape(5, 5, 1, 1)
        weight = layer(basis)[0].reshape(5, 5)
        assert_close(weight @ weight.T, torch.eye(5), atol=1e-5, rtol=0)

    def test_logdet_is_that_of_the_dense_matrix(self) -> None:
        layer = perturbed(InvertibleConv(6), std=0.3)
        z, logdet = layer(torch.eye(6, dtype=torch.float64).reshape(6, 6, 1, 1))
        assert_close(logdet[0], torch.linalg.slogdet(z.reshape(6, 6)).logabsdet)

    def test_entries_outside_the_triangles_have_no_effect(self) -> None:
        layer = perturbed(InvertibleConv(4))
        x, _ = batch(4, 2, 2)
        before = layer(x)[0]
        with torch.no_grad():
            layer.lower += torch.ones(4, 4).triu()
            layer.upper += torch.ones(4, 4).tril()
        assert torch.equal(layer(x)[0], before)

    def test_generator_decides(self) -> None:
        first, second, third = (InvertibleConv(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first.lower, second.lower)
        assert not torch.equal(first.lower, third.lower)


def test_whitening_gives_unit_covariance() -> None:
    conv, (x, _) = InvertibleConv(4).double(), batch(4, 20, 20)
    mixing = torch.tensor([[1, 0, 0, 0], [2, 1, 0, 0], [0, 1, 0.5, 0], [1, 1, 1, 1]], dtype=torch.float64)
    mixed = torch.einsum("ij,bjhw->bihw", mixing, x)
    assert torch.linalg.cond(mixed.movedim(1, 0).flatten(1).cov()) > 50
    conv.whiten(mixed)
    # the smallest direction is short by the 1e-4 of the mean variance that keeps empty ones finite
    assert_close(conv(mixed)[0].movedim(1, 0).flatten(1).cov(), torch.eye(4).double(), atol=0.02, rtol=0)
    check_flow_layer(conv, mixed[:, :, :2, :3])


class TestCoupling:
    def test_scale_at_the_start(self) -> None:
        # sigmoid(2) + 0.001 twice for the second half, once for the first.
        layer = perturbed(coupling(4), std=0)
        x, cond = batch(4, 2, 2)
        z, logdet = layer(x, cond)
        scale = 0.8807970779778823 + 0.001
        assert_close(z[:, :2], x[:, :2] / scale)
        assert_close(z[:, 2:], x[:, 2:] / scale**2)
        assert logdet[0].item() == pytest.approx(-(8 * 2 + 8) * torch.tensor(scale).log().item(), rel=1e-6)

    def test_shifts_are_even_channels_and_scales_odd_ones(self) -> None:
        """The published order: with biases (t, raw, t, raw) all scales are equal and all shifts too."""
        layer, (x, _) = perturbed(coupling(2), std=0), batch(2, 2, 2)
        with torch.no_grad():
            layer.cond_net.out.conv.bias.copy_(torch.tensor([0.3, -1.0, 0.3, -1.0]))
            layer.self_net.out.conv.bias.copy_(torch.tensor([-0.2, 0.5]))
        z, _ = layer(x, torch.zeros(2, FEATURES, 2, 2, dtype=torch.float64))
        s1, s2 = (1 / (1 + math.exp(-raw - 2)) + 0.001 for raw in (0.5, -1.0))
        assert_close(z[:, 0], x[:, 0] / s2 - 0.3)
        assert_close(z[:, 1], (x[:, 1] / s1 + 0.2) / s2 - 0.3)

    @pytest.mark.parametrize("scale_eps", [0.001, 0.1])
    def test_inverse_never_blows_up_and_forward_is_bounded(self, scale_eps: float) -> None:
        layer = perturbed(coupling(4, scale_eps), std=5.0)  # raw scales far into both ends of the sigmoid
        x, cond = batch(4, 3, 3)
        gain = torch.autograd.functional.jacobian(lambda v: layer.inverse(v, cond)[0].sum(0), x)
        diagonal = gain.reshape(36, 2, 36)[:, 0].diagonal().abs()
        assert diagonal.max() <= (1 + scale_eps) ** 2
        assert diagonal.min() >= scale_eps**2

    def test_reads_the_condition(self) -> None:
        layer = perturbed(coupling(4))
        x, cond = batch(4, 3, 3)
        assert not torch.allclose(layer(x, cond)[0], layer(x, cond + 1)[0])

    def test_additive_scales_follow_the_colour_alone(self) -> None:
        """The Jacobian's diagonal changes with the colour, neither with the other features nor with the latent."""
        layer = perturbed(coupling(4, additive=True))
        x, cond = batch(4, 2, 2, size=1)

        def scales(x: Tensor, cond: Tensor) -> Tensor:
            return torch.autograd.functional.jacobian(lambda v: layer.inverse(v, cond)[0], x).reshape(16, 16).diagonal()

        base, texture, colour = scales(x, cond), cond.clone(), cond.clone()
        texture[:, 3:] *= 3
        colour[:, :3] *= 3
        assert_close(scales(x, texture), base)
        assert_close(scales(5 * x, cond), base)
        assert not torch.allclose(scales(x, colour), base)

    def test_needs_the_condition(self) -> None:
        with pytest.raises(ShapeError, match="needs conditioning features"):
            coupling(4)(torch.randn(1, 4, 2, 2))


class TestSqueeze:
    def test_channel_order(self) -> None:
        x = torch.arange(8.0).reshape(1, 2, 2, 2)  # channel 0 holds 0 1 / 2 3, channel 1 holds 4 5 / 6 7
        z, logdet = Squeeze()(x)
        assert z.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert logdet.tolist() == [0]

    def test_rows_before_columns(self) -> None:
        image = torch.arange(16.0).reshape(1, 1, 4, 4)
        z, _ = Squeeze()(image)
        assert z[0, 1].tolist() == [[1, 3], [9, 11]]  # 2 * row + column = 1: even rows, odd columns
        assert z[0, 2].tolist() == [[4, 6], [12, 14]]

    def test_odd_size_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="must be even, got 3x4"):
            Squeeze()(torch.zeros(1, 1, 3, 4))


def test_split_standardises_by_the_kept_half() -> None:
    split = SplitPrior(2).double()
    with torch.no_grad():
        split.net.conv.bias.copy_(torch.tensor([0.5, 0.25]))  # mean, log-scale
        split.net.logs.fill_(0.1)  # times exp(0.3)
    x = torch.tensor([[[[7.0]], [[3.0]]]], dtype=torch.float64)
    kept, eps, logdet = split(x)
    gain = 1.3498588075760032
    assert kept.item() == 7.0
    assert eps.item() == pytest.approx((3 - 0.5 * gain) / torch.tensor(0.25 * gain).exp().item(), rel=1e-6)
    assert logdet.item() == pytest.approx(-0.25 * gain)

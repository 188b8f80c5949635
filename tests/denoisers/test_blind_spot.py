"""Blind-spot networks and their denoiser: exact zeros, counts of the paper, posterior means that limits determine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from synthpipe import checkpoints
from synthpipe.denoisers.blind_spot import BlindSpotDenoiser
from synthpipe.denoisers.blind_spot_nets.base import BlindSpotNet
from synthpipe.denoisers.blind_spot_nets.dilated import DilatedNet, HoleConv
from synthpipe.denoisers.pixel_shuffle import denoise_by_stride
from synthpipe.errors import ShapeError
from tests.blind_spot_contract import check_blind_spot_net, check_reach, leak
from tests.denoiser_contract import check_denoiser


def small(depth: int = 3, residual: bool = False) -> DilatedNet:
    return DilatedNet(2, 3, depth=depth, width=3, hole_width=2, head=(4, 3), residual=residual)


class Leaky(DilatedNet):
    """One dilation too small by one."""

    place = 1

    def dilation(self, place: int, hole: int) -> int:
        return super().dilation(place, hole) - (place == self.place)


@pytest.mark.parametrize(("depth", "residual"), [(3, False), (4, True)])
def test_the_dilated_network_keeps_the_contract(depth: int, residual: bool) -> None:
    check_blind_spot_net(lambda: small(depth, residual), covers=depth - 1)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("hole", [0, 1, 3])
def test_a_dilation_too_small_by_one_is_found(place: int, hole: int) -> None:
    net = Leaky(2, 3, depth=3, width=3, hole_width=2, head=(4,)).double()
    net.place = place
    assert leak(net, 12, 13, hole) > 0


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(1, 5), st.booleans(), st.integers(1, 3))
def test_blind_at_any_size(height: int, width: int, hole: int, depth: int, residual: bool, channels: int) -> None:
    net = DilatedNet(channels, 2, depth=depth, width=2, hole_width=1, head=(), residual=residual).double()
    assert leak(net, height, width, hole, every=max(1, height * width // 40)) == 0


def test_window_of_the_published_depth() -> None:
    net = DilatedNet(1, 1, depth=11, width=2, hole_width=1, head=()).double()
    assert 2 * net.reach() + 1 == 43
    check_reach(net, 0, covers=True)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("code", 1_586_693, 1_584_810), ("figure", 2_353_481, 2_350_816)]
)
def test_published_variants_have_their_size(name: str, parameters: int, macs: int) -> None:
    """blind_spot.md 2.1: 1.587 and 2.354 (by its own layers 2.3535) million parameters, 1585 and 2351 kMAC."""
    with torch.device("meta"):
        net = DilatedNet.preset(name, 3, 9)  # type: ignore[arg-type]
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(p.numel() for p in net.parameters() if p.ndim > 1) == macs


def test_multiply_adds_of_a_counter_agree() -> None:
    """A library's counter sees nine taps where there are eight, but in the first, which goes by shifts off the CPU."""
    with torch.device("meta"):
        net = DilatedNet.preset("code", 3, 9)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, 16, 16))
    holes = sum(conv.weight.numel() for conv in net.holes[1:])  # type: ignore[operator, union-attr]
    assert counter.get_total_flops() // 2 // 16**2 == 1_584_810 + holes // 8


def test_sizes_that_make_no_network_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"DilatedNet: expected sizes of at least 1, got .*depth=0"):
        DilatedNet(1, 2, depth=0)
    with pytest.raises(ShapeError, match=r"expected a hole of at least 0 .* got -1"):
        small()(torch.rand(1, 2, 4, 4), -1)
    with pytest.raises(ShapeError, match=r"preset: expected one of \['code', 'figure'\], got 'paper'"):
        DilatedNet.preset("paper", 3, 9)  # type: ignore[arg-type]


@pytest.mark.parametrize("dilation", [1, 2])
def test_shifts_and_kernel_are_the_same_convolution(dilation: int) -> None:
    conv = HoleConv(3, 4).double()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    if dilation == 1:
        assert_close(conv._by_shifts(x), conv(x, 1))
    # Tap by tap, in the order of a kernel that is read row by row.
    expected = conv.bias[:, None, None].expand(2, 4, 7, 6).clone()
    padded = F.pad(x, (dilation,) * 4)
    taps = [(r, c) for r in (0, 1, 2) for c in (0, 1, 2) if (r, c) != (1, 1)]
    for place, (r, c) in enumerate(taps):
        part = padded[:, :, r * dilation : r * dilation + 7, c * dilation : c * dilation + 6]
        expected = expected + torch.einsum("oi,bihw->bohw", conv.weight[..., place], part)
    assert_close(conv(x, dilation), expected)


NET = {"type": "dilated", "depth": 3, "width": 4, "hole_width": 3, "head": [5, 4]}


def denoiser(**settings: object) -> BlindSpotDenoiser:
    return BlindSpotDenoiser(**{"channels": 1, "net": NET, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("hole", [0, 2])
def test_the_denoiser_keeps_the_contract(channels: int, hole: int, tmp_path: Path) -> None:
    check_denoiser(denoiser(channels=channels, hole=hole), tmp_path)


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "signal_dependent", "impulse"])
@pytest.mark.parametrize("level", ["known", "total", "learned"])
def test_every_kind_of_noise_at_every_size(noise: str, level: str, tmp_path: Path) -> None:
    if (noise, level) == ("impulse", "total"):
        with pytest.raises(ShapeError, match="impulse noise adds no variance"):
            denoiser(noise=noise, level=level)
        return
    model = denoiser(channels=3, noise=noise, level=level, hole=1).eval()
    for size in [(1, 1), (1, 7), (9, 2), (17, 16)]:
        x = torch.rand(2, 3, *size)
        for sigma in (None, torch.tensor([0.05, 0.2])):
            y = model.denoise(x, sigma)
            assert y.shape == x.shape
            assert torch.isfinite(y).all()
    again = checkpoints.load(checkpoints.save(tmp_path / "w.safetensors", model))
    assert again.config == model.config
    assert_close(again.denoise(x), model.denoise(x))


def test_no_noise_leaves_the_image_and_much_leaves_the_prediction() -> None:
    model = denoiser(channels=3)
    x = torch.rand(1, 3, 12, 12) * 0.9 + 0.05
    assert_close(model.denoise(x, torch.zeros(1)), x, atol=1e-3, rtol=0)
    assert_close(model.denoise(x, torch.full((1,), 1e3)), model.predict(x)[0].detach(), atol=1e-3, rtol=0)


def test_the_hole_is_chosen_at_each_call() -> None:
    model = denoiser()
    x, sigma = torch.rand(1, 1, 20, 20), torch.tensor([0.1])
    assert_close(model(x, sigma, hole=2), denoiser_like(model, hole=2)(x, sigma))
    assert not torch.equal(model(x, sigma, hole=2), model(x, sigma))


def denoiser_like(model: BlindSpotDenoiser, hole: int) -> BlindSpotDenoiser:
    twin = BlindSpotDenoiser(**{**model.config, "hole": hole})
    twin.load_state_dict(model.state_dict())
    return twin


class Certain(BlindSpotNet):
    """Stands for a trained network: the true mean everywhere, the true standard deviation of the noisy pixel."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__(1, 2)
        self.mean, self.std = mean, std

    def forward(self, x: Tensor, hole: int = 0) -> Tensor:
        return torch.cat([self.mean - 0.5, self.std - 0.1], 1)

    def reach(self, hole: int = 0) -> int:
        return 0


def test_the_level_is_what_is_left_where_the_prediction_is_best() -> None:
    ramp = torch.linspace(0, 1, 4000).view(1, 1, 40, 100)
    model = denoiser(level="total")
    model.net = Certain(ramp, (0.1**2 + (ramp - 0.05).clamp(min=0).square()).sqrt())  # certain in 5 % of the pixels
    assert float(model.own_sigma(torch.rand(1, 1, 40, 100))) == pytest.approx(0.1, rel=0.01)
    line = denoiser(level="total", noise="signal_dependent")
    line.net = Certain(ramp, (0.02 * ramp + 0.003).sqrt())
    assert float(line.own_sigma(torch.rand(1, 1, 40, 100))) == pytest.approx((0.02 * 0.5 + 0.003) ** 0.5, rel=0.03)


def test_an_unknown_level_is_taken_off_the_variance_of_the_noisy_pixel() -> None:
    """Grey: x = y - sigma^2 / total * (y - mu), and mu where the total is noise alone."""
    mean, std = torch.full((1, 1, 2, 2), 0.4), torch.tensor([0.1, 0.2, 0.3, 0.1]).view(1, 1, 2, 2)
    model = denoiser(level="total")
    model.net = Certain(mean, std)
    x = torch.tensor([0.5, 0.6, 0.3, 0.2]).view(1, 1, 2, 2)
    expected = x - (0.1**2 / std.square()) * (x - mean)
    assert_close(model.denoise(x, torch.tensor([0.1])), expected, atol=1e-4, rtol=0)


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_striding_puts_every_pixel_back(height: int, width: int, stride: int) -> None:
    x = torch.arange(float(height * width)).view(1, 1, height, width)
    sizes = []

    def note(part: Tensor, sigma: Tensor) -> Tensor:
        sizes.append(part.shape[2:])
        return part + sigma

    assert torch.equal(denoise_by_stride(note, x, torch.ones(1), stride), x + 1)
    assert len(sizes) == min(stride, height) * min(stride, width)
    assert sum(h * w for h, w in sizes) == height * width


def test_striding_separates_neighbours() -> None:
    """A blur of three pixels in sub-images of stride 3 mixes pixels that are three apart, and no nearer ones."""
    x = torch.zeros(1, 1, 13, 13)
    x[..., 6, 6] = 1
    blurred = denoise_by_stride(lambda part, _: F.avg_pool2d(part, 3, 1, 1), x, torch.ones(1), 3)
    rows, columns = blurred[0, 0].nonzero(as_tuple=True)
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [3, 6, 9]
    with pytest.raises(ShapeError, match="stride of at least 1, got 0"):
        denoise_by_stride(lambda part, _: part, x, torch.ones(1), 0)


def test_a_compiled_network_keeps_the_zero() -> None:
    """Traced and differentiated ahead of time, as for export; seconds, since the tracer is loaded."""
    net = torch.compile(small().double(), backend="aot_eager")
    x = torch.randn(1, 2, 9, 10, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x, 1)[0, :, 4, 5].sum(), x)
    seen = gradient[0].abs().sum(0) != 0
    assert not seen[3:6, 4:7].any()
    assert int(seen.sum()) == 9 * 10 - 9


def test_where_predictions_start_is_no_part_of_the_weights() -> None:
    model = BlindSpotDenoiser(channels=3, net={"type": "dilated", "width": 4, "depth": 3})
    assert not [name for name in model.state_dict() if not name.startswith("net.")]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    mean, factor = model.predict(torch.rand(1, 3, 16, 16))
    assert_close(mean, torch.full_like(mean, 0.5))
    assert_close(factor[0, :, 0, 0], torch.tensor([0.1, 0, 0, 0.1, 0, 0.1]))


@pytest.mark.gpu
def test_on_the_gpu_a_prediction_can_be_captured() -> None:
    model = BlindSpotDenoiser(channels=3, net={"type": "dilated", "width": 4, "depth": 3}).cuda().eval()
    x = torch.rand(1, 3, 16, 16, device="cuda")
    with torch.no_grad():
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            expected = model.predict(x)[0]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            out = model.predict(x)[0]
        graph.replay()
    assert_close(out, expected, atol=1e-3, rtol=0)

"""Each transformation of the frozen runtime, by itself, against the plain modules, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from synthpipe.flows.actnorm import ActNorm
from synthpipe.flows.base import Sequential
from synthpipe.flows.coupling import ColourNet, ConditionalCoupling, SubNet
from synthpipe.flows.frozen.steps import ColourScales, FrozenLevel, FrozenSplit, fold_linear, fold_subnet
from synthpipe.flows.invertible_conv import InvertibleConv
from synthpipe.flows.reshape import SplitPrior, Squeeze
from tests.contracts import perturbed

CLOSE = {"atol": 1e-10, "rtol": 0.0}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_layers_are_one_matrix_and_one_vector() -> None:
    layers = [ActNorm(6), InvertibleConv(6), ActNorm(6), InvertibleConv(6)]
    plain = perturbed(Sequential(*layers)).eval()
    x = noise(2, 6, 3, 5)
    matrix, offset = fold_linear(layers)
    assert_close(torch.einsum("ij,bjhw->bihw", matrix, x) + offset[:, None, None], plain(x)[0], **CLOSE)


def test_a_layer_that_is_not_linear_is_refused() -> None:
    with pytest.raises(TypeError, match="expected ActNorm or InvertibleConv, got Squeeze"):
        fold_linear([Squeeze()])


def test_a_subnetwork_is_three_convolutions() -> None:
    net = perturbed(SubNet(3, 4, 5)).eval()
    x = noise(2, 3, 6, 7)
    folded = fold_subnet(net)
    hidden = F.conv2d(x, *folded.first, padding=1).relu()
    hidden = F.conv2d(hidden, *folded.mid).relu()
    assert_close(F.conv2d(hidden, *folded.out, padding=1), net(x), **CLOSE)


@pytest.mark.parametrize("additive", [False, True], ids=["affine", "additive"])
@pytest.mark.parametrize("transitions", [0, 2])
def test_a_level_gives_the_plain_levels_maps(additive: bool, transitions: int) -> None:
    layers = [Squeeze()]
    for _ in range(transitions):
        layers += [ActNorm(12), InvertibleConv(12)]
    for _ in range(2):
        layers += [ActNorm(12), InvertibleConv(12), ConditionalCoupling(12, 5, 4, 0.05, additive)]
    plain = perturbed(Sequential(*layers)).eval()
    parts = [(3, 1), (2, 2)]
    maps = [(noise(2, 3, 4, 6).abs(), 1), (noise(2, 2, 2, 3, seed=1), 2)]
    cond = torch.cat([maps[0][0], F.interpolate(maps[1][0], scale_factor=2.0)], 1)
    frozen = FrozenLevel(plain, parts, torch.float64)
    with torch.no_grad():
        condition = frozen.condition(maps)
        x = noise(2, 3, 8, 12)
        z = plain(x, cond)[0]
        assert_close(frozen.encode(x, condition), z, **CLOSE)
        assert_close(frozen.decode(z, condition), x, **CLOSE)
        assert_close(frozen.decode(noise(2, 12, 4, 6), condition), plain.inverse(noise(2, 12, 4, 6), cond)[0], **CLOSE)


@pytest.mark.parametrize("additive", [False, True], ids=["affine", "additive"])
def test_a_split_gives_the_plain_splits_maps(additive: bool) -> None:
    plain = perturbed(SplitPrior(7, additive)).eval()
    frozen = FrozenSplit(plain)
    x = noise(2, 7, 3, 4)
    with torch.no_grad():
        kept, eps = frozen.encode(x)
        assert_close((kept, eps), plain(x)[:2], **CLOSE)
        assert_close(frozen.decode(kept, noise(2, 4, 3, 4)), plain.inverse(kept, noise(2, 4, 3, 4))[0], **CLOSE)


def test_scales_by_the_colour_of_all_steps() -> None:
    nets = [perturbed(ColourNet(5, hidden=4)).eval() for _ in range(3)]
    colour = noise(2, 3, 4, 6)
    with torch.no_grad():
        expected = [(net(colour) + 2).sigmoid() + 0.05 for net in nets]
        assert_close(ColourScales(nets, 0.05)(colour), expected, **CLOSE)

"""Conditioning networks: the reference's features, the table of levels, and the traps around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.flows.encoder import RRDBEncoder, SmallEncoder


def tiny(scale: int, levels: int = 3) -> RRDBEncoder:
    return RRDBEncoder(scale, features=8, growth=4, blocks=3, taps=(0, 2), levels=levels)


def own_and_taps(maps: list[Tensor], features: int = 8) -> tuple[list[Tensor], list[Tensor]]:
    return [m[:, :features] for m in maps], [m[:, features:] for m in maps]


ENCODERS = {"rrdb": tiny, "small": lambda scale, levels=3: SmallEncoder(scale, features=6, levels=levels, depth=1)}


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ENCODERS)
def test_one_map_per_level_finest_first(name: str, levels: int, scale: int) -> None:
    encoder = ENCODERS[name](scale, levels)
    maps = encoder(torch.rand(2, 3, 64 // scale, 32 // scale))
    assert [tuple(m.shape) for m in maps] == [
        (2, encoder.out_channels[level - 1], 64 // 2**level, 32 // 2**level) for level in range(1, levels + 1)
    ]
    assert (encoder.scale, encoder.levels) == (scale, levels)


@pytest.mark.parametrize("name", ENCODERS)
def test_images_do_not_see_each_other(name: str) -> None:
    encoder = ENCODERS[name](8).double()
    lr = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    together = encoder(lr)
    for i in range(3):
        for level, alone in enumerate(encoder(lr[i : i + 1])):
            assert_close(alone[0], together[level][i], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("scale", [4, 8])
def test_every_parameter_trains(name: str, scale: int) -> None:
    encoder = ENCODERS[name](scale)
    sum(m.square().sum() for m in encoder(torch.rand(1, 3, 8, 8))).backward()
    idle = [key for key, p in encoder.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


def test_taps_are_the_blocks_outputs_nearest_resized() -> None:
    encoder = tiny(4)
    outputs: list[Tensor] = []
    for index in encoder.taps:
        encoder.trunk[index].register_forward_hook(lambda _m, _i, out: outputs.append(out))
    _, taps = own_and_taps(encoder(torch.rand(1, 3, 8, 8)))
    expected = torch.cat(outputs, 1)
    assert torch.equal(taps[1], expected)
    assert torch.equal(taps[0], expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(taps[2], expected[:, :, ::2, ::2])


def test_trunk_adds_the_last_block_and_not_the_first_convolution() -> None:
    encoder = tiny(4)
    nn.init.zeros_(encoder.trunk_conv.weight)
    nn.init.zeros_(encoder.trunk_conv.bias)
    own, taps = own_and_taps(encoder(torch.rand(1, 3, 8, 8)))
    assert torch.equal(own[1], taps[1][:, 8:])  # the last tap is the last block


def test_levels_above_are_after_leaky_relu() -> None:
    encoder = tiny(8)
    own, _ = own_and_taps(encoder(torch.rand(1, 3, 4, 4)))
    for above, below, conv in ((own[1], own[2], encoder.up_convs[0]), (own[0], own[1], encoder.up_convs[1])):
        large = below.repeat_interleave(2, 2).repeat_interleave(2, 3)
        before = F.conv2d(large, conv.weight, conv.bias, padding=1)
        assert before.min() < 0
        assert_close(above, torch.where(before > 0, before, 0.2 * before))


def test_level_below_lr_is_the_mean_of_four() -> None:
    own, _ = own_and_taps(tiny(4)(torch.rand(1, 3, 8, 8)))
    blocks = own[1].unfold(2, 2, 2).unfold(3, 2, 2)
    assert_close(own[2], blocks.mean((4, 5)))


def test_dense_convolutions_start_small() -> None:
    """Kaiming's standard deviation sqrt(2 / fan-in), times 0.1, and no bias."""
    block = RRDBEncoder(4, features=64, growth=32, blocks=1, taps=(0,)).trunk[0]
    for conv in block.dense[0].convs:
        fan_in = conv.weight[0].numel()
        assert conv.weight.std().item() == pytest.approx(0.1 * (2 / fan_in) ** 0.5, rel=0.05)
        assert torch.equal(conv.bias, torch.zeros_like(conv.bias))


@pytest.mark.parametrize(
    ("scale", "published", "dropped"),
    # deflow.md 3.4; dropped: the last upsampling convolution, HRconv (64 -> 64) and conv_last (64 -> 3), all 3x3
    [(8, 16_734_915, 2 * 36_928 + 1_731), (4, 16_697_987, 2 * 36_928 + 1_731)],
)
def test_parameter_count_is_the_published_one_less_the_heads_thrown_away(
    scale: int, published: int, dropped: int
) -> None:
    with torch.device("meta"):
        encoder = RRDBEncoder(scale)
    assert sum(p.numel() for p in encoder.parameters()) == published - dropped


def reference_name(name: str) -> str:
    """Our parameter name in the reference's words."""
    part = name.split(".")
    if part[0] == "trunk":
        return f"RRDB.RRDB_trunk.{part[1]}.RDB{int(part[3]) + 1}.conv{int(part[5]) + 1}.{part[6]}"
    if part[0] == "up_convs":
        return f"RRDB.upconv{int(part[1]) + 1}.{part[2]}"
    return f"RRDB.{name}"


@pytest.mark.parametrize(
    ("config", "scale", "levels"),
    [("aim", 8, ("fea_up4", "fea_up2", "last_lr_fea")), ("ntire", 4, ("fea_up2", "last_lr_fea", "fea_up0"))],
)
def test_features_of_the_reference(shared: Path, config: str, scale: int, levels: tuple[str, ...]) -> None:
    golden = np.load(shared / "golden" / f"deflow_tiny_{config}.npz")
    weights = torch.load(shared / "golden" / f"deflow_tiny_{config}.pth", weights_only=True)
    encoder = RRDBEncoder(scale, growth=4, blocks=4, taps=(0, 1, 2, 3))
    encoder.load_state_dict({name: weights[reference_name(name)] for name in encoder.state_dict()})
    with torch.no_grad():
        maps = encoder(torch.from_numpy(golden["lr"]))
    for ours, level in zip(maps, levels, strict=True):
        np.testing.assert_allclose(ours.numpy(), golden[f"feature_{level}"], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "scale must be 2, 4, 8 or 16, got 3"),
        ({"scale": 4, "taps": (0, 3), "blocks": 3}, r"0..2, got \[0, 3\]"),
        ({"scale": 4, "taps": (2, 1), "blocks": 3}, r"ascending block indices in 0..2, got \[2, 1\]"),
        ({"scale": 4, "levels": 0}, "levels is too small"),
        ({"scale": 4, "blocks": 0, "taps": ()}, "blocks is too small"),
    ],
)
def test_impossible_sizes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        RRDBEncoder(**arguments)


@pytest.mark.parametrize("name", ENCODERS)
def test_wrong_input_is_refused(name: str) -> None:
    encoder = ENCODERS[name](4)
    with pytest.raises(ShapeError, match=r"multiples of 2, got \(1, 3, 5, 4\)"):
        encoder(torch.rand(1, 3, 5, 4))
    with pytest.raises(ShapeError, match=r"expected lr \(B, 3, h, w\)"):
        encoder(torch.rand(1, 1, 4, 4))

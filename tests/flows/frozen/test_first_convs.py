"""First convolutions together, against one by one on the enlarged maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from synthpipe.flows.frozen import first_convs
from synthpipe.flows.frozen.first_convs import FirstConvs

PARTS = [(3, 1), (2, 1), (4, 2), (1, 4)]
MAPS = [(2, 3, 8, 12), (2, 2, 8, 12), (2, 4, 4, 6), (2, 1, 2, 3)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def expected(maps: list[tuple[Tensor, int]], convs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    whole = torch.cat([F.interpolate(map_, scale_factor=float(factor)) for map_, factor in maps], 1)
    return [F.conv2d(whole, weight, bias, padding=1) for weight, bias in convs]


@pytest.mark.parametrize("least", [1, 99], ids=["by tiles", "directly"])
def test_in_float64(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_convs, "_LEAST_FOR_TILES", least)
    maps = [
        (noise(*shape, seed=index), factor) for index, (shape, (_, factor)) in enumerate(zip(MAPS, PARTS, strict=True))
    ]
    groups = [[(noise(6, 10, 3, 3, seed=index), noise(6, seed=index)) for index in range(3)] for _ in range(2)]
    results = list(FirstConvs(groups, PARTS, torch.float64)(maps))
    assert_close(results, expected(maps, groups[0] + groups[1]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("call_bytes", [1, 2 * 6 * 8 * 12 * 2 * 2, 1 << 30], ids=["one each", "two each", "a group"])
def test_directly_in_few_calls(call_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(first_convs._CALL_BYTES, "cpu", call_bytes)
    # Small whole numbers, so that bfloat16 rounds nothing
    maps = [
        (noise(*shape, seed=index).mul(2).round().clamp(-2, 2), factor)
        for index, (shape, (_, factor)) in enumerate(zip(MAPS, PARTS, strict=True))
    ]
    groups = [
        [(noise(6, 10, 3, 3, seed=index + 5 * group).round().clamp(-1, 1), noise(6).round()) for index in range(3)]
        for group in range(2)
    ]
    results = FirstConvs(groups, PARTS, torch.bfloat16)([(map_.bfloat16(), factor) for map_, factor in maps])
    assert_close([each.double() for each in results], expected(maps, groups[0] + groups[1]), atol=0, rtol=0)


def test_weights_by_the_tile_follow_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_convs, "_LEAST_FOR_TILES", 1)
    maps = [(noise(1, 3, 8, 8), 1)]
    convs = [(noise(4, 3, 3, 3), noise(4))]
    module = FirstConvs([convs], [(3, 1)], torch.float32).double()
    (result,) = module(maps)
    assert_close(result, expected(maps, convs)[0], atol=1e-5, rtol=0)  # weights were float32
    module.bfloat16()
    assert next(module([(maps[0][0].bfloat16(), 1)])).dtype == torch.bfloat16

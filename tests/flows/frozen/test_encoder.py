"""The trunk by tiles, against the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.flows.encoder import RRDBEncoder, SmallEncoder
from synthpipe.flows.frozen import first_convs
from synthpipe.flows.frozen.encoder import FrozenTrunk, freeze_encoder


@pytest.fixture(autouse=True)
def by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_convs, "_LEAST_FOR_TILES", 1)


def encoder() -> RRDBEncoder:
    torch.manual_seed(0)
    return RRDBEncoder(4, features=6, growth=3, blocks=3, taps=(0, 2)).double().eval()


def reduced(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("size", [(8, 12), (2, 6), (10, 4)])
def test_gives_the_plain_encoders_maps(size: tuple[int, int]) -> None:
    plain = encoder()
    frozen = freeze_encoder(copy.deepcopy(plain))
    x = reduced(2, 3, *size)
    with torch.no_grad():
        assert_close(frozen(x), plain(x), atol=1e-11, rtol=0)


def test_one_block_in_float32() -> None:
    plain = encoder().trunk[0].float()
    x = reduced(2, 6, 9, 7).float()
    with torch.no_grad():
        assert_close(FrozenTrunk(plain)(x), plain(x), atol=1e-5, rtol=0)


def test_moves_to_other_kinds_of_numbers() -> None:
    plain = encoder().bfloat16()
    frozen = freeze_encoder(copy.deepcopy(plain).double()).bfloat16()
    x = reduced(1, 3, 8, 8).bfloat16()
    with torch.no_grad():
        # The same convolutions in another layout: bfloat16 rounds to 3 digits, block after block
        assert_close(frozen(x), plain(x), atol=0.05, rtol=0.05)


def test_a_small_encoder_stays_as_it_is() -> None:
    small = SmallEncoder(4, features=4)
    assert freeze_encoder(small) is small

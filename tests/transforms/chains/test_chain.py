"""A chain as a transform."""

from __future__ import annotations

import torch

from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.chains.chain import DeviceChain
from tests.capturable import check_capturable


class Block(Options):
    degrade: DegradeOptions


def built(degrade, scale=1):
    return build_degrade(parse_options({"degrade": degrade}, Block).degrade, scale)


def batch(seed=0, count=3, side=32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "gt": torch.rand(count, 3, side, side, generator=generator),
        "seed": torch.randint(2**62, (count,), generator=generator),
        "seen": torch.arange(count) * 1000,
    }


CHAIN = [
    {"type": "quantise", "levels": [2, 9], "probability": 0.5},
    {
        "type": "choice",
        "of": [
            {"weight": 0.5, "chain": []},
            {"weight": [[0, 0], [2000, 4]], "chain": [{"type": "quantise", "levels": 3}]},
        ],
        "probability": 0.7,
    },
    {"type": "deflow", "weights": "deflow_small", "strength": [0.2, 1.0]},
]


def test_capturable():
    chain = built(CHAIN)
    chain._canvas = True
    check_capturable(chain, batch(0), batch(1), atol=1e-4)
    each = DeviceChain(chain.node, 1, canvas=False)
    a, b = chain(batch(2)), each(batch(2))
    torch.testing.assert_close(a["lq"], b["lq"], atol=1e-4, rtol=0)

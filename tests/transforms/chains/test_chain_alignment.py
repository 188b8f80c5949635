"""Content keeps its place through whole chains: edges and ramps lie in ``lq`` where they lie in ``gt``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from synthpipe.config.presets import preset_chain
from tests.transforms.chains.chain_of import chain_of

SIDE, SCALE = 96, 4
#: Noise moves nothing, and hides what does.
QUIET = [stage for stage in preset_chain("real-esrgan") if stage["type"] != "noise"]
CHAINS: dict[str, list[dict[str, Any]]] = {
    "real-esrgan without noise": QUIET,
    "detours": [
        {"type": "resize", "factor": [0.37, 1.43], "filter": {"bilinear": 1, "bicubic": 1, "lanczos": 1}},
        {"type": "blur", "kinds": {"motion": 1, "lens": 1}, "length": [3, 9], "shake": [0, 90]},
        {"type": "resize", "to": "lr", "factor": [0.6, 1.7], "filter": {"area": 1, "bicubic": 1}},
        {"type": "jpeg", "quality": [70, 95], "times": [1, 3]},
        {"type": "resize", "to": "lr", "filter": "bicubic"},
    ],
}


def crossing(line: torch.Tensor) -> float:
    """Where a line of pixels crosses the middle between its ends, from the middle of the line, in pixels."""
    line = line - (line[:4].mean() + line[-4:].mean()) / 2
    sign = line.sign()
    change = int(((sign[1:] * sign[:-1]) <= 0).nonzero()[0])
    part = line[change] / (line[change] - line[change + 1])
    return change + float(part) - (len(line) - 1) / 2


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("down", [False, True])
def test_an_edge_stays_where_it_is(name: str, down: bool) -> None:
    chain, draws = chain_of(CHAINS[name], SCALE), 192
    # An odd profile around the middle, wide enough for every kernel: whatever blurs it alike on both sides leaves it.
    profile = 0.5 + 0.35 * torch.erf((torch.arange(SIDE) - (SIDE - 1) / 2) / 9)
    x = profile[:, None].expand(SIDE, SIDE) if down else profile.expand(SIDE, SIDE)
    made = chain({"gt": x.expand(draws, 3, SIDE, SIDE), "seed": torch.arange(draws)})["lq"].double().mean(1)
    lines = made[:, :, 6:-6].mean(2) if down else made[:, 6:-6].mean(1)
    shifts = torch.tensor([crossing(line) for line in lines]) * SCALE
    error = float(shifts.std()) / draws**0.5
    assert error < 0.02  # or the next line would say nothing
    assert abs(float(shifts.mean())) < 0.01 + 3 * error, (shifts.mean(), error)


@pytest.mark.parametrize("down", [False, True])
def test_a_ramp_keeps_its_values(down: bool) -> None:
    """A shift by 1/100 of a pixel of ``gt`` changes a ramp by 1/100 of its step: JPEG is left out, which rounds."""
    chain = chain_of([stage for stage in CHAINS["detours"] if stage["type"] != "jpeg"], SCALE)
    step = 0.6 / SIDE
    ramp = 0.2 + step * torch.arange(SIDE, dtype=torch.float64)
    x = ramp[:, None].expand(SIDE, SIDE) if down else ramp.expand(SIDE, SIDE)
    made = chain({"gt": x.float().expand(64, 3, SIDE, SIDE), "seed": torch.arange(64)})["lq"].double()
    expected = 0.2 + step * ((torch.arange(SIDE // SCALE) + 0.5) * SCALE - 0.5)
    lines = made.mean((1, 3)) if down else made.mean((1, 2))
    inner = slice(8, -8)  # kernels and reductions see the border of the ramp beyond
    found = ((lines - expected)[:, inner] / step).mean(1)
    assert float(found.abs().max()) < 0.1  # of any one sample: filters' bins at ratios that are no whole numbers
    assert abs(float(found.mean())) < 0.01

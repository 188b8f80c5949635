"""A chain as a transform: its contract, and what it makes of an image against the same operations by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.errors import OptionError, ShapeError
from synthpipe.flows.draws import SeededNoise
from synthpipe.flows.frozen import FrozenDeFlow
from synthpipe.images import quantize_8bit
from synthpipe.transforms.chains.chain import DeviceChain, HostChain
from tests.capturable import check_capturable
from tests.transforms.chains.chain_of import chain_of
from tests.transforms.test_deflow import levelled_deflow

CHAIN: list[dict[str, Any]] = [
    {"type": "quantise", "levels": [2, 9], "probability": 0.5},
    {"type": "resize", "factor": [0.6, 1.4], "filter": {"area": 1, "bilinear": 1, "bicubic": 1}},
    {"type": "resize", "to": "lr", "filter": "bicubic"},
    {
        "type": "choice",
        "of": [{"chain": []}, {"weight": [[0, 0], [2000, 4]], "chain": [{"type": "quantise", "levels": 3}]}],
        "probability": 0.7,
    },
    {"type": "deflow", "weights": "deflow_small", "strength": [0.2, 1.0]},
]


def batch(seed: int = 0, count: int = 3, side: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "gt": torch.rand(count, 3, side, side, generator=generator),
        "seed": torch.randint(2**62, (count,), generator=generator),
        "seen": torch.arange(count) * 1000,
    }


def test_a_chain_keeps_the_contract_of_device_transforms() -> None:
    chain = DeviceChain(chain_of(CHAIN, 2).node, 2, canvas=True)
    check_capturable(chain, batch(0), batch(1), atol=1e-4)


def test_image_by_image_and_on_a_canvas_are_the_same() -> None:
    node = chain_of(CHAIN, 2).node
    whole, each = DeviceChain(node, 2, canvas=True), DeviceChain(node, 2, canvas=False)
    assert_close(whole(batch(2, 6))["lq"], each(batch(2, 6))["lq"], atol=2e-4, rtol=0)


def test_a_chain_is_pillows_reduction_and_a_rounding() -> None:
    chain = chain_of([{"type": "resize", "to": "lr", "filter": "bicubic"}, {"type": "quantise"}], 4)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found = chain({"gt": x, "seed": torch.tensor([1])})["lq"][0].permute(1, 2, 0).mul(255).round().numpy()
    expected = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(found - expected).max() <= 1


def test_deflow_as_a_stage_takes_a_level_or_a_range(tmp_path: Path) -> None:
    model = levelled_deflow()
    weights = str(checkpoints.save(tmp_path / "levels.safetensors", model))
    given = batch(2)
    levels = quantize_8bit(given["gt"])
    found = chain_of([{"type": "deflow", "weights": weights, "level": 5.1}])(given)["lq"]
    expected = FrozenDeFlow(model).degrade_with(levels, SeededNoise(given["seed"], "deflow"), level=0.02)
    assert_close(found, expected, atol=1e-5, rtol=0)
    ranged = chain_of([{"type": "deflow", "weights": weights, "level": [2, 5]}])
    drawn = ranged.node.steps()[0].stage.draw(torch.rand(64, 2, dtype=torch.float64))["level"]
    assert 2 <= float(drawn.min()) < float(drawn.max()) < 5
    with pytest.raises(OptionError, match="know no noise level"):
        chain_of([{"type": "deflow", "weights": "deflow_small", "level": 3}])


def test_deflow_as_a_stage_is_the_model_at_that_size() -> None:
    from synthpipe import checkpoints
    from synthpipe.flows import DeFlow

    chain = chain_of([{"type": "quantise"}, {"type": "deflow", "weights": "deflow_small", "strength": 0.7}])
    given = batch(4, 2, 32)
    model = checkpoints.load("deflow_small", kind="deflow")
    assert isinstance(model, DeFlow)
    levels = (given["gt"] * 255).round() / 255
    expected = model.degrade(levels, SeededNoise(given["seed"], "deflow"), 0.7)
    assert_close(chain(given)["lq"], expected, atol=2e-4, rtol=0)


def test_a_stage_that_needs_the_host_makes_a_chain_of_the_host() -> None:
    chain = chain_of([{"type": "shuffle", "of": [{"type": "quantise"}, {"type": "jpeg"}]}])
    assert isinstance(chain, HostChain)
    given = batch(5, 3, 32)
    assert chain(given)["lq"].shape == (3, 3, 32, 32)


HOST = [
    {"type": "quantise", "levels": [20, 200], "probability": [[0, 0], [1000, 1]]},
    {"type": "webp", "probability": 0.5},
    {"type": "jpeg", "sampling": {420: 1, 444: 1}, "times": [1, 2], "probability": 0.5},
]


def test_a_chain_of_the_host_draws_where_its_constants_are() -> None:
    chain = chain_of(HOST)
    chain.to("meta")
    given = {key: value.to("meta") for key, value in batch().items()}
    drawn = [value for params in chain.draws(given).values() for value in params.values()]
    assert {value.device.type for value in drawn} == {"meta"}


@pytest.mark.gpu
def test_a_chain_of_the_host_runs_on_cuda() -> None:
    given = batch()
    expected = chain_of(HOST)(given)["lq"]
    chain = chain_of(HOST)
    chain.to("cuda")
    made = chain({**given, "gt": given["gt"].cuda()})["lq"]
    assert_close(made.cpu(), expected, atol=2.5 / 255, rtol=0)


def test_wrong_input_is_refused() -> None:
    chain = chain_of(CHAIN, 2)
    given = batch()
    with pytest.raises(ShapeError, match="hold NaN or infinity"):
        chain({**given, "gt": given["gt"] / 0 * 0})
    with pytest.raises(ShapeError, match="3 images but 2 seeds"):
        chain({**given, "seed": given["seed"][:2]})
    with pytest.raises(ShapeError, match="sides must be multiples of the scale 2"):
        chain({**given, "gt": given["gt"][..., :-1]})


def test_nothing_in_nothing_out() -> None:
    chain = chain_of([{"type": "resize", "to": "lr"}], 2)
    none = {"gt": torch.empty(0, 3, 8, 8), "seed": torch.empty(0, dtype=torch.int64)}
    assert chain.compute(none)["lq"].shape == (0, 3, 4, 4)


def test_the_place_of_an_image_in_memory_changes_no_bit() -> None:
    # Sides of 9 and 27 pixels: of a batch only the first image begins where torch begins tensors.
    stages = [{"type": "resize", "to": "lr", "filter": {"lanczos": 1, "box": 1, "mitchell": 1}}, {"type": "saturation"}]
    chain = chain_of(stages, 3)
    images = torch.rand(40, 3, 9, 27, generator=torch.Generator().manual_seed(0))
    whole = chain({"gt": images, "seed": torch.arange(40)})["lq"]
    for row in range(40):
        alone = chain({"gt": images[row : row + 1].clone(), "seed": torch.tensor([row])})["lq"]
        assert torch.equal(alone[0], whole[row])

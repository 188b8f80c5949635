"""build_degrade: from options to the transform that they describe."""

from __future__ import annotations

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.config.degrade import DegradeOptions
from synthpipe.config.reader import Options, parse_options
from synthpipe.errors import CheckpointError, OptionError
from synthpipe.flows.deflow import DeFlow
from synthpipe.seeds import stream_number
from synthpipe.transforms.base import DeviceTransform
from synthpipe.transforms.build import build_degrade
from synthpipe.transforms.classical import ClassicalDegrade
from synthpipe.transforms.deflow import DeFlowDegrade


class Holder(Options):
    """Options as a stream holds them."""

    degrade: DegradeOptions


def options(**values):
    return parse_options({"degrade": values}, Holder).degrade


@pytest.fixture
def weights(tmp_path):
    encoder = {"type": "small", "features": 8, "depth": 1}
    model = DeFlow(levels=2, steps=1, transition_steps=0, hidden=8, encoder=encoder)
    model.initialize(torch.rand(4, 3, 16, 16), torch.tensor([0, 0, 1, 1]), torch.Generator().manual_seed(0))
    return str(checkpoints.save(tmp_path / "tiny.safetensors", model))


def test_deflow_options_load_the_weights_and_set_the_strength(weights):
    gt = torch.rand(2, 3, 32, 48)
    batch = {"gt": gt, "key": ["a", "b"], "seed": torch.tensor([3, 4])}
    transform = build_degrade(options(type="deflow", weights=weights), 2)
    assert isinstance(transform, DeFlowDegrade)
    lq = transform(batch)["lq"]
    direct = DeFlowDegrade(checkpoints.load(weights), 2)(batch)["lq"]
    assert torch.equal(lq, direct)
    still = build_degrade(options(type="deflow", weights=weights, strength=0), 2)(batch)["lq"]
    assert (still - lq).abs().mean() > 1e-3
    # Without a shift the flow is its own inverse: the reduced image, rounded to 8 bits, comes back.
    torch.testing.assert_close(still * 255, (still * 255).round(), atol=0.01, rtol=0)


def test_classical_options_make_the_classical_transform():
    transform = build_degrade(options(type="classical", jpeg_quality=[50, 60]), 4)
    assert isinstance(transform, ClassicalDegrade)
    assert transform.scale == 4


def test_transforms_do_not_share_random_numbers():
    degradations = [cls for cls in DeviceTransform.__subclasses__() if cls.__module__.startswith("synthpipe.")]
    salts = [cls.salt for cls in degradations if cls.salt]
    assert {DeFlowDegrade, ClassicalDegrade} <= {cls for cls in degradations if cls.salt}
    streams = {stream_number(salt, purpose) for salt in [*salts, "deflow strength"] for purpose in range(4)}
    assert len(streams) == 4 * (len(salts) + 1)


def test_a_degradation_that_nothing_builds_is_no_deflow():
    class Unknown(Options):
        """With all that a DeFlow's options have."""

        type: str = "unknown"
        weights: str = "deflow_small"
        strength: float = 1.0

    with pytest.raises(AssertionError, match="unreachable, but got: Unknown"):
        build_degrade(Unknown(), 4)


def test_missing_weights_and_unknown_types():
    with pytest.raises(CheckpointError, match="no weights at 'absent'"):
        build_degrade(options(type="deflow", weights="absent"), 4)
    with pytest.raises(
        OptionError, match=r"'degrade\.type': expected one of 'deflow', 'classical', 'chain', 'choice', got 'gauss'"
    ):
        options(type="gauss")
    with pytest.raises(OptionError, match=r"unknown option 'degrade\.weigths'; did you mean 'weights'"):
        options(type="deflow", weights="x", weigths="y")
    with pytest.raises(OptionError, match="strength"):
        options(type="deflow", weights="x", strength=-1)


@pytest.mark.parametrize(
    "degrade",
    [
        {"type": "deflow", "weights": "deflow_small"},
        {"type": "deflow", "weights": "canon_5d2", "level": [2, 8], "samples": 2},
        {"type": "classical"},
        [{"type": "resize", "to": "lr"}, {"type": "deflow", "weights": "canon_5d2", "level": "pile"}],
        [{"type": "kernels", "weights": "kernels_city100"}, {"type": "resize", "to": "lr"}],
        {"type": "choice", "of": "zoo"},
        "bsrgan-x2",
    ],
)
def test_of_no_tiles_come_no_tiles(degrade: object) -> None:
    """What a filter leaves of a batch that it dropped as a whole."""
    transform = build_degrade(parse_options({"degrade": degrade}, Holder).degrade, 2)
    nothing = torch.zeros(0, dtype=torch.int64)
    batch = transform({"gt": torch.zeros(0, 3, 64, 64), "key": [], "seed": nothing, "seen": nothing})
    assert batch["lq"].shape == (0, 3, 32, 32)
    assert batch["gt"].shape == (0, 3, 64, 64)

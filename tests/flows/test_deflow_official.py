"""Official DeFlow weights: every published tensor accounted for, and the reference's own outputs reproduced."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthpipe.config.deflow import PRESETS, DeFlowModelOptions
from synthpipe.errors import CheckpointError
from synthpipe.flows.coupling import ConditionalCoupling
from synthpipe.flows.deflow import DeFlow
from synthpipe.flows.deflow_official import PUBLISHED, from_official, official_names
from synthpipe.flows.frozen import FrozenDeFlow

CONFIGS = ("aim", "ntire", "dped")

# Stored by the published networks and never used (deflow.md 3.3 and 3.4).
UNUSED_HEADS = 2 * (64 * 64 * 9 + 64) + (64 * 3 * 9 + 3)  # last upconv, HRconv, conv_last
UNUSED_F = 276_576
IDENTITIES = 96**2 + 6**2

# Measured on the reference (deflow.md 3.4).
TOTAL = {"aim": 62_935_305, "ntire": 39_741_641, "dped": 39_741_641}
ENCODER = {"aim": 16_734_915, "ntire": 16_697_987, "dped": 16_697_987}
COND_NETS = {"aim": 23_380_224, "ntire": 11_497_728, "dped": 11_497_728}
SELF_NETS = {"aim": 22_159_488, "ntire": 10_885_248, "dped": 10_885_248}
LEVELS = {"aim": (13.12, 13.91, 18.88), "ntire": (6.43, 6.84, 9.48), "dped": (6.43, 6.84, 9.48)}  # millions


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes_of(shared: Path, name: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = json.loads((shared / "golden" / f"deflow_{name}.keys.json").read_text())
    return found


def stand_in(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of the given shapes that take no memory; identities where the official network has them."""
    return {
        name: torch.eye(shape[0]) if name.rpartition(".")[2] == "I" else torch.zeros(()).expand(shape)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module", params=CONFIGS)
def preset(request: pytest.FixtureRequest) -> tuple[str, DeFlow]:
    return request.param, DeFlow(**DeFlowModelOptions(preset=request.param).arguments())


def tiny_official() -> tuple[DeFlow, dict[str, Tensor]]:
    """A tiny network of the published form, and its weights under the official names."""
    encoder = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 2, "taps": [0, 1]}
    model = DeFlow(
        **{**PUBLISHED["ntire"], "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": encoder, "levels": 3}
    )
    state = model.state_dict()
    official = {}
    for theirs, ours in official_names(model.config).items():
        value = state[ours].clone()
        if "actnorm" in theirs:
            value = value[None]
        official[theirs] = value.flatten() if theirs.endswith("mean_shift") else value
    return model, official


class TestPublishedSizes:
    """The presets against the parameter counts of deflow.md 3.4."""

    def test_total(self, preset: tuple[str, DeFlow]) -> None:
        name, model = preset
        assert count(model) == TOTAL[name] - UNUSED_HEADS - UNUSED_F - IDENTITIES

    def test_encoder(self, preset: tuple[str, DeFlow]) -> None:
        name, model = preset
        assert count(model.encoder) == ENCODER[name] - UNUSED_HEADS

    def test_sub_networks(self, preset: tuple[str, DeFlow]) -> None:
        name, model = preset
        couplings = [layer for layer in model.modules() if isinstance(layer, ConditionalCoupling)]
        assert len(couplings) == 48
        assert sum(count(layer.cond_net) for layer in couplings) == COND_NETS[name]
        assert sum(count(layer.self_net) for layer in couplings) == SELF_NETS[name]

    def test_steps(self, preset: tuple[str, DeFlow]) -> None:
        name, model = preset
        layers = [layer for level in model.levels for layer in level.layers]
        convs = [layer for layer in layers if type(layer).__name__ == "InvertibleConv"]
        norms = [layer for layer in layers if type(layer).__name__ == "ActNorm"]
        assert (len(convs), sum(map(count, convs))) == (54, 360_072)
        assert (len(norms), sum(map(count, norms))) == (54, 4_752)
        assert tuple(round(count(level) / 1e6, 2) for level in model.levels) == LEVELS[name]

    def test_split_and_shifts(self, preset: tuple[str, DeFlow]) -> None:
        _, model = preset
        assert count(model.split) + count(model.shifts[0]) == 750 - 6**2
        assert count(model.shifts[1]) == 9_312

    def test_small_preset_is_about_a_million(self) -> None:
        assert 0.5e6 < count(DeFlow(**DeFlowModelOptions(preset="small").arguments())) < 1.5e6


def test_every_published_tensor_is_accounted_for(shared: Path, preset: tuple[str, DeFlow]) -> None:
    name, model = preset
    shapes = shapes_of(shared, f"official_{name}")
    config, state = from_official(stand_in(shapes), name)
    expected = model.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: tuple(value.shape) for key, value in expected.items()
    }
    sizes = ("scale", "levels", "steps", "transition_steps", "hidden", "encoder")
    assert {key: config[key] for key in sizes} == {key: model.config[key] for key in sizes}
    # What is left over is what the published network never uses, to the last number.
    used = sum(math.prod(shapes[key]) for key in official_names(config))
    buffers = sum(value.numel() for key, value in state.items() if key.endswith(("permutation", "sign")))
    assert used - buffers == count(model)
    assert sum(map(math.prod, shapes.values())) - used == UNUSED_HEADS + UNUSED_F + IDENTITIES


def test_presets_have_the_published_statistics() -> None:
    published = {k: v for k, v in PUBLISHED["aim"]["normalization"].items() if k != "clamp"}
    assert {k: list(v) for k, v in PRESETS["aim"]["normalization"].items()} == published
    assert all(PUBLISHED[name]["scale"] == PRESETS[name]["scale"] for name in CONFIGS)


class Golden:
    """The reference's numbers for one tiny network, and ours."""

    def __init__(self, shared: Path, name: str) -> None:
        arrays = np.load(shared / "golden" / f"deflow_tiny_{name}.npz")
        self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        weights = torch.load(shared / "golden" / f"deflow_tiny_{name}.pth", weights_only=True)
        self.config, state = from_official(weights, name)
        self.model = DeFlow(**self.config)
        self.model.load_state_dict(state)
        self.model.eval()
        with torch.no_grad():
            self.features = self.model.features(self.arrays["lr"])
            self.latents = self.model.encode(self.arrays["x"], self.features)[0]


@pytest.fixture(scope="module", params=["aim", "ntire"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared, request.param)


class TestAgainstTheReference:
    def test_settings(self, golden: Golden) -> None:
        assert golden.config["scale"] in (4, 8)
        assert golden.config["encoder"] == {
            "type": "rrdb",
            "features": 64,
            "growth": 4,
            "blocks": 4,
            "taps": [0, 1, 2, 3],
        }
        assert [golden.config[key] for key in ("levels", "steps", "transition_steps", "hidden")] == [3, 2, 2, 16]

    def test_features(self, golden: Golden) -> None:
        by_size = {value.shape: value for key, value in golden.arrays.items() if key.startswith("feature_fea")}
        for ours in golden.features:
            torch.testing.assert_close(ours, by_size[ours.shape], atol=1e-5, rtol=0)

    def test_latents(self, golden: Golden) -> None:
        for ours, name in zip(golden.latents, ("latent_split", "latent_top"), strict=True):
            torch.testing.assert_close(ours, golden.arrays[name], atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("domain", "name"), [(0, "nll_as_clean"), (1, "nll_as_noisy")])
    def test_likelihood(self, golden: Golden, domain: int, name: str) -> None:
        """The reference prints nats over ln 2 H W: per pixel, not per value."""
        x = golden.arrays["x"]
        with torch.no_grad():
            ours = -golden.model.log_prob(x, torch.full((len(x),), domain), golden.features)
        printed = ours / (math.log(2) * x.shape[2] * x.shape[3])
        torch.testing.assert_close(printed, golden.arrays[name], atol=0, rtol=1e-4)

    @torch.no_grad()
    def test_degraded_image(self, golden: Golden) -> None:
        moved = [
            z + shift.shift(golden.arrays[draw], cond)
            for z, shift, draw, cond in zip(
                golden.latents,
                golden.model.shifts,
                ("draw_split", "draw_top"),
                (golden.features[0], golden.features[-1]),
                strict=True,
            )
        ]
        degraded, _ = golden.model.decode(moved, golden.features)
        torch.testing.assert_close(degraded, golden.arrays["degraded"], atol=1e-4, rtol=0)

    def test_frozen_it_degrades_as_it_did(self, golden: Golden) -> None:
        x = golden.arrays["x"]
        seeds = (
            [torch.Generator().manual_seed(seed) for seed in range(len(x))],
            [torch.Generator().manual_seed(seed) for seed in range(len(x))],
        )
        frozen = FrozenDeFlow(golden.model).degrade(x, seeds[0])
        torch.testing.assert_close(frozen, golden.model.degrade(x, seeds[1]), atol=1e-4, rtol=0)

    @torch.no_grad()
    def test_round_trip(self, golden: Golden) -> None:
        back, _ = golden.model.decode(golden.latents, golden.features)
        torch.testing.assert_close(back, golden.arrays["x"], atol=1e-5, rtol=0)

    def test_shipped_keys_are_those_of_the_weights(self, shared: Path, golden: Golden) -> None:
        name = "aim" if golden.config["scale"] == 8 else "ntire"
        _, state = from_official(stand_in(shapes_of(shared, f"tiny_{name}")), name)
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in golden.model.state_dict().items()}


class TestNames:
    def test_a_few_known_ones(self) -> None:
        """Shapes of the published form at hidden 4, growth 2: written down, not computed by the code under test."""
        _, official = tiny_official()
        known = {
            "mean_shift": (96,),
            "cov_shift": (96, 96),
            "RRDB.RRDB_trunk.1.RDB3.conv5.weight": (4, 12, 3, 3),
            "RRDB.upconv1.bias": (4,),
            "flowUpsamplerNet.layers.1.actnorm.logs": (1, 12, 1, 1),
            "flowUpsamplerNet.layers.2.invconv.p": (12, 12),
            "flowUpsamplerNet.layers.2.affine.fAffine.0.weight": (4, 6 + 12, 3, 3),
            "flowUpsamplerNet.layers.2.affine.fFeatures.4.bias": (24,),
            "flowUpsamplerNet.layers.3.conv.weight": (12, 6, 3, 3),
            "flowUpsamplerNet.layers.3.cov_shift": (6, 6),
            "flowUpsamplerNet.layers.5.invconv.sign_s": (24,),
            "flowUpsamplerNet.layers.9.affine.fAffine.4.logs": (96, 1, 1),
        }
        assert {name: tuple(official[name].shape) for name in known} == known

    def test_there_and_back(self) -> None:
        model, official = tiny_official()
        config, state = from_official(official, "ntire")
        assert config == model.config
        again = DeFlow(**config)
        again.load_state_dict(state)
        assert again.initialized
        for name, value in model.state_dict().items():
            if not name.endswith("initialized"):
                assert torch.equal(again.state_dict()[name], value), name

    def test_half_precision_weights_become_float32(self) -> None:
        _, official = tiny_official()
        _, state = from_official({name: value.half() for name, value in official.items()}, "ntire")
        assert {value.dtype for value in state.values()} == {torch.float32, torch.bool}

    def test_unused_tensors_may_be_there_or_not(self) -> None:
        _, official = tiny_official()
        extra = {
            "I": torch.eye(96),
            "flowUpsamplerNet.layers.3.I": torch.eye(6),
            "flowUpsamplerNet.f.0.weight": torch.zeros(96, 12, 3, 3),
            "flowUpsamplerNet.f.0.bias": torch.zeros(96),
            "RRDB.HRconv.weight": torch.zeros(4, 4, 3, 3),
            "RRDB.conv_last.bias": torch.zeros(3),
            "RRDB.upconv2.weight": torch.zeros(4, 4, 3, 3),
        }
        with_extra, without = from_official(official | extra, "ntire"), from_official(official, "ntire")
        assert with_extra[0] == without[0]
        assert with_extra[1].keys() == without[1].keys()


def edited(**changes: Tensor | None) -> dict[str, Tensor]:
    """Official weights with tensors replaced, or taken away where None; ``__`` stands for a dot."""
    _, official = tiny_official()
    for name, value in changes.items():
        if value is None:
            del official[name.replace("__", ".")]
        else:
            official[name.replace("__", ".")] = value
    return official


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cov_shift": None}, r"1 missing tensor: cov_shift;"),
        (
            {"flowUpsamplerNet__layers__9__affine__fAffine__4__logs": None},
            r"1 missing .*layers.9.affine.fAffine.4.logs",
        ),
        ({"RRDB__conv_first__weight": None}, "missing tensor 'RRDB.conv_first.weight'"),
        ({"netD__weight": torch.zeros(1)}, r"1 unknown tensor: netD.weight"),
        ({"RRDB__upconv3__weight": torch.zeros(1)}, r"unknown tensor: RRDB.upconv3.weight"),  # that is scale 8
        ({"mean_shift": torch.full((96,), torch.nan)}, "'mean_shift' holds NaN or infinity"),
        ({"I": torch.full((96, 96), 2.0)}, "expected the identity at 'I'"),
        ({"flowUpsamplerNet__layers__999999__x": torch.zeros(1)}, "leave .* gaps, expected 3"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_official(edited(**changes), "ntire")


def test_other_networks_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"expected the keys of a DeFlow state_dict .*, got 1 keys beginning"):
        from_official({"body.0.weight": torch.zeros(1)}, "aim")
    with pytest.raises(CheckpointError, match=r"must be one of \['aim', 'dped', 'ntire'\], got 'sidd'"):
        from_official(edited(), "sidd")
    with pytest.raises(CheckpointError, match=r"missing tensors: RRDB.upconv2"):
        from_official(edited(), "aim")  # x4 weights taken for x8 ones


def test_taps_that_shapes_do_not_show_are_asked_for() -> None:
    encoder = {"type": "rrdb", "features": 4, "growth": 2, "blocks": 3, "taps": [0, 2]}
    model = DeFlow(**{**PUBLISHED["ntire"], "steps": 1, "transition_steps": 1, "hidden": 4, "encoder": encoder})
    official = {theirs: model.state_dict()[ours] for theirs, ours in official_names(model.config).items()}
    with pytest.raises(CheckpointError, match="cannot tell which 2 of 3 blocks are tapped"):
        from_official(official, "ntire")
    assert from_official(official, "ntire", taps=[0, 2])[0]["encoder"]["taps"] == [0, 2]

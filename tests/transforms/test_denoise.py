"""Denoise: any denoiser as a transform; what it leaves alone, tiles, NaN, options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synthpipe import checkpoints, registry
from synthpipe.config.denoise import DenoiseOptions
from synthpipe.config.reader import parse_options
from synthpipe.denoisers.base import Denoiser
from synthpipe.denoisers.plain import PlainDenoiser
from synthpipe.errors import CheckpointError, OptionError, ShapeError
from synthpipe.transforms.build import build_denoise
from synthpipe.transforms.denoise import Denoise
from synthpipe.transforms.tiling import apply_tiled


class Box(Denoiser):
    """The mean over a square, mixed in by ``10 * sigma``; notes the levels that it is told."""

    def __init__(self, radius: int, channels: int = 3) -> None:
        super().__init__()
        self.config = {"radius": radius, "channels": channels}
        self.channels = channels
        self.levels: list[float] = []
        self.sizes: list[tuple[int, ...]] = []

    @property
    def reach(self) -> int:
        return int(self.config["radius"])

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.levels += sigma.tolist()
        self.sizes.append(tuple(x.shape[2:]))
        side = 2 * self.reach + 1
        share = (10 * sigma).clamp(max=1)[:, None, None, None]
        return x + share * (F.avg_pool2d(F.pad(x, (self.reach,) * 4), side, stride=1) - x)


class Holed(Box):
    """One with a hole, as blind-spot networks have it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.hole = 0

    @property
    def reach(self) -> int:
        return 1 + self.hole


def tiny_plain(seed: int = 0, **config: Any) -> PlainDenoiser:
    """Random weights that change an image clearly."""
    torch.manual_seed(seed)
    model = PlainDenoiser(**({"width": 4, "depth": 3} | config))
    with torch.no_grad():
        model.net.out.weight.mul_(5)
    return model


def noisy_images(count: int, sigma: float, side: int = 40, seed: int = 0) -> Tensor:
    """A slow ramp with white noise, rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(0.3, 0.7, side).expand(count, 3, side, side)
    x = ramp + sigma * torch.randn(count, 3, side, side, generator=generator)
    return (x.clamp(0, 1) * 255).round() / 255


def batch_of(x: Tensor) -> dict[str, Any]:
    return {"gt": x, "key": [str(n) for n in range(len(x))], "seed": torch.arange(len(x))}


def test_gt_becomes_the_models_result_in_8_bits_and_nothing_else_changes():
    x = noisy_images(3, 0.1)
    kept = x.clone()
    model = tiny_plain()
    batch = batch_of(x)
    out = Denoise(model, 0.1)(batch)
    expected = (model.denoise(x, torch.full((3,), 0.1)).clamp(0, 1) * 255).round() / 255
    torch.testing.assert_close(out["gt"], expected, atol=1.01 / 255, rtol=0)
    assert (out["gt"] - expected).abs().mean() < 1e-4  # rounding may fall either way in another order of memory
    assert (out["gt"] - x).abs().mean() > 0.01
    assert out["gt"] is not x
    assert torch.equal(x, kept)
    assert set(out) == {"gt", "key", "seed"}
    assert out["gt"].dtype == torch.float32
    assert torch.equal((out["gt"] * 255).round() / 255, out["gt"])


def test_auto_estimates_the_level_of_each_image():
    levels = (0.02, 0.08, 0.16)
    x = torch.cat([noisy_images(1, sigma, 128, seed) for seed, sigma in enumerate(levels)])
    model = Box(1)
    Denoise(model)(batch_of(x))
    assert model.levels == pytest.approx(levels, rel=0.1)


def test_estimates_above_the_largest_level_are_cut_and_given_levels_are_not():
    x = noisy_images(1, 0.16, 128)
    model = Box(1)
    Denoise(model, max_sigma=0.05).clean(x)
    Denoise(model, 0.1, max_sigma=0.05).clean(x)
    assert model.levels == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize("sigma", [None, 0.3])
def test_what_is_clean_passes_bit_for_bit(sigma: float | None):
    clean, noisy = noisy_images(2, 0.004, 64), noisy_images(2, 0.05, 64)
    x = torch.stack([clean[0], noisy[0], clean[1], noisy[1]])
    out = Denoise(tiny_plain(), sigma, min_sigma=0.02).clean(x)
    assert torch.equal(out[::2], x[::2])
    assert all(not torch.equal(out[n], x[n]) for n in (1, 3))
    model = Box(1)
    assert torch.equal(Denoise(model, sigma, min_sigma=0.02).clean(clean), clean)
    assert model.sizes == []  # there was nothing to ask it about
    assert Denoise(model, 0.1).clean(x[:0]).shape == (0, 3, 64, 64)


def test_half_strength_is_halfway():
    x = noisy_images(2, 0.1)
    full, half = (Denoise(tiny_plain(), 0.1, strength=strength).clean(x) for strength in (1.0, 0.5))
    inside = (full > 0.01) & (full < 0.99)  # clipping comes after mixing
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(half[inside], (x + 0.5 * (full - x))[inside], atol=1.01 / 255, rtol=0)


@settings(max_examples=15)
@given(count=st.integers(1, 3), height=st.integers(1, 130), width=st.integers(64, 150), radius=st.integers(0, 5))
def test_tiles_give_what_the_whole_image_gives(count: int, height: int, width: int, radius: int):
    x = torch.rand(count, 3, height, width)
    model = Box(radius)
    tiled = Denoise(model, 0.1, tile=64).clean(x)
    assert max(max(size) for size in model.sizes) <= 64
    whole = Denoise(Box(radius), 0.1, tile=512).clean(x)
    torch.testing.assert_close(tiled, whole, atol=1.01 / 255, rtol=0)
    assert (tiled != whole).float().mean() < 0.001


def test_a_reach_beyond_the_tile_is_blended():
    ramp = torch.linspace(0, 1, 160).expand(1, 3, 160, 160)
    transform = Denoise(Box(20), 0.1, tile=64)
    assert transform.overlap == 16
    soft = transform.clean(ramp)
    whole = Denoise(Box(20), 0.1).clean(ramp)
    seams = apply_tiled(lambda tile, _: Box(20)(tile, torch.tensor([0.1])), ramp, 64, 16)
    jumps = [(y - whole)[0, 0, 80].diff().abs().max() for y in (soft, seams)]
    assert jumps[0] < 0.6 * jumps[1]  # rounding to 8 bits alone may jump by 2 / 255
    assert Denoise(Box(20), 0.1, tile=64, overlap=8).overlap == 8


def test_large_batches_go_in_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synthpipe.transforms.denoise._CPU_PIXELS", 2 * 40 * 40)
    x = noisy_images(5, 0.1)
    model = tiny_plain()
    whole = torch.cat([Denoise(model, 0.1).clean(image[None]) for image in x])
    torch.testing.assert_close(Denoise(model, 0.1).clean(x), whole, atol=1.01 / 255, rtol=0)


def test_a_grey_denoiser_cleans_colour_channel_by_channel():
    x = noisy_images(1, 0.1)
    model = tiny_plain(channels=1)
    out = Denoise(model, 0.1).clean(x)
    for channel in range(3):
        alone = model.denoise(x[:, channel : channel + 1], torch.tensor([0.1])).clamp(0, 1)
        torch.testing.assert_close(out[:, channel : channel + 1], alone, atol=0.51 / 255 + 1e-5, rtol=0)


class Spoils(Box):
    """Puts a value into every image whose mean is above one half."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        y = x.clone()
        y[x.flatten(1).mean(1) > 0.5, 0, 3, 3] = self.value
        return y


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_image_that_comes_to_nothing_leaves_as_nan_and_alone(value: float):
    x = torch.rand(3, 3, 8, 8) * 0.4
    x[1] += 0.5
    out = Denoise(Spoils(value), 0.1).clean(x)
    assert torch.isnan(out[1]).all()
    assert torch.isfinite(out[[0, 2]]).all()


def test_a_hole_is_set_where_there_is_one():
    model = Holed()
    transform = Denoise(model, 0.1, hole=3)
    assert (model.hole, model.reach, transform.overlap) == (3, 4, 4)
    assert Denoise(Holed(), 0.1).model.hole == 0
    with pytest.raises(ShapeError, match="hole is for blind-spot networks, Box has none"):
        Denoise(Box(1), 0.1, hole=1)
    with pytest.raises(ShapeError, match="hole of at least 0"):
        Denoise(Holed(), 0.1, hole=-1)


def test_what_is_no_batch_of_images_is_refused():
    transform = Denoise(Box(1), 0.1)
    with pytest.raises(ShapeError, match=r"RGB images \(B, 3, H, W\)"):
        transform(batch_of(torch.rand(2, 1, 8, 8)))
    with pytest.raises(ShapeError, match="1 of 2 images hold NaN"):
        transform(batch_of(torch.stack([torch.rand(3, 8, 8), torch.full((3, 8, 8), torch.nan)])))
    with pytest.raises(ShapeError, match="expected a denoiser, got Conv2d"):
        Denoise(torch.nn.Conv2d(3, 3, 1), 0.1)


@pytest.mark.parametrize("bad", [{"sigma": -0.1}, {"min_sigma": 0.5, "max_sigma": 0.4}, {"strength": 0}])
def test_settings_out_of_range(bad: dict[str, float]):
    with pytest.raises(ShapeError, match="expected sigma of at least 0"):
        Denoise(Box(1), **bad)


def test_options_build_the_transform(tmp_path: Path):
    weights = str(checkpoints.save(tmp_path / "d.safetensors", tiny_plain()))
    options = {"weights": weights, "sigma": 0.1, "min_sigma": 0.01, "strength": 0.5, "tile": 64, "overlap": 2}
    transform = build_denoise(parse_options(options, DenoiseOptions))
    x = noisy_images(2, 0.1, 90)
    expected = Denoise(tiny_plain(), 0.1, min_sigma=0.01, strength=0.5, tile=64, overlap=2).clean(x)
    assert torch.equal(transform.clean(x), expected)
    assert build_denoise(DenoiseOptions(weights=weights, sigma="auto")).sigma is None
    with pytest.raises(OptionError, match=r"denoise\.hole: .* is no blind-spot network but a PlainDenoiser"):
        build_denoise(DenoiseOptions(weights=weights, hole=1))
    with pytest.raises(CheckpointError, match="holds a 'deflow' model, expected a denoiser"):
        build_denoise(DenoiseOptions(weights="deflow_small"))


#: Arguments that make a kind small; a kind that is not here serves with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "plain_denoiser": {"width": 4, "depth": 3},
    "flow_prior": {"width": 4, "depth": 3},
    "map_denoiser": {"width": 4, "depth": 3},
    "blind_spot": {"net": {"type": "dilated", "depth": 2, "width": 4, "hole_width": 4, "head": [8]}, "hole": 1},
}


@pytest.mark.parametrize("kind", [kind for kind, model in registry._KINDS.items() if issubclass(model, Denoiser)])
def test_every_kind_of_denoiser_serves(kind: str, tmp_path: Path):
    """From weights on disk; tile by tile as in one go; each image by itself."""
    torch.manual_seed(0)
    model = registry.build_model(kind, SMALL.get(kind, {}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    weights = str(checkpoints.save(tmp_path / f"{kind}.safetensors", model))
    x = noisy_images(2, 0.1, 100)
    whole, tiled = (build_denoise(DenoiseOptions(weights=weights, tile=tile)).clean(x) for tile in (512, 64))
    alone = build_denoise(DenoiseOptions(weights=weights)).clean(x[1:])
    assert (whole - x).abs().mean() > 1 / 255
    for other, same in ((tiled, whole), (alone, whole[1:])):
        torch.testing.assert_close(other, same, atol=1.01 / 255, rtol=0)
        assert (other != same).float().mean() < 0.001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 25}, "'sigma': expected auto, or a level from 0 to 1 .*got 25"),
        ({"sigma": "automatic"}, "expected auto, or a level"),
        ({"sigma": True}, "expected auto, or a level"),
        ({"min_sigma": 0.2, "max_sigma": 0.1}, "min_sigma up to max_sigma, got 0.2 and 0.1"),
        ({"tile": 64, "overlap": 20}, "at least 4 times the overlap of 20, got 64"),
        ({"strength": 0}, "greater than 0"),
        ({"sigmas": 0.1}, "unknown option 'sigmas'; did you mean 'sigma'"),
    ],
)
def test_options_that_are_none(options: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        parse_options({"weights": "x", **options}, DenoiseOptions)


@pytest.mark.gpu
def test_on_the_gpu():
    x = noisy_images(2, 0.1, 90)
    transform = Denoise(tiny_plain(), 0.1, tile=64)
    expected = transform.clean(x)
    out = transform.to("cuda").clean(x.cuda())
    assert out.is_cuda
    torch.testing.assert_close(out.cpu(), expected, atol=1.01 / 255, rtol=0)

"""Stages of size and colour one behind the other in a chain, and each of them on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.chain import DeviceChain, HostChain
from synthpipe.transforms.chains.explained import readable
from synthpipe.transforms.chains.stage import Context, Size, Stage
from tests.capturable import check_capturable
from tests.transforms.chains.chain_of import chain_of
from tests.transforms.chains.stage_battery import drawn, image_of, photo_like

MANY = {"area": 1, "box": 1, "bilinear": 1, "bicubic": 1, "lanczos": 1}
CHAIN: list[dict[str, Any]] = [
    {"type": "levels", "gamma": [0.5, 2], "out_black": [0, 0.1], "per_channel": True, "probability": 0.5},
    {"type": "resize", "factor": [0.4, 1.6], "filter": MANY, "linear_light": True, "probability": 0.8},
    {"type": "channel_shift", "kinds": {"one": 1, "two": 1, "chroma": 1}, "probability": 0.7},
    {"type": "screentone", "kinds": {"luma": 1, "rgb": 1, "cmyk": 1}, "strength": [0.1, 0.9], "probability": 0.5},
    {"type": "saturation"},
    {"type": "resize", "to": "lr", "factor": [0.5, 1.5], "filter": MANY, "antialias": False},
    {"type": "resize", "to": "lr", "filter": MANY},
]
#: Thresholds tell values apart that differ in their last bit; so this one comes last, and alone on CUDA.
DITHER: list[dict[str, Any]] = [
    {"type": "dither", "kinds": {"none": 1, "bayer": 1, "blue_noise": 1, "white_noise": 1}, "palettes": palettes}
    for palettes in ({"uniform": 1}, {"web": 1}, {"grey": 1})
]


def stage_of(options: dict[str, Any]) -> Stage:
    chain = chain_of([{**options, "probability": 1}], 1)
    return next(iter(chain.node.steps())).stage


def batch(seed: int, count: int = 5) -> dict[str, torch.Tensor]:
    images = torch.cat([photo_like(64, 96, seed + n) for n in range(count)])
    return {"gt": images, "seed": torch.arange(count) + 1000 * seed}


def test_a_chain_of_them() -> None:
    chain = chain_of(CHAIN, 2)
    assert isinstance(chain, DeviceChain)
    check_capturable(DeviceChain(chain.node, 2, canvas=True), batch(0), batch(1), atol=1e-4)
    whole, each = DeviceChain(chain.node, 2, canvas=True), DeviceChain(chain.node, 2, canvas=False)
    given = batch(2, 16)
    assert_close(whole(given)["lq"], each(given)["lq"], atol=2 / 255, rtol=0)
    assert whole(given)["lq"].shape == (16, 3, 32, 48)


def test_sizes_that_a_later_stage_cannot_have() -> None:
    """The tile is large enough for the first factor, but not for what comes behind it."""
    small = [{"type": "resize", "factor": [0.1, 1]}, {"type": "resize", "factor": [0.1, 1]}]
    chain = chain_of([*small, {"type": "resize", "to": "lr"}], 2)
    chain.check_tiles(100, 120)
    with pytest.raises(OptionError, match=r"factor of 0.1 makes \(0, 1\) of \(9, 12\) pixels"):
        chain.check_tiles(98, 120)


def test_palettes_of_the_image_make_a_chain_of_the_host() -> None:
    chain = chain_of([{"type": "resize", "to": "lr"}, {"type": "dither", "palettes": {"median_cut": 1}}], 2)
    assert isinstance(chain, HostChain)
    assert chain(batch(3))["lq"].shape == (5, 3, 32, 48)


def test_what_was_drawn_is_said_in_words() -> None:
    """Each number of a kind, filter or palette as the name that option files have."""
    said = {
        options["type"]: [readable(stage_of(options), drawn(stage_of(options), torch.tensor([n]))) for n in range(60)]
        for options in (CHAIN[-1], CHAIN[2], CHAIN[3], {**DITHER[0], "palettes": {"web": 1, "grey": 1}})
    }
    assert {note["filter"] for note in said["resize"]} == set(MANY)
    assert {note["kind"] for note in said["channel_shift"]} == {"one", "two", "chroma"}
    assert {note["kind"] for note in said["screentone"]} == {"luma", "rgb", "cmyk"}
    assert {note["kind"] for note in said["dither"]} == {"none", "bayer", "blue_noise", "white_noise"}
    assert {(note["palette"], note["levels"] == 6) for note in said["dither"]} >= {("web", True), ("grey", False)}


@pytest.mark.gpu
@pytest.mark.parametrize("options", [*CHAIN, *DITHER], ids=lambda options: options["type"])
def test_cuda_gives_the_same(options: dict[str, Any]) -> None:
    stage, there = stage_of(options), stage_of(options).to("cuda")
    given = batch(4, 8)
    heights, widths = torch.tensor([64, 50, 33, 64, 20, 41, 64, 57]), torch.tensor([96, 96, 51, 32, 20, 77, 95, 64])
    canvas = Canvas(given["gt"], heights, widths)
    expected = stage.on_canvas(canvas, drawn(stage, given["seed"]), Context(Size(32, 48), given["seed"], "x"))
    seeds = given["seed"].cuda()
    moved = Canvas(canvas.pixels.cuda(), heights.cuda(), widths.cuda())
    made = there.on_canvas(moved, drawn(there, seeds), Context(Size(32, 48), seeds, "x"))
    for row in range(8):
        assert_close(image_of(made, row).cpu(), image_of(expected, row), atol=2 / 255, rtol=0)
        own = {name: value[row : row + 1] for name, value in drawn(stage, given["seed"]).items()}
        context = Context(Size(32, 48), seeds[row : row + 1], "x")
        alone = there.on_image(image_of(canvas, row).cuda(), own, context)
        assert_close(alone.cpu(), image_of(expected, row), atol=2 / 255, rtol=0)

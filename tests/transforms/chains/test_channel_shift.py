"""Shifts between channels, against places that bumps have and against OpenCV's conversion to YCrCb."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.channel_shift import ChannelShiftStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.channel_shift import ChannelShift
from tests.transforms.chains.stage_battery import check_stage, drawn

CONTEXT = Context(Size(40, 50), torch.arange(1), "")


def stage(**options: object) -> ChannelShift:
    return ChannelShift(parse_options({"type": "channel_shift", **options}, ChannelShiftStageOptions))


def both(made_by: ChannelShift, x: Tensor, params: dict[str, Tensor]) -> list[np.ndarray]:
    made = made_by.on_image(x, params, CONTEXT), made_by.on_canvas(Canvas(x), params, CONTEXT).pixels
    return [image[0].numpy() for image in made]


def bump(down: float = 0.0, right: float = 0.0) -> np.ndarray:
    rows, columns = np.arange(40)[:, None], np.arange(50)
    return np.exp(-(((rows - 19.3 - down) / 4) ** 2) - ((columns - 24.1 - right) / 4) ** 2)


@pytest.mark.parametrize("kinds", [{"one": 1}, {"two": 1}, {"chroma": 1}, {"one": 1, "two": 1, "chroma": 1}])
def test_keeps_the_contract_of_stages(kinds: dict[str, float]) -> None:
    check_stage(stage(kinds=kinds, x=[-3, 3], y=[-2.5, 0]), tolerance=1e-5)
    check_stage(stage(kinds=kinds, x=[-20, 20], y=[-30, 30]), tolerance=1e-5)
    assert not stage(kinds=kinds).aligned


def test_a_bump_moves_by_what_was_drawn() -> None:
    shifting = stage(kinds={"two": 1}, x=[-3, 3], y=[-3, 3])
    for seed in range(8):
        params = dict(drawn(shifting, torch.tensor([seed])))
        x = torch.from_numpy(bump()).float().expand(1, 3, -1, -1)
        for found in both(shifting, x, params):
            for channel in range(3):
                expected = bump(float(params["y"][0, channel]), float(params["x"][0, channel]))
                assert np.abs(found[channel] - expected).max() < 0.005  # what a cubic makes of a bump of this width


def test_chroma_moves_and_luma_stays() -> None:
    generator = np.random.default_rng(0)
    x = cv2.GaussianBlur(generator.random((40, 50, 3), dtype=np.float32), (0, 0), 2)
    shifting = stage(kinds={"chroma": 1})
    params = {"kind": torch.tensor([2]), "x": torch.full((1, 3), 3.0), "y": torch.full((1, 3), -2.0)}
    before = cv2.cvtColor(x, cv2.COLOR_RGB2YCrCb)
    for found in both(shifting, torch.from_numpy(x).permute(2, 0, 1)[None], params):
        after = cv2.cvtColor(np.ascontiguousarray(found.transpose(1, 2, 0)), cv2.COLOR_RGB2YCrCb)
        np.testing.assert_allclose(after[..., 0], before[..., 0], atol=1e-4)
        np.testing.assert_allclose(after[:-2, 3:, 1:], before[2:, :-3, 1:], atol=2e-3)


def test_who_moves() -> None:
    seeds = torch.arange(30000)
    params = drawn(stage(kinds={"one": 1, "two": 1, "chroma": 2}, x=[0.5, 1], y=[-2, -1]), seeds)
    moving = params["x"] != 0
    assert torch.equal(moving, params["y"] != 0)
    for kind, (count, share) in enumerate([(1, 0.25), (2, 0.25), (3, 0.5)]):
        of_kind = params["kind"] == kind
        assert abs(float(of_kind.float().mean()) - share) < 0.01
        assert bool((moving[of_kind].sum(1) == count).all())
        assert bool(((moving[of_kind].float().mean(0) - count / 3).abs() < 0.02).all())
    two = params["x"][params["kind"] == 1]
    assert bool((two.max(1).values != two.median(1).values).all()), "two channels move by shifts of their own"
    alike = params["x"][params["kind"] == 2]
    assert bool((alike == alike[:, :1]).all())


def test_too_far() -> None:
    sizes = Extent(Size(16, 12), Size(40, 40))
    assert stage(x=[-11, 2]).extent(sizes, Size(4, 4)) == sizes
    with pytest.raises(OptionError, match=r"channel_shift: x of up to 12 pixels .*\(16, 12\).*less than 12"):
        stage(x=[-12, 2]).extent(sizes, Size(4, 4))

"""Halftone dots: tones, periods and angles against what a printed area must have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.screentone import ScreentoneStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.stage import Context, Extent, Size
from synthpipe.transforms.chains.stages.screentone import KINDS, Screentone
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn

CONTEXT = Context(Size(64, 64), torch.tensor([5]), "screentone")


def stage(**options: object) -> Screentone:
    return Screentone(parse_options({"type": "screentone", **options}, ScreentoneStageOptions))


def made(screentone: Screentone, x: Tensor, seed: int = 3) -> np.ndarray:
    """``(3, h, w)``."""
    return screentone.on_image(x, drawn(screentone, torch.tensor([seed])), CONTEXT)[0].numpy()


@pytest.mark.parametrize("kinds", [{"luma": 1}, {"rgb": 1}, {"cmyk": 1}, {"luma": 1, "rgb": 1, "cmyk": 1}])
def test_keeps_the_contract_of_stages(kinds: dict[str, float]) -> None:
    screentone = stage(kinds=kinds, angle=[0, 90], strength=[0.5, 1])
    check_stage(screentone, tolerance=1e-5)
    assert screentone.aligned
    check_aligned(screentone, draws=64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
def test_tones_stay(kind: str, value: float) -> None:
    """A flat area of 512 x 512 has its tone on average, and white and black are untouched."""
    x = torch.full((1, 3, 512, 512), value)
    found = made(stage(kinds={kind: 1}, period=7.3, softness=0.5), x)
    assert abs(found.mean() - value) < 0.01
    if value in (0, 1):
        assert np.abs(found - value).max() < 1e-6
    else:  # nothing but ink and paper: the deviation of a coin, less the soft edges
        assert found.std() > 0.7 * np.sqrt(value * (1 - value))


def test_dots_of_half_a_tone_are_a_chessboard() -> None:
    """s > 0 where |u| + |v| < 1/2: squares that touch at their corners, turned by 45 degrees against the grid."""
    x = torch.full((1, 3, 32, 32), 0.5)
    params = {**drawn(stage(period=16, softness=0.1), torch.tensor([0])), "phase": torch.zeros(1, 2)}
    params["angle"] = torch.tensor([-45.0])  # beside black's own 45: the grid of pixels
    found = stage(period=16, softness=0.1).on_image(x, params, CONTEXT)[0, 0].numpy()
    place = np.abs((np.arange(32) + 8) % 16 - 8) / 16
    diamond = place[:, None] + place
    assert (found[diamond < 0.49] == 0).all()
    assert (found[diamond > 0.51] == 1).all()


@pytest.mark.parametrize(("kind", "angles"), [("luma", [45, 45, 45]), ("rgb", [15, 75, 0])])
def test_periods_and_angles(kind: str, angles: list[float]) -> None:
    """The strongest waves of a flat tone are at 1 / period, at the angle of the channel's screen and across it."""
    found = made(stage(kinds={kind: 1}, period=8, softness=1, angle=7), torch.full((1, 3, 512, 512), 0.4))
    window = np.hanning(512)[:, None] * np.hanning(512)
    for channel, angle in zip(found, angles, strict=True):
        power = np.abs(np.fft.fft2((channel - channel.mean()) * window))
        down, right = (np.fft.fftfreq(512)[place] for place in np.unravel_index(power.argmax(), power.shape))
        assert abs(np.hypot(down, right) - 1 / 8) < 1 / 512
        assert abs((np.degrees(np.arctan2(down, right)) - angle - 7 + 45) % 90 - 45) < 1


def test_black_takes_over_the_greys() -> None:
    """Grey has no coloured dots in cmyk, and has them in rgb; luma loses the colour."""
    grey = torch.full((1, 3, 64, 64), 0.4)
    spread = {kind: np.ptp(made(stage(kinds={kind: 1}), grey), axis=0).max() for kind in KINDS}
    assert spread == {"luma": 0, "rgb": pytest.approx(1, abs=0.05), "cmyk": pytest.approx(0, abs=1e-6)}
    red = torch.tensor([0.8, 0.2, 0.1])[:, None, None].expand(1, 3, 256, 256)
    means = {kind: made(stage(kinds={kind: 1}, period=6.1, softness=0.5), red).mean((1, 2)) for kind in KINDS}
    np.testing.assert_allclose(means["luma"], 0.299 * 0.8 + 0.587 * 0.2 + 0.114 * 0.1, atol=0.01)
    np.testing.assert_allclose(means["rgb"], [0.8, 0.2, 0.1], atol=0.01)
    # Inks print on each other: the share of paper left is (1 - C)(1 - K) with screens at different angles.
    np.testing.assert_allclose(means["cmyk"], [0.8, 0.2, 0.1], atol=0.02)


def test_draws() -> None:
    params = drawn(stage(kinds={"luma": 1, "cmyk": 3}, period=[3, 5], angle=[-10, 10]), torch.arange(20000))
    assert abs(float((params["kind"] == KINDS.index("cmyk")).double().mean()) - 0.75) < 0.015
    assert (params["kind"] != KINDS.index("rgb")).all()
    assert 3 <= float(params["period"].min()) < 3.01 < 4.99 < float(params["period"].max()) <= 5
    assert abs(float(params["angle"].mean())) < 0.3


def test_what_is_refused() -> None:
    sizes = Extent(Size(20, 7), Size(64, 64))
    assert stage(period=[3, 7]).extent(sizes, Size(8, 8)) == sizes
    with pytest.raises(OptionError, match=r"period of up to 8 pixels .*\(20, 7\).*at most 7"):
        stage(period=[3, 8]).extent(sizes, Size(8, 8))
    with pytest.raises(OptionError, match="all weights are 0"):
        stage(kinds={})

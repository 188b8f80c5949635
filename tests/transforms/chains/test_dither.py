"""Few colours, against Bayer's table, Pillow, a Floyd-Steinberg of a few lines, and the spectrum of blue noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from synthpipe.config.reader import parse_options
from synthpipe.config.stages.dither import DitherStageOptions
from synthpipe.errors import OptionError
from synthpipe.transforms.chains.stage import Context, Size
from synthpipe.transforms.chains.stages.dither import KINDS, PALETTES, Dither
from synthpipe.transforms.chains.thresholds import bayer_thresholds, blue_noise_thresholds
from tests.transforms.chains.stage_battery import check_aligned, check_stage, drawn, photo_like

CONTEXT = Context(Size(64, 64), torch.tensor([5]), "dither")
ON_DEVICE = {"none": 1, "bayer": 1, "blue_noise": 1, "white_noise": 1}


def stage(**options: object) -> Dither:
    return Dither(parse_options({"type": "dither", **options}, DitherStageOptions))


def made(dither: Dither, x: Tensor, **settings: float) -> np.ndarray:
    """``(h, w, 3)``, with these settings and others as drawn."""
    params = {**drawn(dither, torch.tensor([3])), **{name: torch.tensor([value]) for name, value in settings.items()}}
    return dither.on_image(x, params, CONTEXT)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", list(ON_DEVICE))
@pytest.mark.parametrize("palettes", [{"uniform": 1}, {"uniform": 1, "web": 1, "grey": 1}])
def test_keeps_the_contract_of_stages(kind: str, palettes: dict[str, float]) -> None:
    dither = stage(kinds={kind: 1}, palettes=palettes, strength=[0.5, 1])
    assert dither.capturable
    check_stage(dither, tolerance=0, mean_tolerance=0, apart=0)


def test_keeps_the_contract_with_all_that_is_drawn() -> None:
    check_stage(stage(kinds=ON_DEVICE, palettes={"uniform": 1, "grey": 1}, colours=[2, 256]), tolerance=0, apart=0)
    on_host = stage(kinds={**ON_DEVICE, "floyd_steinberg": 1}, palettes={"uniform": 1, "grey": 1, "median_cut": 1})
    assert not on_host.capturable
    for kind in range(len(KINDS)):
        for palette in ("uniform", "web", "grey", "median_cut"):
            check_stage(Fixed(on_host, kind=kind, palette=PALETTES.index(palette)))


class Fixed(Dither):
    """Some of the settings set instead of drawn."""

    def __init__(self, dither: Dither, **settings: int) -> None:
        super().__init__(dither.options)
        self.settings = settings

    def draw(self, u: Tensor) -> dict[str, Tensor]:
        fixed = {name: torch.full((len(u),), value) for name, value in self.settings.items()}
        return {**super().draw(u), **fixed}


@pytest.mark.parametrize("kind", list(ON_DEVICE))
def test_content_keeps_its_place(kind: str) -> None:
    dither = stage(kinds={kind: 1}, colours=216)
    assert dither.aligned
    check_aligned(dither, draws=48)


def test_error_diffusion_moves_content() -> None:
    """The shift is that by which made - x and the gradient of x hang together; 0.28 and 0.17 pixels here."""
    dither = stage(kinds={"floyd_steinberg": 1, "bayer": 1}, palettes={"grey": 1}, colours=2)
    assert not dither.aligned
    shifts = []
    for seed in range(60):
        x = cv2.GaussianBlur(np.random.default_rng(seed).random((64, 64)), (0, 0), 5)
        x = (x - x.min()) / (x.max() - x.min())
        seen = torch.from_numpy(x).float().expand(1, 3, -1, -1)
        of_kind = [made(dither, seen, kind=KINDS.index(kind))[..., 0] - x for kind in ("floyd_steinberg", "bayer")]
        shifts.append([[-(d * g).sum() / (g * g).sum() for g in np.gradient(x)] for d in of_kind])
    diffused, ordered = np.mean(shifts, 0)
    np.testing.assert_allclose(diffused, [-0.28, -0.17], atol=0.04)
    np.testing.assert_allclose(ordered, 0, atol=0.02)


def test_bayers_table() -> None:
    """The table of Bayer 1973 as textbooks have it, and what it makes of a ramp."""
    table = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])
    np.testing.assert_array_equal(bayer_thresholds(4) * 16 - 0.5, table)
    x = torch.full((1, 3, 8, 8), 6 / 16)
    found = made(stage(palettes={"grey": 1}, colours=2), x, row=0, column=0)
    # Six of sixteen pixels are white: those with the largest thresholds.
    np.testing.assert_array_equal(found[:4, :4, 0], table >= 10)
    np.testing.assert_array_equal(found[4:, 4:], found[:4, :4])
    moved = made(stage(palettes={"grey": 1}, colours=2), x, row=1, column=66)
    np.testing.assert_array_equal(moved[:3, :2, 0], (table >= 10)[1:, 2:])


def test_blue_noise() -> None:
    """Every threshold once, and next to nothing at low frequencies, where white noise has as much as anywhere."""
    grid = blue_noise_thresholds(64)
    np.testing.assert_allclose(np.sort(grid.ravel()), (np.arange(4096) + 0.5) / 4096)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    # Of a tenth of the pixels, the distance of one to the next makes a ring at sqrt(0.1) (Ulichney).
    for values, low, high in ((grid, 0.5, 0.7), ((grid < 0.1).astype(float), 0.28, 0.36)):
        power = np.abs(np.fft.fft2(values - values.mean())) ** 2 / values.var() / 4096
        assert power[frequency < 0.1].mean() < 0.06
        assert power[(frequency > low) & (frequency < high)].mean() > 1.4


@pytest.mark.parametrize("kind", ["bayer", "blue_noise", "white_noise", "floyd_steinberg"])
@pytest.mark.parametrize("value", [0.1, 0.37, 0.5, 0.93])
def test_dithering_keeps_the_mean(kind: str, value: float) -> None:
    x = torch.full((1, 3, 64, 64), value)
    found = made(stage(kinds={kind: 1}, palettes={"grey": 1}, colours=2, bayer_size=16), x)
    assert set(np.unique(found)) == {0, 1}
    # Four standard errors of 4096 draws; errors that leave at the border, half a pixel's each; thresholds 1/256 apart.
    tolerance = {"white_noise": 0.031, "floyd_steinberg": 64 / 4096 / 2}.get(kind, 1 / 256)
    assert abs(found.mean() - value) < tolerance


@pytest.mark.parametrize(("palette", "colours", "levels"), [("uniform", 30, 3), ("web", 9, 6), ("grey", 5, 5)])
def test_nearest_level_without_dithering(palette: str, colours: int, levels: int) -> None:
    x = photo_like(40, 50, 1)
    found = made(stage(kinds={"none": 1}, palettes={palette: 1}, colours=colours), x)
    seen = x[0].permute(1, 2, 0).numpy()
    if palette == "grey":
        seen = np.repeat((seen @ [0.299, 0.587, 0.114])[..., None], 3, -1)
    steps = np.linspace(0, 1, levels)
    np.testing.assert_allclose(found, steps[np.abs(seen[..., None] - steps).argmin(-1)], atol=1e-6)


def test_floyd_steinberg() -> None:
    """Error diffusion by its definition, in the order of rows; Pillow's own differs in the rounding of errors."""
    x = photo_like(48, 64, 2)
    found = made(stage(kinds={"floyd_steinberg": 1}, palettes={"grey": 1}, colours=2), x)[..., 0]
    grey = np.pad((x[0].permute(1, 2, 0).numpy() @ [0.299, 0.587, 0.114]), ((0, 1), (1, 1)))
    expected = np.zeros((48, 64))
    for row in range(48):
        for column in range(1, 65):
            shown = float(grey[row, column] >= 0.5)
            error, expected[row, column - 1] = grey[row, column] - shown, shown
            for down, right, weight in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                grey[row + down, column + right] += error * weight / 16
    assert (found == expected).mean() > 0.6
    blocks = [image.reshape(6, 8, 8, 8).mean((1, 3)) for image in (found, expected)]
    assert np.abs(blocks[0] - blocks[1]).max() < 0.05


def test_palette_of_the_image() -> None:
    """As Pillow's own median cut, and every colour of an image of few colours comes back."""
    x = photo_like(40, 56, 3)
    pixels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    indexed = Image.fromarray(pixels).quantize(20, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    found = made(stage(kinds={"none": 1}, palettes={"median_cut": 1}, colours=20), x)
    used = {tuple(colour) for colour in np.asarray(indexed.convert("RGB")).reshape(-1, 3)}
    assert {tuple(colour) for colour in np.round(found * 255).astype(np.uint8).reshape(-1, 3)} <= used
    error, pillows = (
        np.abs(image - pixels).mean() for image in (found * 255, np.asarray(indexed.convert("RGB"), float))
    )
    assert error < pillows * 1.05
    large = photo_like(300, 200, 4)
    pixels = (large[0].permute(1, 2, 0) * 255).round().byte().numpy()
    indexed = Image.fromarray(pixels).quantize(20, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    found = made(stage(kinds={"none": 1}, palettes={"median_cut": 1}, colours=20), large) * 255
    assert np.abs(found - pixels).mean() < 1.05 * np.abs(np.asarray(indexed.convert("RGB"), float) - pixels).mean()
    few = torch.tensor([[0.0, 0.2, 1.0], [1.0, 0.6, 0.0], [0.4, 0.4, 0.4]])[torch.arange(64) % 3].T[None, :, None]
    few = few.expand(1, 3, 16, 64).contiguous()
    np.testing.assert_allclose(
        made(stage(kinds={"none": 1}, palettes={"median_cut": 1}, colours=16), few), few[0].permute(1, 2, 0), atol=1e-6
    )


def test_draws() -> None:
    params = drawn(stage(kinds={"bayer": 3, "none": 1}, colours=[8, 216]), torch.arange(20000))
    assert sorted(set(params["colours"].tolist())) == [8, 27, 64, 125, 216]
    assert torch.equal(params["levels"] ** 3, params["colours"])
    # Of 209 numbers 19 have their cube at 8 (8..26) and one at 216.
    assert abs(float((params["levels"] == 2).double().mean()) - 19 / 209) < 0.01
    assert abs(float((params["kind"] == KINDS.index("bayer")).double().mean()) - 0.75) < 0.015


def test_strength() -> None:
    x = torch.full((1, 3, 32, 32), 0.45)
    assert np.unique(made(stage(palettes={"grey": 1}, colours=2), x, strength=0.0)).tolist() == [0]
    # Half of the distance is spread: thresholds lie between 1/4 and 3/4 of it.
    found = made(stage(palettes={"grey": 1}, colours=2, bayer_size=16), x, strength=0.5)
    assert abs(found.mean() - (0.45 - 0.25) * 2) < 0.01


@pytest.mark.parametrize("options", [{"kinds": {}}, {"palettes": {"web": 0}}])
def test_weights_of_nothing(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="all weights are 0"):
        stage(**options)

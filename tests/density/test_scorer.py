"""The scorer's parts and columns; what it refuses."""

from __future__ import annotations

import pytest
import torch

from synthpipe import checkpoints
from synthpipe.density import DDE, DensityScorer
from synthpipe.density.tile_statistics import blockiness, coder_bits
from synthpipe.errors import ShapeError
from synthpipe.images import luma

LEVELS = (0.02, 0.1)


def scorer(channels: int = 3, norm_levels: tuple[float, ...] = ()) -> DensityScorer:
    torch.manual_seed(0)
    dde = DDE(channels=channels, width=4, depth=3, outputs=4, domains=("clean", "jpeg", "noise"))
    model = DensityScorer(dde.config, LEVELS, tile=32, norm_levels=norm_levels)
    for parameter in model.dde.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    model.calibration.weight.data.normal_(std=0.1)
    return model.eval().requires_grad_(False)


def tiles(count: int = 4, channels: int = 3) -> torch.Tensor:
    coarse = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)


def test_each_part_is_what_its_name_says() -> None:
    model, x = scorer(norm_levels=(0.1,)), tiles()
    found = dict(zip(model.columns, model(x).unbind(1), strict=True))
    grey = luma(x)
    torch.testing.assert_close(found["coder_bits"], coder_bits(grey))
    torch.testing.assert_close(found["blockiness"], blockiness(grey))
    for level in LEVELS:
        sigma = torch.full((len(x),), level)
        energies = model.dde.energies(x, sigma).mean((2, 3))
        torch.testing.assert_close(found[f"log_energy_{level:g}"], energies[:, 0].log(), atol=1e-4, rtol=1e-4)
        for place, name in enumerate(("jpeg", "noise"), 1):
            ratio = energies[:, place] - energies[:, 0]
            torch.testing.assert_close(found[f"{name}_ratio_{level:g}"], ratio, atol=1e-3, rtol=1e-4)
    b = model.dde.border
    score = model.dde.score(x, torch.full((len(x),), 0.1))[..., b:-b, b:-b]
    norm = (0.1 * score).square().mean((1, 2, 3)).log()
    torch.testing.assert_close(found["score_norm_0.1"], norm, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["degraded_logit"], model.calibration(model.parts(x)))


def test_a_tile_does_not_depend_on_its_neighbours() -> None:
    model, x = scorer(), tiles(20)
    alone = torch.cat([model(tile[None]) for tile in x])
    torch.testing.assert_close(model(x), alone, atol=1e-4, rtol=1e-4)


def test_norms_need_a_gradient_and_get_it_in_inference_mode() -> None:
    model, x = scorer(norm_levels=(0.1,)), tiles()
    with torch.inference_mode():
        inside = model(x.clone())
        score = model.dde.score(x.clone(), torch.full((4,), 0.1))
    assert torch.equal(inside.clone(), model(x))
    torch.testing.assert_close(score.clone(), model.dde.score(x, torch.full((4,), 0.1)))


def test_the_ratio_of_a_domain_to_itself_is_zero() -> None:
    model = scorer()
    outputs = model.dde.outputs
    for conv in (model.dde.head, model.dde.linear):
        conv.weight.data[outputs : 2 * outputs] = conv.weight.data[:outputs]
    assert model.dde.head.bias is not None
    model.dde.head.bias.data[outputs : 2 * outputs] = model.dde.head.bias.data[:outputs]
    ratio = model(tiles())[:, model.columns.index("jpeg_ratio_0.02")]
    torch.testing.assert_close(ratio, torch.zeros(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_tiles_are_taken_by_either_density(channels: int) -> None:
    model = scorer(channels)
    grey = tiles(channels=1)
    torch.testing.assert_close(model(grey), model(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_flat_tiles_give_finite_numbers() -> None:
    flat = torch.stack([torch.full((3, 32, 32), value) for value in (0.0, 0.5, 1.0)])
    assert bool(torch.isfinite(scorer(norm_levels=(0.02,))(flat)).all())


def test_a_file_brings_everything_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = scorer(norm_levels=(0.1,))
    model.quantile_table[:] = torch.rand(model.quantile_table.shape)
    loaded = checkpoints.load(checkpoints.save(tmp_path / "scorer.safetensors", model), kind="density_scorer")
    assert isinstance(loaded, DensityScorer)
    assert loaded.columns == model.columns
    assert torch.equal(loaded(tiles()), model(tiles()))
    assert all(torch.equal(loaded.quantiles[count], table) for count, table in model.quantiles.items())


def test_refusals_name_what_came() -> None:
    model = scorer()
    with pytest.raises(ShapeError, match=r"got \(2, 3, 16, 32\)"):
        model(torch.zeros(2, 3, 16, 32))
    with pytest.raises(ShapeError, match="NaN"):
        model(torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(ShapeError, match=r"in \[0, 1\], got a mean of 40 in 1 of 1; divide"):
        model(torch.full((1, 3, 32, 32), 40.0))
    with pytest.raises(ShapeError, match=r"got torch.uint8; call images\.to_float first"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=r"0\.5"):
        DensityScorer(model.dde.config, (0.5,))
    with pytest.raises(ShapeError, match="more than 6 pixels, got 6"):
        DensityScorer(model.dde.config, LEVELS, tile=6)

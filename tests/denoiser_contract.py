"""The battery that every denoiser passes (the contract of ``synthpipe.denoisers.base``); one line for each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.denoisers import Denoiser
from synthpipe.errors import ShapeError
from synthpipe.transforms.tiling import apply_tiled
from tests.contracts import perturbed

SIZES = ((1, 1), (1, 6), (5, 1), (2, 2), (7, 4), (13, 16))
#: float64; sums are taken in another order in another batch, or in a tile.
TOLERANCE = 1e-10


def check_denoiser(model: Denoiser, folder: Path, std: float = 0.05) -> None:
    """The whole contract, in float64.

    Args:
        model: newly built and tiny; its parameters are moved, since many a network is the identity at first.
        folder: empty, for a checkpoint.
        std: by how much the parameters are moved; such that the outputs stay of the order of the images.
    """
    model = perturbed(model, std=std).eval()
    assert model.channels in (1, 3)
    check_sizes(model)
    check_grey_and_colour(model)
    check_images_are_apart(model)
    check_reach(model)
    check_no_images(model)
    check_tiles(model)
    check_refusals(model)
    check_checkpoint(model, folder)


def images(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noisy ones ``(count, channels, height, width)`` in float64, which leave [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + 0.3 * torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)


def levels(count: int) -> Tensor:
    """A different level for each image."""
    return torch.linspace(0.02, 0.2, count, dtype=torch.float64)


def check_sizes(model: Denoiser) -> None:
    """Any size, the same again, deterministic, the input left alone, no graph; with or without a level."""
    for height, width in SIZES:
        for channels in (3, 1):
            x = images(2, channels, height, width)
            kept = x.clone()
            y = model.denoise(x, levels(2))
            assert y.shape == x.shape, f"{height}x{width}, {channels} channels"
            assert y.dtype == x.dtype
            assert not y.requires_grad
            assert torch.isfinite(y).all(), f"{height}x{width}, {channels} channels"
            assert torch.equal(x, kept), "the input was edited"
            assert torch.equal(y, model.denoise(x, levels(2))), "not deterministic"
            assert torch.isfinite(model.denoise(x)).all(), "no level told"


def check_grey_and_colour(model: Denoiser) -> None:
    """Each path is what its channels say; the middle of the image must have been changed at all."""
    colour, grey, sigma = images(2, 3, 9, 8), images(2, 1, 9, 8), levels(2)
    own = colour if model.channels == 3 else grey
    with torch.no_grad():
        assert torch.equal(model.denoise(own, sigma), model(own, sigma))
        assert (model(own, sigma) - own).abs().max() > 1e-6, "the identity"
        if model.channels == 3:
            tripled = model(grey.repeat(1, 3, 1, 1), sigma)
            assert_close(model.denoise(grey, sigma), tripled.mean(1, keepdim=True), atol=TOLERANCE, rtol=0)
            return
        planes = [model(colour[:, place : place + 1], sigma) for place in range(3)]
        assert_close(model.denoise(colour, sigma), torch.cat(planes, 1), atol=TOLERANCE, rtol=0)


def check_images_are_apart(model: Denoiser) -> None:
    """An image's result is the same alone as in a batch of others, with its own level."""
    x, sigma = images(3, model.channels, 8, 11), levels(3)
    together = model.denoise(x, sigma)
    for place in range(3):
        alone = model.denoise(x[place : place + 1], sigma[place : place + 1])
        assert_close(together[place : place + 1], alone, atol=TOLERANCE, rtol=0)


def check_reach(model: Denoiser) -> None:
    """The gradient of a pixel is within ``reach`` of it and goes that far, and the forward pass is differentiable."""
    reach = model.reach
    side = 2 * reach + 5
    x = images(1, model.channels, side, side).requires_grad_()
    middle = side // 2
    result = model(x, levels(1))[:, :, middle, middle]
    (gradient,) = torch.autograd.grad(result.square().sum(), x)
    assert torch.isfinite(gradient).all()
    rows, columns = gradient[0].abs().sum(0).nonzero(as_tuple=True)
    furthest = int(torch.maximum((rows - middle).abs(), (columns - middle).abs()).max())
    assert furthest == reach, f"looks {furthest} pixels far, says {reach}"


def check_no_images(model: Denoiser) -> None:
    """Of an empty batch, which a filter leaves, comes an empty batch."""
    x = images(0, model.channels, 16, 16)
    assert model.denoise(x, levels(0)).shape == x.shape


def check_tiles(model: Denoiser) -> None:
    """Tiles that overlap by ``reach`` give what the whole image gives, at its borders and within."""
    tile = 2 * (model.reach + model.grid) + 8
    long = tile + model.reach + 5
    for height, width in ((9, long), (long, 9)):
        x, sigma = images(1, model.channels, height, width), levels(1)
        tiled = apply_tiled(lambda part, _, sigma=sigma: model.denoise(part, sigma), x, tile, model.reach, model.grid)
        assert_close(tiled, model.denoise(x, sigma), atol=TOLERANCE, rtol=0)


def check_refusals(model: Denoiser) -> None:
    """What is no image or no level is refused, by the model's name."""
    name, x = type(model).__name__, images(2, model.channels, 6, 6)
    for bad in (x[0], images(2, 2, 6, 6), images(2, 4, 6, 6), x[..., :0], (255 * x).to(torch.uint8)):
        with pytest.raises(ShapeError, match=rf"{name}: expected floating-point images .* got"):
            model.denoise(bad, levels(len(bad)))
    for sigma in (
        levels(1),
        levels(3),
        levels(2)[:, None],
        torch.tensor(0.1),
        -levels(2),
        levels(2) / 0,
        levels(2) * torch.nan,
    ):
        with pytest.raises(ShapeError, match=rf"{name}: expected one finite noise level .* 2 images, got"):
            model.denoise(x, sigma)
    with pytest.raises(ShapeError, match=rf"{name}: expected noise levels as a tensor \(B,\), got 0.1; give"):
        model.denoise(x, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=rf"{name}: expected images in \[0, 1\], got a mean of .* in 2 of 2; divide"):
        model.denoise(255 * x, levels(2))
    for value in (float("nan"), float("inf")):
        spoilt = x.clone()
        spoilt[1, 0, 2, 3] = value
        with pytest.raises(ShapeError, match=rf"{name}: 1 of 2 images hold NaN or infinity"):
            model.denoise(spoilt, levels(2))


def check_checkpoint(model: Denoiser, folder: Path) -> None:
    """``config`` builds the same model again, and the file gives the same results."""
    loaded = checkpoints.load(checkpoints.save(folder / "model.safetensors", model))
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    x, sigma = images(2, model.channels, 8, 9), levels(2)
    assert_close(loaded.double().denoise(x, sigma), model.denoise(x, sigma), atol=1e-4, rtol=0)

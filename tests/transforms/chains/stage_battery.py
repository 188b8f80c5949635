"""What every stage of a chain must keep to, whatever it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.philox import uniforms_of
from synthpipe.transforms.chains.canvas import Canvas
from synthpipe.transforms.chains.stage import Context, Params, Size, Stage
from tests.capturable import check_capturable

__all__ = ["Placed", "check_aligned", "check_stage", "drawn", "image_of", "photo_like"]

PLACE = "battery"
#: Beyond an image's border lies this on a canvas: anything that gets into an image shows.
_BEYOND = 17.0


def drawn(stage: Stage, seeds: Tensor) -> Params:
    """What a stage draws for these seeds."""
    return stage.draw(uniforms_of(seeds, {7: max(stage.numbers, 1)})[7][:, : stage.numbers])


def photo_like(height: int, width: int, seed: int) -> Tensor:
    """``(1, 3, h, w)`` in [0, 1]: smooth shapes, edges, some texture; more than noise for a codec."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    edges = (
        torch.nn.functional.interpolate(torch.rand(1, 1, 7, 4, generator=generator), size=(height, width)) > 0.5
    ) * 0.3
    return (smooth * 0.7 + edges + 0.03 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def image_of(canvas: Canvas, row: int) -> Tensor:
    """``(1, C, h, w)``: one image alone."""
    return canvas.pixels[row : row + 1, :, : int(canvas.heights[row]), : int(canvas.widths[row])]


class Placed:
    """A stage as what ``check_capturable`` takes: images of different sizes on a canvas."""

    samples = 1

    def __init__(self, stage: Stage, lr: Size) -> None:
        self.stage, self.lr = stage, lr

    def to(self, device: torch.device | str) -> Placed:
        self.stage.to(device)
        return self

    def compute(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        canvas = Canvas(batch["gt"], batch.get("height"), batch.get("width"))
        params = drawn(self.stage, batch["seed"])
        made = self.stage.on_canvas(canvas, params, Context(self.lr, batch["seed"], PLACE))
        inside = torch.where(made.inside, made.pixels, 0)  # what lies beyond is nobody's business
        return {"gt": batch["gt"], "seed": batch["seed"], "made": inside, "h": made.heights, "w": made.widths}


def check_stage(
    stage: Stage,
    sizes: Sequence[tuple[int, int]] = ((40, 56), (33, 47), (48, 35)),
    lr: tuple[int, int] = (24, 20),
    *,
    tolerance: float = 2 / 255,
    mean_tolerance: float = 1e-3,
    apart: float = 1e-5,
    one_size: bool = False,
) -> None:
    """The contract of :class:`Stage`.

    Args:
        stage: on the CPU.
        sizes: of the images.
        lr: the size that the chain ends with.
        tolerance: between an image alone and on a canvas, at any pixel.
        mean_tolerance: the same on average.
        apart: by how much a sample may differ in another batch on a canvas.
        one_size: the stage takes images of one size alone.
    """
    sizes = [sizes[0]] * len(sizes) if one_size else sizes
    seeds = torch.tensor([11, 2**40 + 3, 2**61 - 1][: len(sizes)])
    images = [photo_like(*size, seed=place) for place, size in enumerate(sizes)]
    alone = [_alone(stage, x, seed, lr) for x, seed in zip(images, seeds, strict=True)]
    _check_nan_alone(stage, images[0], seeds[0], lr)
    if not stage.capturable:
        return
    batch = _batch(images, seeds, one_size)
    placed = Placed(stage, Size(*lr))
    canvas = Canvas(batch["gt"], batch.get("height"), batch.get("width"))
    made = stage.on_canvas(canvas, drawn(stage, seeds), Context(Size(*lr), seeds, PLACE))
    for row, expected in enumerate(alone):
        found = image_of(made, row)
        assert found.shape == expected.shape, f"row {row}: on a canvas {found.shape}, alone {expected.shape}"
        assert_close(found, expected, atol=tolerance, rtol=0, msg=lambda m, r=row: f"row {r}: {m}")
        assert float((found - expected).abs().mean()) <= mean_tolerance, f"row {row}"
    others = _batch([photo_like(*size, seed=9 + n) for n, size in enumerate(sizes)], seeds + 5, one_size)
    check_capturable(placed, batch, others, atol=apart)
    _check_nan_on_canvas(placed, batch)


def _alone(stage: Stage, x: Tensor, seed: Tensor, lr: tuple[int, int]) -> Tensor:
    given = x.clone()
    seeds = seed[None]
    made = stage.on_image(x, drawn(stage, seeds), Context(Size(*lr), seeds, PLACE, by_host=True))
    again = stage.on_image(x, drawn(stage, seeds), Context(Size(*lr), seeds, PLACE, by_host=True))
    assert torch.equal(x, given), "the image was edited"
    assert torch.equal(made, again), "not the same twice"
    in_pixels = x.contiguous(memory_format=torch.channels_last)
    again = stage.on_image(in_pixels, drawn(stage, seeds), Context(Size(*lr), seeds, PLACE, by_host=True))
    assert_close(again, made, atol=1e-5, rtol=0, msg=lambda m: f"pixels in another order in memory: {m}")
    assert made.dtype == torch.float32
    assert made.ndim == 4
    assert len(made) == 1
    assert bool(torch.isfinite(made).all())
    return made


def _batch(images: Sequence[Tensor], seeds: Tensor, one_size: bool) -> dict[str, Tensor]:
    if one_size:
        return {"gt": torch.cat(list(images)), "seed": seeds}
    height, width = (max(x.shape[dim] for x in images) + 3 for dim in (2, 3))
    pixels = torch.full((len(images), 3, height, width), _BEYOND)
    for row, x in enumerate(images):
        pixels[row, :, : x.shape[2], : x.shape[3]] = x[0]
    sides = {"height": torch.tensor([x.shape[2] for x in images]), "width": torch.tensor([x.shape[3] for x in images])}
    return {"gt": pixels, "seed": seeds, **sides}


def _check_nan_alone(stage: Stage, x: Tensor, seed: Tensor, lr: tuple[int, int]) -> None:
    broken = x.clone()
    broken[0, :, x.shape[2] // 2, x.shape[3] // 2] = float("nan")
    seeds = seed[None]
    made = stage.on_image(broken, drawn(stage, seeds), Context(Size(*lr), seeds, PLACE))
    assert bool(made.isnan().any()), "NaN vanished: the stream would not drop the sample"


def _check_nan_on_canvas(placed: Placed, batch: dict[str, Tensor]) -> None:
    broken = {**batch, "gt": batch["gt"].clone()}
    broken["gt"][0, :, 12, 12] = float("nan")
    whole, torn = placed.compute(batch), placed.compute(broken)
    assert bool(torn["made"][0].isnan().any()), "NaN vanished: the stream would not drop the sample"
    assert_close(torn["made"][1:], whole["made"][1:], atol=1e-6, rtol=0)


def check_aligned(
    stage: Stage, *, side: int = 64, lr: int = 16, draws: int = 24, atol: float = 0.01, **settings: Any
) -> None:
    """Content keeps its place: a bump in the middle stays there, on average, to ``atol`` pixels of the input.

    Args:
        stage: what is looked at.
        side: of the image.
        lr: the size that the chain ends with.
        draws: samples that are averaged.
        atol: pixels of the input, beside three standard errors of the average.
        settings: params that are set instead of drawn, each a number.
    """
    offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = (-0.5 * (offset / (side / 10)) ** 2).exp()
    x = (0.2 + 0.6 * line[:, None] * line).float().expand(1, 3, side, side)
    shifts = []
    for seed in range(draws):
        seeds = torch.tensor([seed])
        params = {**drawn(stage, seeds), **{name: torch.tensor([value]) for name, value in settings.items()}}
        made = stage.on_image(x, params, Context(Size(lr, lr), seeds, PLACE))[0].double().mean(0)
        shifts.append([_centre(made.sum(1)) * side / made.shape[0], _centre(made.sum(0)) * side / made.shape[1]])
    found = torch.tensor(shifts)
    error = 3 * found.std(0) / draws**0.5
    assert bool((found.mean(0).abs() <= atol + error).all()), f"moved by {found.mean(0).tolist()} pixels, +- {error}"


def _centre(line: Tensor) -> float:
    """Of mass above the background, from the middle, in pixels."""
    weight = line - torch.quantile(line, 0.2)
    weight = torch.where(weight > 0.15 * weight.max(), weight, 0.0)
    place = torch.arange(len(line), dtype=torch.float64) - (len(line) - 1) / 2
    return float((weight * place).sum() / weight.sum())

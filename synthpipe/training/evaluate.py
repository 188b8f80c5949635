"""Figures on held-out images: likelihood of a flow, and PSNR and SSIM by BasicSR."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from synthpipe.errors import ImageError, ShapeError, TrainingError
from synthpipe.files.decode import decode_image
from synthpipe.files.folder_walk import passed_over_text
from synthpipe.files.skip_advice import skip_advice
from synthpipe.flows.deflow import DeFlow
from synthpipe.images import crop_to_multiple, to_float, to_uint8
from synthpipe.seeds import generator_for, sample_seed
from synthpipe.training.data.folder_domain import list_images

__all__ = ["Likelihood", "held_out_likelihood", "psnr_ssim"]


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of a folder of images.

    Args:
        nll: nats per image, mean over images.
        bits_per_dim: true bits per dimension, mean over all values of all images.
        images: how many were used.
        skipped: how many were not, by reason.
        passed_over: what lay in the folder beside the images, by suffix or reason.
        given_up: what the images used held beside 8-bit sRGB, by reason (:data:`synthpipe.files.decode.GIVEN_UP`).
    """

    nll: float
    bits_per_dim: float
    images: int
    skipped: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)


@torch.no_grad()
def held_out_likelihood(
    model: DeFlow, folder: str | Path, domain: int, *, tile: int = 256, seed: int = 0, limit: int | None = None
) -> Likelihood:
    """Negative log-likelihood of all images below ``folder`` under a two-domain flow, on the model's device.

    Images are cut into tiles, each scored on its own; what is left at the bottom and right beyond a multiple of the
    model's ``size_multiple`` is not scored.  The noise of an image follows from ``seed`` and its path below ``folder``.

    Args:
        model: in eval mode; of it, ``nll``, ``bits_per_dim`` and ``size_multiple`` are used.
        folder: searched with all below it.
        domain: 0 clean, 1 noisy.
        tile: largest side of a tile; bounds the memory.
        seed: of dequantisation and condition noise.
        limit: score only so many images, the first by path.

    Raises:
        TrainingError: no image in the folder can be used.
        ShapeError: ``tile`` is smaller than the model's ``size_multiple``.
    """
    device = next(model.parameters()).device
    side = tile // model.size_multiple * model.size_multiple
    if side == 0:
        raise ShapeError(f"held_out_likelihood: tile must be at least {model.size_multiple}, got {tile}")
    skipped: Counter[str] = Counter()
    passed_over: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    nats: list[float] = []
    bits, values = 0.0, 0
    for path in list_images(folder, passed_over)[:limit]:
        try:
            image = _read(path, model.size_multiple, given_up)
        except ImageError as error:
            skipped[error.reason] += 1
            continue
        generator = generator_for(sample_seed(seed, 0, path.relative_to(folder).as_posix()), "likelihood")
        nats.append(0.0)
        for piece in _tiles(image, side):
            x = to_float(piece[None].to(device))
            nll = model.nll(x, torch.full((1,), domain, device=device), generator)
            nats[-1] += float(nll)
            bits += float(model.bits_per_dim(nll, x.shape)) * x.numel()
            values += x.numel()
    if not nats:
        raise TrainingError(
            f"held_out_likelihood: no image in {str(folder)!r} can be used (skipped {passed_over_text(skipped)}); "
            + skip_advice(skipped, {"too_small": f"expected sides of at least {model.size_multiple} pixels"})
        )
    mean = sum(nats) / len(nats)
    return Likelihood(mean, bits / values, len(nats), dict(skipped), dict(passed_over), dict(sorted(given_up.items())))


def psnr_ssim(images: Tensor, references: Tensor, border: int = 0) -> tuple[float, float]:
    """Mean PSNR in dB and mean SSIM over RGB, as BasicSR computes them, after rounding to 8 bits.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        references: the same shape.
        border: pixels left out on each side.

    Raises:
        ShapeError: different shapes, or no images: there is no mean of nothing.
        TrainingError: BasicSR is not installed or cannot be imported.
    """
    if images.shape != references.shape or images.ndim != 4 or not len(images):
        raise ShapeError(
            f"psnr_ssim: expected two batches (B, 3, H, W), B from 1 on, of one shape, got {tuple(images.shape)} and "
            f"{tuple(references.shape)}"
        )
    try:
        from basicsr.metrics.psnr_ssim import calculate_psnr, calculate_ssim
    # torchvision built for another torch fails with RuntimeError while it is imported.
    except (ImportError, RuntimeError) as error:
        raise TrainingError(
            f"PSNR and SSIM need BasicSR, which cannot be imported ({error}); install synthpipe[basicsr] as the README "
            "says, and call synthpipe.basicsr_plugin.compat.prepare() first"
        ) from error
    pairs = [
        (to_uint8(image).permute(1, 2, 0).cpu().numpy(), to_uint8(reference).permute(1, 2, 0).cpu().numpy())
        for image, reference in zip(images, references, strict=True)
    ]
    psnr = sum(float(calculate_psnr(a, b, crop_border=border)) for a, b in pairs) / len(pairs)
    ssim = sum(float(calculate_ssim(a, b, crop_border=border)) for a, b in pairs) / len(pairs)
    return psnr, ssim


def _read(path: Path, multiple: int, given_up: Counter[str]) -> Tensor:
    """``(3, H, W)`` uint8, sides cut to a multiple; what the image has lost is counted."""
    pixels, lost = decode_image(path.read_bytes(), str(path))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if min(image.shape[1:]) < multiple:
        raise ImageError(f"{path}: {image.shape[1]}x{image.shape[2]} is smaller than {multiple}", reason="too_small")
    given_up.update(lost)
    return crop_to_multiple(image, multiple)


def _tiles(image: Tensor, side: int) -> Iterator[Tensor]:
    for rows in torch.split(image, side, dim=1):
        yield from torch.split(rows, side, dim=2)

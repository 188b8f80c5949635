"""Held-out figures against closed forms and scikit-image."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from synthpipe.errors import ShapeError, TrainingError
from synthpipe.training.evaluate import held_out_likelihood, psnr_ssim


class Uniform(nn.Module):
    """Uniform density on [0, 1]^n in the clean domain, e times as dense in the noisy one; counts what it sees."""

    size_multiple = 8

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.shapes: list[tuple[int, ...]] = []

    def nll(self, x: Tensor, domain: Tensor, generator: torch.Generator) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return -domain.float() * x[0].numel()

    def bits_per_dim(self, nll: Tensor, shape: torch.Size) -> Tensor:
        return (nll / math.prod(shape[1:]) + math.log(256)) / math.log(2)


def test_likelihood_of_a_uniform_density_is_eight_bits(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png", 30, 44)
    write_image(tmp_path / "deep" / "b.png", 16, 16)
    write_image(tmp_path / "tiny.png", 7, 40)
    (tmp_path / "broken.jpg").write_bytes(b"no")
    (tmp_path / "old.xcf").write_bytes(b"no")
    model = Uniform()
    clean = held_out_likelihood(model, tmp_path, 0, tile=18)
    assert clean.bits_per_dim == pytest.approx(8)
    assert clean.nll == 0
    assert clean.images == 2
    assert clean.skipped == {"too_small": 1, "unreadable": 1}
    assert clean.passed_over == {".xcf": 1}
    # 30x44 is cut to 24x40: rows of 16 and 8, columns of 16, 16 and 8.
    assert sorted(model.shapes[:6]) == sorted((1, 3, h, w) for h in (16, 8) for w in (16, 16, 8))
    noisy = held_out_likelihood(model, tmp_path, 1, tile=18)
    assert noisy.bits_per_dim == pytest.approx(8 - 1 / math.log(2), rel=1e-6)
    assert noisy.nll == pytest.approx(-3 * (24 * 40 + 16 * 16) / 2)
    assert held_out_likelihood(model, tmp_path, 0, limit=1).images == 1


def test_likelihood_refuses_what_it_cannot_score(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "tiny.png", 7, 7)
    with pytest.raises(TrainingError, match=r"no image in .* can be used \(skipped 1 too_small\)"):
        held_out_likelihood(Uniform(), tmp_path, 0)
    with pytest.raises(ShapeError, match="tile must be at least 8, got 7"):
        held_out_likelihood(Uniform(), tmp_path, 0, tile=7)


def test_psnr_and_ssim_by_basicsr() -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("synthpipe.basicsr_plugin.compat").prepare()
    pytest.importorskip("basicsr")
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(2, 3, 40, 48, generator=generator)
    noisy = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    psnr, ssim = psnr_ssim(noisy, reference, border=4)
    a, b = ((x.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()[:, 4:-4, 4:-4] for x in (noisy, reference))
    expected = np.mean([peak_signal_noise_ratio(b[i], a[i], data_range=255) for i in range(2)])
    assert psnr == pytest.approx(expected, abs=1e-4)
    assert 0.5 < ssim < 1
    assert psnr_ssim(reference, reference)[1] == pytest.approx(1)


def test_psnr_needs_equal_shapes() -> None:
    with pytest.raises(ShapeError, match=r"one shape, got \(1, 3, 8, 8\) and \(1, 3, 8, 9\)"):
        psnr_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))


def test_psnr_of_no_pairs_is_no_figure() -> None:
    with pytest.raises(ShapeError, match="B from 1 on"):
        psnr_ssim(torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8))

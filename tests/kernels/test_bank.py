"""Banks of kernels: against Fourier transforms known by formula, and refusal of what is no bank."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from synthpipe import checkpoints
from synthpipe.errors import CheckpointError, ShapeError
from synthpipe.kernels import KernelBank
from synthpipe.kernels.bank import at_strength
from synthpipe.kernels.response import FREQUENCIES, amplitudes
from tests.kernels.known_kernels import gaussians


def test_amplitudes_of_gaussians_are_gaussians() -> None:
    sigmas = (1.2, 1.7)  # wide enough for pixels: of 1.2 waves of 1 - 0.47 add 3e-4
    expected = [[math.exp(-2 * (math.pi * sigma * f) ** 2) for f in FREQUENCIES] for sigma in sigmas]
    assert_close(amplitudes(gaussians(*sigmas)), torch.tensor(expected, dtype=torch.float64), atol=1e-3, rtol=0)


def test_amplitudes_are_the_mean_over_directions_of_numpy_s_transform() -> None:
    kernel = np.random.default_rng(3).normal(size=(5, 5))
    spectrum = np.abs(np.fft.fft2(kernel, (4000, 4000)))
    for frequency in (0.1, 0.3):
        angles = np.arange(16) * np.pi / 16
        rows, columns = (np.round(4000 * frequency * way(angles)).astype(int) for way in (np.sin, np.cos))
        found = amplitudes(torch.from_numpy(kernel)[None], [frequency])
        assert float(found) == pytest.approx(spectrum[rows, columns].mean(), rel=2e-3)


@given(st.floats(0, 1), st.floats(0.5, 2))  # beyond 1 waves may turn over, in some directions first
def test_strength_mixes_the_response_with_one(strength: float, sigma: float) -> None:
    kernel = gaussians(sigma)
    found = amplitudes(at_strength(kernel, torch.tensor([strength])))
    assert_close(found, 1 + strength * (amplitudes(kernel) - 1), atol=1e-6, rtol=0)


def test_a_new_bank_changes_no_image() -> None:
    bank = KernelBank(3, 5)
    bank.check()
    assert_close(amplitudes(bank.kernels), torch.ones(3, len(FREQUENCIES), dtype=torch.float64))
    assert_close(bank.shares(), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_bank_comes_back_from_its_file(tmp_path: Path) -> None:
    bank = KernelBank.of(4 * gaussians(0.7, 1.3), torch.tensor([1.0, 3.0]))
    loaded = checkpoints.load(checkpoints.save(tmp_path / "bank.safetensors", bank), kind="kernels")
    assert isinstance(loaded, KernelBank)
    assert loaded.config == {"number": 2, "side": 21}
    assert torch.equal(loaded.kernels, bank.kernels)
    assert_close(loaded.shares(), torch.tensor([0.25, 0.75], dtype=torch.float64))
    expected = (gaussians(0.7)[0] + 3 * gaussians(1.3)[0]) / 4
    assert_close(loaded.mean(), expected, atol=1e-7, rtol=0)


def test_kernels_of_colour_come_back_and_banks_without_are_as_before(tmp_path: Path) -> None:
    bank = KernelBank.of(gaussians(0.7, 1.3), chroma=3 * gaussians(1.0, 1.5))
    loaded = checkpoints.load(checkpoints.save(tmp_path / "bank.safetensors", bank), kind="kernels")
    assert isinstance(loaded, KernelBank)
    assert loaded.config == {"number": 2, "side": 21, "chroma": True}
    assert loaded.chroma is not None
    assert_close(loaded.chroma.double(), gaussians(1.0, 1.5), atol=1e-7, rtol=0)
    shipped = checkpoints.load("kernels_city100", kind="kernels")
    assert isinstance(shipped, KernelBank)
    assert shipped.chroma is None
    assert set(shipped.state_dict()) == {"kernels", "weights"}
    with pytest.raises(ShapeError, match=r"expected chroma \(2, 21, 21\), got \(1, 21, 21\)"):
        KernelBank.of(gaussians(0.7, 1.3), chroma=gaussians(1.0))
    bank.chroma.fill_(1)  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match="expected sums of 1, chroma kernel 0 has 441"):
        bank.check()


def test_what_is_no_bank_is_refused() -> None:
    with pytest.raises(ShapeError, match="odd side up to 101, got 2 of 4"):
        KernelBank(2, 4)
    with pytest.raises(ShapeError, match=r"expected kernels \(N, S, S\), got \(1, 3, 5\)"):
        KernelBank.of(torch.ones(1, 3, 5))
    with pytest.raises(ShapeError, match=r"expected 1 weights, got \(2,\)"):
        KernelBank.of(gaussians(1.0), torch.ones(2))
    for weights, told in (([0.0, 0.0], "the sum 0"), ([2.0, -1.0], "the sum 1"), ([math.nan, 1.0], "the sum nan")):
        with pytest.raises(CheckpointError, match=f"expected weights of at least 0 .* got {told}"):
            KernelBank.of(gaussians(1.0, 1.1), torch.tensor(weights))
    for value in (math.nan, 0.5):
        bank = KernelBank(2, 3)
        bank.kernels[1, 0, 0] = value
        with pytest.raises(CheckpointError, match="expected sums of 1, kernel 1 has"):
            bank.check()

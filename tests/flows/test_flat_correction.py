"""The correction of residuals: against loops over pixels, NumPy's interpolation and SciPy's matrix root."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.flows.flat_correction import FlatCorrection, covariance_map, local_brightness, node_weights


def filled(brightness: int = 3, levels: int = 2, side: int = 3) -> FlatCorrection:
    correction = FlatCorrection(brightness, levels, side).double()
    generator = torch.Generator().manual_seed(0)
    for values in (correction.maps, correction.filters):
        values += 0.2 * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    correction.levels.copy_(torch.linspace(-1, 1, levels))
    return correction


def pair(count: int = 2, height: int = 11, width: int = 13) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64)
    return clean, clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)


def test_as_it_is_made_it_changes_nothing() -> None:
    clean, noisy = pair()
    assert_close(FlatCorrection(4, 2, 5).double()(clean, noisy, torch.tensor([0.1, 0.9])), noisy)


def test_no_noise_stays_none() -> None:
    clean, _ = pair()
    assert torch.equal(filled()(clean, clean, torch.tensor([0.3, -0.2])), clean)


def test_against_a_loop_over_pixels() -> None:
    correction, (clean, noisy) = filled(), pair(1)
    log_level = torch.tensor([0.4], dtype=torch.float64)
    found = correction(clean, noisy, log_level)[0]
    share = 0.7  # (0.4 - -1) / 2
    maps, filters = ((1 - share) * v[0] + share * v[1] for v in (correction.maps, correction.filters))
    residual = np.pad((noisy - clean)[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    grey = clean[0].mean(0).numpy()
    for y, x in ((0, 0), (5, 6), (10, 12), (3, 11)):
        brightness = grey[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5].mean()
        expected = clean[0, :, y, x].numpy().copy()
        for node in range(3):
            weight = np.interp(brightness, [0, 0.5, 1], np.eye(3)[node])
            patch = residual[:, y : y + 3, x : x + 3]
            expected += weight * maps[node].numpy() @ (patch * filters[node].numpy()).sum((1, 2))
        assert found[:, y, x].numpy() == pytest.approx(expected, abs=1e-12)


def test_an_image_does_not_depend_on_the_others() -> None:
    correction, (clean, noisy) = filled(), pair(3)
    log_level = torch.tensor([0.4, -2.0, 0.1], dtype=torch.float64)
    together = correction(clean, noisy, log_level)
    for n in range(3):
        assert_close(correction(clean[n : n + 1], noisy[n : n + 1], log_level[n : n + 1]), together[n : n + 1])
    noisy[1, 0, 0, 0] = torch.nan
    assert torch.isfinite(correction(clean, noisy, log_level)[::2]).all()


def test_weights_are_those_of_linear_interpolation() -> None:
    nodes, x = np.array([0.1, 0.15, 0.6, 0.9]), np.linspace(-0.2, 1.2, 57)
    found = node_weights(torch.from_numpy(x)[None], torch.from_numpy(nodes))[0].numpy()
    expected = np.stack([np.interp(x, nodes, row) for row in np.eye(4)])
    assert found == pytest.approx(expected, abs=1e-12)
    assert torch.equal(node_weights(torch.rand(2, 5), torch.tensor([0.3])), torch.ones(2, 1, 5))


def test_brightness_is_the_mean_of_what_lies_in_the_image() -> None:
    clean, _ = pair(1, 12, 9)
    found = local_brightness(clean)[0]
    assert_close(found[5, 4], clean[0, :, 1:10, :].mean())
    assert_close(found[0, 0], clean[0, :, :5, :5].mean())


def test_the_map_between_two_covariances_is_the_optimal_one() -> None:
    generator = torch.Generator().manual_seed(2)
    roots = torch.randn(2, 5, 3, 3, generator=generator, dtype=torch.float64)
    source, target = roots @ roots.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    found = covariance_map(source, target)
    assert_close(found @ source @ found, target)
    assert_close(found, found.mT)
    for a, b, m in zip(source.numpy(), target.numpy(), found.numpy(), strict=True):
        inverse = np.linalg.inv(sqrtm(a))
        assert m == pytest.approx(inverse @ sqrtm(sqrtm(a) @ b @ sqrtm(a)) @ inverse, abs=1e-8)


@pytest.mark.parametrize("arguments", [(1, 1, 1), (3, 0, 1), (3, 1, 2)])
def test_sizes_that_cannot_be_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ShapeError, match="FlatCorrection: expected"):
        FlatCorrection(*arguments)

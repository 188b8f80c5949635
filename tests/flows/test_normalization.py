"""Per-domain colour statistics: noisy images onto the clean domain's mean and spread, and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from synthpipe.errors import ShapeError
from synthpipe.flows.deflow_official import PUBLISHED
from synthpipe.flows.normalization import DomainNormalization

STATISTICS = {key: value for key, value in PUBLISHED["aim"]["normalization"].items() if key != "clamp"}
BOTH = torch.tensor([0, 1])


def stand_in(mean: str, std: str) -> Tensor:
    """Two images of one value per channel: the domain's mean plus one standard deviation, on the [0, 1] scale."""
    value = (torch.tensor([STATISTICS[mean], STATISTICS[std]], dtype=torch.float64) / 255).sum(0)
    return value[None, :, None, None].expand(2, 3, 4, 2)


def test_noisy_statistics_become_clean_ones() -> None:
    mapped, _ = DomainNormalization(**STATISTICS).normalize(stand_in("noisy_mean", "noisy_std"), BOTH)
    assert_close(mapped[1], stand_in("clean_mean", "clean_std")[1], atol=1e-9, rtol=0)


def test_reduced_images_have_their_own_statistics() -> None:
    mapped = DomainNormalization(**STATISTICS).normalize_condition(stand_in("lr_noisy_mean", "lr_noisy_std"), BOTH)
    assert_close(mapped[1], stand_in("lr_clean_mean", "lr_clean_std")[1], atol=1e-9, rtol=0)


def test_clean_images_are_left_alone() -> None:
    x = torch.rand(2, 3, 4, 2)
    part = DomainNormalization(**STATISTICS)
    mapped, logdet = part.normalize(x, BOTH)
    assert torch.equal(mapped[0], x[0])
    assert torch.equal(part.normalize_condition(x, BOTH)[0], x[0])
    assert torch.equal(part.undo(x, BOTH)[0], x[0])
    assert logdet[0] == 0


def test_undo_is_the_inverse() -> None:
    x = torch.rand(2, 3, 4, 2, dtype=torch.float64)
    part = DomainNormalization(**STATISTICS)
    assert_close(part.undo(part.normalize(x, BOTH)[0], BOTH), x, atol=1e-12, rtol=0)


def test_logdet_is_that_of_the_jacobian() -> None:
    x = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    part, noisy = DomainNormalization(**STATISTICS), torch.tensor([1])
    matrix = torch.autograd.functional.jacobian(lambda v: part.normalize(v, noisy)[0], x).reshape(12, 12)
    assert_close(part.normalize(x, noisy)[1][0], torch.linalg.slogdet(matrix).logabsdet)


@pytest.mark.parametrize("clamp", [False, True])
def test_clamp_throws_over_and_undershoot_of_noisy_images_away(clamp: bool) -> None:
    x = torch.tensor([-0.5, 1.5])[:, None, None, None].expand(2, 3, 1, 1)
    mapped, _ = DomainNormalization(**STATISTICS, clamp=clamp).normalize(x, torch.tensor([1, 1]))
    assert bool((mapped >= 0).all() and (mapped <= 1).all()) is clamp
    left_alone, _ = DomainNormalization(**STATISTICS, clamp=clamp).normalize(x, torch.tensor([0, 0]))
    assert torch.equal(left_alone, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 2, dtype=dtype)
    mapped, logdet = DomainNormalization(**STATISTICS).normalize(x, BOTH)
    assert mapped.dtype == logdet.dtype == dtype


@pytest.mark.parametrize("wrong", [{"clean_mean": [1.0, 2.0]}, {"noisy_std": [0.0, 1.0, 1.0]}])
def test_impossible_statistics_are_refused(wrong: dict) -> None:
    with pytest.raises(ShapeError, match=r"expected three RGB numbers each and standard deviations above 0, got"):
        DomainNormalization(**{**STATISTICS, **wrong})


def test_statistics_are_no_part_of_the_weights_and_go_where_the_model_goes() -> None:
    part = DomainNormalization(**STATISTICS)
    assert part.state_dict() == {}
    part.load_state_dict({})  # strict
    assert {buffer.device.type for buffer in part.to("meta").buffers()} == {"meta"}


@pytest.mark.gpu
def test_on_the_gpu_it_can_be_captured() -> None:
    part, domain = DomainNormalization(**STATISTICS).cuda(), BOTH.cuda()
    x = torch.rand(2, 3, 4, 4, device="cuda")
    expected = part.undo(part.normalize(x, domain)[0], domain)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = part.undo(part.normalize(x, domain)[0], domain)
    graph.replay()
    assert torch.equal(out, expected)
